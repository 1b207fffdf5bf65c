"""What callers ask of the engine, and what it answers. Answers are values; nothing is answered before it is committed (R25)."""

from coordinator.core.errors import Refusal
from coordinator.core.events import Event
from coordinator.core.frozen import dataclass
from coordinator.core.inputs import Start
from coordinator.core.plan import SagaPlan
from coordinator.core.state import SagaState
from coordinator.core.values import Failure, Instant, SagaId, SagaStatus
from coordinator.engine.ports import SagaStart, StartKey


@dataclass(frozen=True, slots=True, kw_only=True)
class StartCommand:
    """A saga to start."""

    saga_id: SagaId
    plan: SagaPlan
    start: Start
    fingerprint: bytes
    """Equal for two starts that ask for the same (R3)."""
    key: StartKey | None

    def saga_start(self, created_at: Instant) -> SagaStart:
        """What the journal has to know of it."""
        return SagaStart(
            definition=self.plan.key,
            fingerprint=self.fingerprint,
            labels=self.start.labels,
            key=self.key,
            created_at=created_at,
        )


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
class CommandAccepted:
    """It is done, and in the journal."""

    plan: SagaPlan
    state: SagaState
    """Live: read it at once, keep nothing of it."""
    now: Instant
    """What time it was for the saga, which may be ahead of the clock."""
    events: tuple[Event, ...]
    """What it wrote; empty: nothing had to change."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CommandRefused:
    """The state of the saga forbids it; nothing was changed."""

    status: SagaStatus
    refusal: Refusal
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class NotLive:
    """The engine does not hold this saga: it has ended, failed, is quarantined, or never was. The journal knows which, and `Engine.adopt`
    takes it up again."""


CommandAnswer = CommandAccepted | CommandRefused | NotLive | Declined
