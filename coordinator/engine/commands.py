"""What callers ask of the engine, and what it answers. Answers are values; nothing is answered before it is committed (R25)."""

from dataclasses import dataclass

from coordinator.core.inputs import Start
from coordinator.core.plan import SagaPlan
from coordinator.core.state import SagaState
from coordinator.core.values import Failure, SagaId, SagaStatus
from coordinator.engine.ports import StartKey


@dataclass(frozen=True, slots=True, kw_only=True)
class StartCommand:
    """A saga to start."""

    saga_id: SagaId
    plan: SagaPlan
    start: Start
    fingerprint: bytes
    """Equal for two starts that ask for the same (R3)."""
    key: StartKey | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Started:
    """The saga is in the journal."""

    plan: SagaPlan
    state: SagaState
    """Live: read it at once, keep nothing of it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Existing:
    """Another start holds the id or the key."""

    winner: SagaId
    same: bool
    """Whether it asks for the same."""
    by_key: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Declined:
    """The engine takes no starts now: overloaded, closing, or without its database."""

    failure: Failure


StartAnswer = Started | Existing | Declined


@dataclass(frozen=True, slots=True, kw_only=True)
class CancelAccepted:
    """The saga turns back, or did already."""

    plan: SagaPlan
    state: SagaState


@dataclass(frozen=True, slots=True, kw_only=True)
class CancelRefused:
    """The status of the saga forbids it."""

    status: SagaStatus


@dataclass(frozen=True, slots=True, kw_only=True)
class NotLive:
    """The engine does not hold this saga: it has ended, failed, is quarantined, or never was. The journal knows which."""


CancelAnswer = CancelAccepted | CancelRefused | NotLive | Declined
