"""What the engine needs from the world. Every port is batch-shaped and none of them blocks the loop."""

from collections.abc import Callable, Sequence
from enum import Enum, auto
from typing import NamedTuple, Protocol

from coordinator.core.effects import CallParticipant
from coordinator.core.events import Event
from coordinator.core.frozen import dataclass
from coordinator.core.inputs import Replied
from coordinator.core.plan import SagaPlan
from coordinator.core.state import SagaState
from coordinator.core.values import AttemptKey, DefinitionKey, Failure, IncidentKind, Instant, SagaId, SagaStatus, StepId


class Clock(Protocol):
    """Where time comes from. Injected, so that tests and simulations own it."""

    def now(self) -> Instant:
        """The current instant; never goes back within one process."""

    def call_at(self, instant: Instant, callback: Callable[[], None], /) -> Callable[[], None]:
        """Calls back in the loop at that instant or soon after it; returns what cancels that."""


# ── Journal ──────────────────────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True, kw_only=True)
class StartKey:
    """Names one piece of business; unique per definition name (R4)."""

    definition_name: str
    key: str
    expires_at: Instant


@dataclass(frozen=True, slots=True, kw_only=True)
class SagaStart:
    """What the journal has to know when the first events of a saga are appended."""

    definition: DefinitionKey
    fingerprint: bytes
    """Of the start: equal for two starts that ask for the same (R3). 32 bytes."""
    labels: tuple[tuple[str, str], ...]
    key: StartKey | None
    created_at: Instant


@dataclass(frozen=True, slots=True, kw_only=True)
class Append:
    """Events of one saga that must be committed together, and the row by which that saga is found."""

    saga_id: SagaId
    events: tuple[Event, ...]
    """At least one, in order, without gaps."""
    status: SagaStatus
    """After these events."""
    is_unfinished: bool
    """Whether the saga can move by itself after these events, its hook included: recovery must take it up (R16)."""
    is_paused: bool
    """Whether a person has stopped it."""
    has_ended: bool
    """Whether it is COMPLETED, COMPENSATED or terminated."""
    wake_at: Instant | None
    """Until when the saga sleeps: nothing of it is under way, and it does not move by itself before. None: it does not sleep."""
    start: SagaStart | None = None
    """Set on the first append of a saga, and only there."""
    shard: int = 0
    """Of the saga, from its start to its end. SQLite has only this one."""

    @property
    def expected_sequence(self) -> int:
        """Sequence of the saga before these events."""
        return self.events[0].sequence - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Committed:
    """The events are in the journal."""

    append: Append


@dataclass(frozen=True, slots=True, kw_only=True)
class StartLost:
    """Another start holds the key or the id; nothing was written (R4)."""

    append: Append
    winner: SagaId
    same: bool
    """Whether the winner asks for the same."""
    by_key: bool
    """True: the idempotency key is taken; False: the saga id is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused:
    """The database will never take these events. Nothing of them was written; an incident was, where that was possible (R28)."""

    append: Append
    failure: Failure


@dataclass(frozen=True, slots=True, kw_only=True)
class Moved:
    """The shard of the saga is not held here any more. Whether the events are in the journal is for its owner to say (R26)."""

    append: Append


Appended = Committed | StartLost | Refused | Moved


class JournalListener(Protocol):
    """Who is told what became of appends. Called in the loop, in the order of the appends of each saga."""

    def appended(self, results: Sequence[Appended], /) -> None:
        """What became of a batch. Only now may anything be announced."""

    def shards_lost(self, shards: frozenset[int], reason: Failure, /) -> None:
        """Other nodes own these shards: nothing further of their sagas will be committed by this process (R26). Appends of them that have
        no result yet are `Moved`, which is told next."""

    def lost(self, reason: Failure, /) -> None:
        """Ownership or the database itself is gone for good: nothing further will be committed by this process (R26, R32)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredSaga:
    """One saga as the journal has it."""

    saga_id: SagaId
    definition: DefinitionKey
    fingerprint: bytes
    status: SagaStatus
    created_at: Instant
    ended_at: Instant | None
    is_paused: bool
    needs_person: bool
    """Whether an incident is open, the one of a quarantine included."""
    events: tuple[Event, ...]
    """All of them in order; empty where only the row was asked for."""
    labels: tuple[tuple[str, str], ...]
    quarantined: Failure | None
    """Why it is set aside; None: it is not."""
    shard: int = 0
    """Whose owner alone may drive it."""
    asleep_until: Instant | None = None
    """It does not move by itself before, and need not be held in memory; None: whoever drives it holds it, or will."""
    in_doubt: bool = True
    """Whether an earlier owner was the last to write of it: what it owes may be under way already (R29)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SagaFilter:
    """All conditions given must hold."""

    statuses: frozenset[SagaStatus] = frozenset()
    """Any of these; empty: all."""
    definition_name: str = ""
    """Empty: all."""
    labels: tuple[tuple[str, str], ...] = ()
    created_from: Instant | None = None
    created_before: Instant | None = None
    is_paused: bool | None = None
    """None: both."""
    needs_person: bool | None = None
    """Whether an incident is open; None: both."""
    incident_kinds: frozenset[IncidentKind] = frozenset()
    """With an open incident of any of these; empty: all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class IncidentFilter:
    """All conditions given must hold."""

    include_closed: bool = False
    kinds: frozenset[IncidentKind] = frozenset()
    """Any of these; empty: all."""
    saga_id: SagaId | None = None
    definition_name: str = ""
    """Empty: all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredIncident:
    """One incident as the journal has it, with the saga that it belongs to."""

    saga_id: SagaId
    definition: DefinitionKey
    status: SagaStatus
    """Of the saga."""
    id: int
    """Unique in its saga; 0: the journal itself has set the saga aside."""
    kind: IncidentKind
    step_id: StepId | None
    failure: Failure
    """Code and message; details are in the events."""
    opened_at: Instant
    closed_at: Instant | None


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredDefinition:
    """A registered definition, as bytes that the codec understands."""

    key: DefinitionKey
    content: bytes
    """The definition and its descriptors, in the coordinator's own deterministic serialisation: equal bytes are the same definition."""
    registered_at: Instant


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredParticipant:
    """One place where a participant can be called, as it registered itself."""

    name: str
    target: str
    description: bytes
    """saga.v1.ParticipantDescription."""
    expires_at: Instant


