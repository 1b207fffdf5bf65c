"""Chance that can be repeated: each question has a stream of its own, so that leaving one saga or fault out changes no other."""

import random
from dataclasses import dataclass
from hashlib import blake2b


@dataclass(frozen=True, slots=True)
class Chance:
    """Everything follows from the seed and the name of what is asked; nothing from the order of asking."""

    seed: int

    def stream(self, *name: object) -> random.Random:
        """The stream of that name."""
        # Not `hash()`, which differs from process to process.
        digest = blake2b("/".join(map(str, (self.seed, *name))).encode(), digest_size=8).digest()
        return random.Random(int.from_bytes(digest, "big"))

    def share(self, *name: object) -> float:
        """One number from 0 to 1."""
        digest = blake2b("/".join(map(str, (self.seed, *name))).encode(), digest_size=8).digest()
        return int.from_bytes(digest, "big") / 2**64
