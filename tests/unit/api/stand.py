"""The API over a real engine, the memory journal, and definitions that were really compiled; a test says how calls end."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from google.protobuf.any_pb2 import Any
from google.protobuf.descriptor_pb2 import FileDescriptorSet
from google.protobuf.wrappers_pb2 import StringValue

from coordinator.api.bulk import BulkActions
from coordinator.api.completions import Completions
from coordinator.api.explaining import Explanations
from coordinator.api.forwarding import Forwarding
from coordinator.api.saga_commands import SagaCommands
from coordinator.api.views import SagaView, SagaViews
from coordinator.api.waits import OpenWaits
from coordinator.catalog import DefinitionCatalog
from coordinator.codec.completion_tokens import CompletionTokens
from coordinator.codec.definitions import compile_definition
from coordinator.core.inputs import Accepted, Command, Rejected, Start, Succeeded
from coordinator.core.values import AttemptKey, Code, Direction, Failure, Instant, Payload, SagaId, SagaStatus, StepId
from coordinator.dispatcher.channels import open_channel
from coordinator.engine.commands import CommandAccepted, StartAnswer, StartCommand, Started
from coordinator.engine.engine import Engine
from coordinator.engine.ports import CallPlace, Circuit, ParticipantStanding
from coordinator.engine.shards import ONE_SHARD
from coordinator.journal.memory_journal import MemoryDatabase, MemoryJournal
from saga.v1 import saga_pb2
from tests.builders import SAGA, TRACE, seconds
from tests.fakes import RecordingDispatcher, VirtualClock, one_turn

STRING = "google.protobuf.StringValue"
PAYLOAD_BYTES_MAX = 1_024
COMPENSATABLE, PIVOT, RETRIABLE = saga_pb2.STEP_KIND_COMPENSATABLE, saga_pb2.STEP_KIND_PIVOT, saga_pb2.STEP_KIND_RETRIABLE


def packed(value: str) -> Any:
    """A text as a payload."""
    message = Any()
    message.Pack(StringValue(value=value))
    return message


def text(value: str) -> Payload:
    """The same, as the core sees it."""
    return Payload(STRING, StringValue(value=value).SerializeToString())


def done(value: str = "done") -> Succeeded:
    """It took effect."""
    return Succeeded(output=text(value))


def refused_by_participant(message: str = "no van") -> Rejected:
    """It had no effect, and never will."""
    return Rejected(failure=Failure(Code.FAILED_PRECONDITION, message), sealed=True)


def accepted(for_s: float = 60) -> Accepted:
    """It is finished later."""
    return Accepted(time_limit_us=seconds(for_s))


def trip() -> saga_pb2.SagaDefinition:
    """Something that can be undone, then the pivot, then something that must succeed, and a hook."""
    steps = [
        saga_pb2.StepDefinition(id=name, action=f"{name}.do", kind=kind, input_type=STRING, output_type=STRING)
        for name, kind in (("reserve", COMPENSATABLE), ("charge", PIVOT), ("ship", RETRIABLE))
    ]
    return saga_pb2.SagaDefinition(name="trip", version=1, input_type=STRING, steps=steps, output="ship", output_type=STRING)


class FakeWhereabouts:
    """Says of every call what a test says."""

    def __init__(self) -> None:
        self.place = CallPlace.UNDER_WAY
        self.circuit = Circuit.CLOSED
        self.open_until: Instant | None = None
        self.last_failure: Failure | None = None
        self.names: tuple[str, ...] = ("ship", "charge")

    def place_of(self, participant: str, saga_id: SagaId, attempt: AttemptKey, /) -> CallPlace:
        return self.place

    def standing_of(self, participant: str, /) -> ParticipantStanding:
        return ParticipantStanding(
            name=participant,
            targets=(f"127.0.0.1:{len(participant)}",),
            under_way=8,
            waiting=3,
            concurrency=8,
            rate_per_second=2.5,
            circuit=self.circuit,
            open_until=self.open_until,
            last_failure=self.last_failure,
        )

    def standings(self) -> Sequence[ParticipantStanding]:
        return [self.standing_of(name) for name in self.names]


class Stand:
    """Everything behind the services."""

    def __init__(self, journal: MemoryJournal, clock: VirtualClock) -> None:
        self.clock = clock
        self.journal = journal
        self.dispatcher = RecordingDispatcher()
        self.engine = Engine(clock=clock, journal=journal, dispatcher=self.dispatcher)
        self.dispatcher.listener = self.engine
        journal.listen(self.engine)
        self.catalog = DefinitionCatalog(clock=clock, journal=journal)
        self.waits = OpenWaits()
        self.whereabouts = FakeWhereabouts()
        self.tokens = CompletionTokens(b"s" * 32)
        self.views = SagaViews(clock, journal, self.catalog, self.engine)
        self.commands = SagaCommands(self.engine, self.views, self.waits)
        self.completions = Completions(tokens=self.tokens, views=self.views, commands=self.commands, payload_bytes_max=PAYLOAD_BYTES_MAX)
        self.explanations = Explanations(clock, self.views, self.whereabouts)
        self.forwarding = Forwarding(engine=self.engine, shards=ONE_SHARD, tokens=self.tokens, open_channel=open_channel)
        self.bulk = BulkActions(engine=self.engine, journal=journal, views=self.views, commands=self.commands, forwarding=self.forwarding)

    async def register(self, definition: saga_pb2.SagaDefinition) -> None:
        """Registers a definition."""
        await self.catalog.register(compile_definition(definition, FileDescriptorSet()))

    async def start(self, name: str = "trip", saga_id: SagaId = SAGA, labels: tuple[tuple[str, str], ...] = ()) -> StartAnswer:
        """Starts a saga, and waits until that is committed."""
        compiled = await self.catalog.find(name, 0)
        assert compiled is not None
        answered: asyncio.Future[StartAnswer] = asyncio.get_running_loop().create_future()
        start = Start(input=text("order-42"), labels=labels, trace=TRACE)
        command = StartCommand(saga_id=saga_id, plan=compiled.plan, start=start, fingerprint=b"f" * 32, key=None)
        self.engine.start(command, answered.set_result)
        answer = await answered
        assert isinstance(answer, Started)
        await one_turn()
        return answer

    async def end(self, step_id: str, outcome: Succeeded | Rejected | Accepted, saga_id: SagaId = SAGA) -> None:
        """A call ends, and what follows is committed."""
        await self.dispatcher.end(step_id, outcome, saga_id)
        await one_turn()

    async def fail(self, saga_id: SagaId = SAGA) -> None:
        """A trip runs until its last step is rejected past the point of no return."""
        await self.start(saga_id=saga_id)
        await self.end("reserve", done(), saga_id)
        await self.end("charge", done(), saga_id)
        await self.end("ship", refused_by_participant(), saga_id)

    async def status(self, saga_id: SagaId = SAGA) -> SagaStatus:
        """The status that the journal has."""
        stored = await self.journal.find_saga(saga_id)
        assert stored is not None
        return stored.status

    async def view(self, saga_id: SagaId = SAGA) -> SagaView:
        """The saga as the journal has it."""
        return await self.views.rebuild(await self.views.require(saga_id))

    async def give(self, command: Command, saga_id: SagaId = SAGA) -> int:
        """Gives a command; returns how many events it wrote."""
        return await self.commands.give(saga_id, command, _count)

    def token(self, step_id: str, round_: int = 1, saga_id: SagaId = SAGA) -> str:
        """The token that goes out with a call."""
        return self.tokens.make(saga_id, AttemptKey(StepId(step_id), Direction.EXECUTE, round_, 1))


@asynccontextmanager
async def opened(database: MemoryDatabase | None = None, journal_class: type[MemoryJournal] = MemoryJournal) -> AsyncIterator[Stand]:
    """A stand on a database, which may hold what an earlier one left."""
    clock = VirtualClock()
    async with journal_class(clock=clock, database=database) as journal:
        stand = Stand(journal, clock)
        await stand.register(trip())
        yield stand


def _count(given: CommandAccepted) -> int:
    return len(given.events)
