"""How idempotency treats keys, runs and answers: what a service may choose."""

from dataclasses import dataclass
from datetime import timedelta
from enum import Enum, auto
from typing import Final

from participant_sdk.clock import micros_of
from participant_sdk.idempotency.errors import IdempotencySetupError
from participant_sdk.idempotency.verdict import WhenUnknown

LEASE_MIN: Final = timedelta(milliseconds=30)
"""A shorter one would end before it is renewed."""


class KeyRule(Enum):
    """Whether requests of a route or method carry a key."""

    IGNORED = auto()
    """A key means nothing here."""
    OPTIONAL = auto()
    """With a key the request is idempotent, without one it runs as it comes."""
    REQUIRED = auto()
    """Without a key it is refused."""


class Meaning(Enum):
    """What an answer says about the effect of the run that gave it."""

    FINAL = auto()
    """It is the answer to that key: stored, and repeated."""
    NO_EFFECT = auto()
    """The run had no effect and may come again: nothing is stored, and the next request with the key runs."""
    UNKNOWN = auto()
    """Nobody knows: see `WhenUnknown`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class IdempotencyPolicy:
    """The times, sizes and rules of idempotency. The same for all processes that share a store."""

    lifetime: timedelta = timedelta(hours=24)
    """How long an answer is repeated. Tell your clients: after it the same key runs again. Longer than any client repeats."""
    lease: timedelta = timedelta(seconds=30)
    """How long a key stays locked after its process was killed. A run renews it three times as often, so it may take longer."""
    wait: timedelta = timedelta(seconds=10)
    """How long a repetition waits for the run that is under way before it is told to come again."""
    run_time_limit: timedelta = timedelta(minutes=5)
    """After this a run is cut short, and nobody knows whether it took effect."""
    settle_time_limit: timedelta = timedelta(seconds=10)
    """How long storing an answer is tried again while the store is away."""
    request_bytes_max: int = 2**20
    """Largest body of an HTTP request with a key; it is read before the handler runs. gRPC has a limit of its own."""
    answer_bytes_max: int = 2**20
    """Largest body that is stored. A larger one is given once, and its repetition is refused and does not run."""
    when_unknown: WhenUnknown = WhenUnknown.RUN_AGAIN
    """What a repetition does when nobody knows whether the run before took effect. REFUSE where doing it twice is worse than not at all."""

    def __post_init__(self) -> None:
        for name in ("lifetime", "lease", "wait", "run_time_limit", "settle_time_limit"):
            if getattr(self, name) <= timedelta():
                raise IdempotencySetupError(f"IdempotencyPolicy.{name} is more than nothing, found {getattr(self, name)}")
        for name in ("request_bytes_max", "answer_bytes_max"):
            if getattr(self, name) < 1:
                raise IdempotencySetupError(f"IdempotencyPolicy.{name} is at least 1, found {getattr(self, name)}")
        if self.lease < LEASE_MIN:
            raise IdempotencySetupError(f"IdempotencyPolicy.lease is at least {LEASE_MIN}, found {self.lease}")

    @property
    def lease_us(self) -> int:
        return micros_of(self.lease)

    @property
    def lifetime_us(self) -> int:
        return micros_of(self.lifetime)