class Forgotten(NamedTuple):
    """How many rows of each kind were deleted because nobody needs them any more."""

    sagas: int
    keys: int
    registrations: int


class JournalFigures(NamedTuple):
    """What a journal has done since it was opened."""

    commits: int
    """Database transactions with appends."""
    appends: int
    """In them. Divided by the commits: how many sagas share one."""
    refused: int
    """Appends that the database has refused because another node owns their shard (P6)."""


class Journal(Protocol):
    """The append-only record of every saga, and what is kept beside it.

    Appends are queued without waiting and committed in groups, each group in one database transaction. A database that is away is waited
    for: appends are repeated until they are in or refused for ever. Reads see what is committed, and raise `JournalUnavailableError` when
    the database cannot be read.
    """

    def append(self, batch: Sequence[Append], /) -> None:
        """Queues appends; `JournalListener.appended` tells what became of them. Appends of one saga must come in order."""

    @property
    def stalled_for_us(self) -> int:
        """How long the oldest queued append has been failing; 0 while all is well. What admission of new sagas is decided by."""

    @property
    def figures(self) -> JournalFigures:
        """What it has done."""

    async def quarantine(self, saga_id: SagaId, failure: Failure, /) -> None:
        """Sets a saga aside with an incident, outside its own events: it is not loaded at the next start."""

    async def load_awake(self, after: SagaId | None, limit: int, /, *, shard: int = 0) -> Sequence[StoredSaga]:
        """A page of the sagas of a shard that can move by themselves, do not sleep and are not quarantined, with events, ordered by id;
        empty after the last. A saga whose events cannot be decoded is set aside, and left out."""

    async def find_asleep(
        self, since: Instant, until: Instant, after: tuple[Instant, SagaId] | None, limit: int, /, *, shard: int = 0
    ) -> Sequence[tuple[Instant, SagaId]]:
        """Sagas of a shard that sleep until an instant in [since, until), by that and their id, strictly after the cursor."""

    async def load(self, ids: Sequence[SagaId], /) -> Sequence[StoredSaga]:
        """These sagas with their events, as far as they are there and not quarantined; those that cannot be decoded are set aside."""

    async def find_saga(self, saga_id: SagaId, /) -> StoredSaga | None:
        """One saga with its events; None if there is none."""

    async def find_by_key(self, definition_name: str, key: str, now: Instant, /) -> StoredSaga | None:
        """The saga (without events) that holds an unexpired start key; None if nobody does."""

    async def list_sagas(self, where: SagaFilter, before: tuple[Instant, SagaId] | None, limit: int, /) -> Sequence[StoredSaga]:
        """Sagas without events, newest first by (created_at, id), strictly before the cursor."""

    async def list_incidents(
        self, where: IncidentFilter, after: tuple[Instant, SagaId, int] | None, limit: int, /
    ) -> Sequence[StoredIncident]:
        """Incidents, oldest first by (opened_at, saga_id, id), strictly after the cursor."""

    async def keep_secret(self, name: str, offered: bytes, /) -> bytes:
        """The secret of that name that all nodes on this database share: stores the offered one if there is none yet."""

    async def read_events(self, saga_id: SagaId, after: int, limit: int, /) -> Sequence[bytes]:
        """Encoded `saga.v1.Event` messages (R30) after a sequence, in order; empty also for an unknown saga."""

    async def forget(self, ended_before: Instant, now: Instant, limit: int, /) -> Forgotten:
        """Deletes at most `limit` sagas that ended before that, with all that belongs to them, and as many start keys that have expired.
        Sagas that can still move, are set aside, or wait for a person stay. Harmless to repeat."""

    async def put_definition(self, definition: StoredDefinition, /) -> StoredDefinition:
        """Stores a definition unless its key is taken; returns what is stored under the key now."""

    async def find_definition(self, name: str, version: int, /) -> StoredDefinition | None:
        """One definition; version 0 is the highest. None if there is none."""

    async def list_definitions(self, name: str, after: DefinitionKey | None, limit: int, /) -> Sequence[StoredDefinition]:
        """Definitions by name and version, after the cursor; `name` empty: all."""

    async def put_participant(self, participant: StoredParticipant, /) -> None:
        """Stores a registration, or renews the one of the same name and target."""

    async def list_participants(self) -> Sequence[StoredParticipant]:
        """Every registration, expired ones included."""


