"""Saga ids: made by clients, checked by everybody (R2)."""

import os
import re
import time
import uuid
from typing import Final

_CANONICAL: Final = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")


def new_saga_id() -> str:
    """Makes the id of a saga that is to be started: a UUID of version 7 in its canonical lower-case form.

    Its first 48 bits are the time in milliseconds, so ids made later sort later and stay close together in an index;
    74 bits are random. Source: RFC 9562, section 5.7.
    """
    return saga_id_of(time.time_ns() // 1_000_000, int.from_bytes(os.urandom(10), "big"))


def saga_id_of(at_ms: int, chance: int) -> str:
    """The id made at an instant, in milliseconds since 1970, from 80 bits of chance. For simulations, which own both."""
    value = (at_ms & 0xFFFF_FFFF_FFFF) << 80 | chance
    value = value & ~(0xF << 76) | 0x7 << 76  # version
    value = value & ~(0x3 << 62) | 0x2 << 62  # variant
    return str(uuid.UUID(int=value))


def parse_saga_id(text: str) -> str:
    """Returns `text` in the canonical lower-case form that journal and keys use.

    Every version is accepted: other languages make ids too, and only uniqueness matters.

    Raises ValueError if it is no UUID of 8-4-4-4-12 hexadecimal digits, or the one of zeros, which stands for "none".
    """
    canonical = text.lower()
    if _CANONICAL.fullmatch(canonical) is None or not canonical.strip("0-"):
        raise ValueError(
            f"a saga id is a UUID like 0197c8a4-5f0e-7c31-9a52-3f1d6b0e8a77, found {text[:64]!r}; "
            "use new_saga_id() to make one, and keep business names for idempotency keys or labels"
        )
    return canonical