class JournalUnavailableError(Exception):
    """The database cannot be reached now. Nothing is known to be lost; try again."""


# ── Participants ─────────────────────────────────────────────────────────────────────────────────────────────────────────────────


class Dispatcher(Protocol):
    """Calls participants. Never blocks: calls wait inside, bounded, and each ends in exactly one reply."""

    def send(self, calls: Sequence[CallParticipant], /) -> None:
        """Hands over calls."""

    def withdraw(self, saga_id: SagaId, attempts: Sequence[AttemptKey], /) -> None:
        """Calls that need not be sent any more: those that are not sent yet end NotSent, those under way go on."""

    def abandon_waiting(self) -> int:
        """Sends nothing any more. Calls that still wait are dropped without a reply; returns how many. They stay owed for recovery."""


class Circuit(Enum):
    """How far calls to a participant are let through."""

    CLOSED = auto()
    """Calls go through."""
    OPEN = auto()
    """No call goes through for a while."""
    HALF_OPEN = auto()
    """One call goes through, to see whether the participant is well again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ParticipantStanding:
    """How the calls to one participant are getting on."""

    name: str
    targets: tuple[str, ...]
    """Where it can be called now; empty: nowhere."""
    under_way: int
    waiting: int
    concurrency: int
    rate_per_second: float
    """0: no limit."""
    circuit: Circuit
    open_until: Instant | None
    """When the next call is let through; None unless the circuit is open."""
    last_failure: Failure | None
    """What counted against it last; None if the last call that counted went well."""
    unreadable: str = ""
    """Why a service that is configured cannot be called yet: nobody knows what it takes and returns. Empty: it is none, or it can."""


class CallPlace(Enum):
    """Where a call is that was handed to the dispatcher."""

    NOT_HERE = auto()
    """It was not handed over, or has ended."""
    UNDER_WAY = auto()
    """The participant has it."""
    NO_TARGET = auto()
    """It waits: no place of the participant is known."""
    CIRCUIT_OPEN = auto()
    """It waits: the participant is left alone for a while."""
    NO_PLACE = auto()
    """It waits: as many calls as allowed are under way."""
    RATE = auto()
    """It waits: as many calls per second as allowed are sent."""


class Whereabouts(Protocol):
    """What the dispatcher knows that explains why a call has not ended."""

    def place_of(self, participant: str, saga_id: SagaId, attempt: AttemptKey, /) -> CallPlace:
        """Where a call is now."""

    def standing_of(self, participant: str, /) -> ParticipantStanding:
        """How calls to a participant are getting on, also to one that nobody has heard of."""

    def standings(self) -> Sequence[ParticipantStanding]:
        """Of every participant that is registered, configured, or has been called; by name."""


class ParticipantConflictError(Exception):
    """Another live participant of that name describes one of its actions in another way."""


class ReplyListener(Protocol):
    """Who is told how calls ended."""

    def replied(self, replies: Sequence[tuple[SagaId, Replied]], /) -> None:
        """Replies, in any order. Called in the loop."""


# ── Definitions and observers ────────────────────────────────────────────────────────────────────────────────────────────────────


class Plans(Protocol):
    """Where compiled plans come from."""

    async def plan_of(self, key: DefinitionKey, /) -> SagaPlan:
        """The plan of a registered definition. Raises KeyError if there is none, ValueError if it cannot be compiled any more."""


class Observer(Protocol):
    """Is shown every committed fact, after its commit. Must not raise, block, or change what it is shown."""

    def committed(self, append: Append, plan: SagaPlan, state: SagaState, /) -> None:
        """Events of one saga that are in the journal now. The state may be ahead of them, never behind."""
