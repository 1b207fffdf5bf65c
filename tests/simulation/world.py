"""One simulated world: a coordinator, three participants, clients, persons, and everything that the options let go wrong.

Afterwards the storm ends, everything is started again, and the checkers look at what is left.
"""

import asyncio
import logging
import random
from collections import defaultdict
from collections.abc import Callable, Coroutine, Iterator
from contextlib import aclosing, contextmanager
from datetime import timedelta
from functools import partial
from typing import Any, Final

from google.protobuf.wrappers_pb2 import StringValue

from coordinator.codec.completion_tokens import SECRET_NAME
from coordinator.core.values import SagaId
from coordinator.journal.memory_database import SagaRow
from participant_sdk import Participant, Saga, SagaClient, SagaHandle, ids
from participant_sdk.client import CoordinatorError, WaitTimedOut
from participant_sdk.testing.in_process import Network
from participant_sdk.testing.memory_barrier import MemoryBarrier, MemoryDatabase
from participant_sdk.testing.processes import (
    COORDINATOR_ADDRESS,
    ClockFault,
    CoordinatorOptions,
    SimulatedCoordinator,
    SimulatedParticipants,
)
from participant_sdk.testing.simulated_clock import BEGINNING_S, SimulatedClock
from participant_sdk.testing.virtual_time import run_in_virtual_time
from saga.v1 import saga_pb2
from tests.simulation import checkers
from tests.simulation.chance import Chance
from tests.simulation.journal_of_world import Line, Record
from tests.simulation.options import Options
from tests.simulation.participants import Alpha, Beta, Gamma, SharedWorld
from tests.simulation.persons import Person
from tests.simulation.plans import PARTICIPANTS, WORDS, Shape, make_definition
from tests.simulation.weather import StormyDisk, StormyWeather

CALM_LIMIT: Final = timedelta(hours=60)
"""How long all of them together may take once nothing goes wrong any more: longer than an undo is tried for."""
LOOKS_S_MAX: Final = 3.0
"""How long after its start a saga is looked at, at most: while it moves."""
PATIENCE: Final = timedelta(hours=1)
"""How long clients go on trying."""


class World:
    """Made, run and looked at once."""

    def __init__(self, options: Options) -> None:
        self.options = options
        self.chance = Chance(options.seed)
        self.record = Record()
        self.loop = asyncio.get_running_loop()
        self.weather = StormyWeather(options, self.chance, self.tell, partial(checkers.check_is_justified, self))
        self.network = Network(self.weather)
        self.disk = StormyDisk(options, self.chance, self._coordinator_dies, self.loop.call_later)
        addresses = {name: f"{name}:1" for name in PARTICIPANTS}
        self.coordinator = SimulatedCoordinator(self.network, CoordinatorOptions(participants=addresses, disk=self.disk))
        self.coordinator.database.content.secrets[SECRET_NAME] = b"s" * 32
        self.client = SagaClient(channel=self.network.channel(COORDINATOR_ADDRESS), timeout=PATIENCE)
        self.shared = SharedWorld(options, self.chance, self.record, self.loop.time, self._spawn_promise, self.client)
        self.databases = {name: MemoryDatabase() for name in PARTICIPANTS}
        self.barriers: dict[str, MemoryBarrier] = {}
        self.participants = {name: SimulatedParticipants(self.network, addresses[name], partial(self._make, name)) for name in PARTICIPANTS}
        self.definitions: dict[str, tuple[Saga[StringValue], Shape]] = {}
        self.sagas: dict[str, str] = {}
        """Name of the definition by saga id, of every start that was tried."""
        self.committed: dict[str, checkers.Committed] = defaultdict(checkers.Committed)
        self.seen_last: dict[str, saga_pb2.Saga] = {}
        """As the API told of them when all was over."""
        self._tasks: list[asyncio.Task[None]] = []
        self._promises: dict[asyncio.Task[None], None] = {}

    def row_of(self, saga_id: str) -> SagaRow | None:
        """What is committed of a saga."""
        return self.coordinator.database.content.sagas.get(SagaId(saga_id))

    def shape_of(self, saga_id: str) -> Shape:
        """What the definition of a saga looks like."""
        return self.definitions[self.sagas[saga_id]][1]

    def tell(self, saga_id: str, text: str) -> None:
        """A line for the transcript."""
        self.record.lines.append(Line(self.loop.time(), saga_id, text))

    # ── Its life ────────────────────────────────────────────────────────────────────────────────────────────────────────────────

    async def live(self) -> Record:
        """From the beginning to the end of everything."""
        with _unforeseen(self.record):
            await self._begin()
            await self._storm()
            await self._calm()
            await checkers.check(self)
            await self._end()
        return self.record

    async def _begin(self) -> None:
        for process in self.participants.values():
            await process.start()
        await self.coordinator.start()
        for number in range(self.options.definitions):
            name = f"plan-{number}"
            saga, shape = make_definition(name, self.chance.stream("definition", number))
            await self.client.register(saga)
            self.definitions[name] = saga, shape

    async def _storm(self) -> None:
        self.weather.is_calm = self.disk.is_calm = False
        numbers = self.options.only or range(self.options.sagas)
        for number in numbers:
            self._spawn(self._saga(number))
        for number in range(self.options.coordinator_crashes):
            self._at(("coordinator crash", number), lambda: self._coordinator_dies("at a random instant"))
        for number in range(self.options.participant_crashes):
            self._at(("participant crash", number), partial(self._participant_dies, number))
        for number in range(self.options.partitions):
            self._at(("partition", number), partial(self._part, number))
        await asyncio.sleep(self.options.storm_s)

    async def _calm(self) -> None:
        self.weather.is_calm = self.disk.is_calm = True
        self.weather.parted.clear()
        self.tell("", "the storm is over")
        for name in PARTICIPANTS:
            if not self.participants[name].is_running:
                await self._start_participant(name)
        if not self.coordinator.is_running:
            await self._start_coordinator()
        try:
            async with asyncio.timeout(CALM_LIMIT.total_seconds()):
                await asyncio.gather(*self._tasks)
                for saga_id in self.sagas:
                    self.seen_last[saga_id] = await Person(self, saga_id).sees_to_it()
                    if self.record.violations:
                        break  # what waits for ever takes long to wait for
        except (TimeoutError, CoordinatorError) as error:
            self.record.violated("liveness", "-", f"the clients did not come to their end: {type(error).__name__}: {error}")

    async def _end(self) -> None:
        for promise in self._promises:
            promise.cancel()
        await asyncio.gather(*self._promises, return_exceptions=True)
        await self.coordinator.stop()
        for process in self.participants.values():
            await process.stop()
        await self.client.close()

    # ── Sagas ───────────────────────────────────────────────────────────────────────────────────────────────────────────────────

    async def _saga(self, number: int) -> None:
        chance = self.chance.stream("saga", number)
        await asyncio.sleep(chance.random() * self.options.storm_s * 0.8)
        name = chance.choice(sorted(self.definitions))
        saga_id = saga_id_of(self.options.seed, number)
        self.sagas[saga_id] = name
        text = " ".join(chance.sample(WORDS, chance.randrange(3)))
        saga, value, key = self.definitions[name][0], StringValue(value=text), f"number {number}"
        await self.client.start(saga, value, saga_id=saga_id, key=key)
        self.record.acknowledged.add(saga_id)
        self.tell(saga_id, f"start of {name} with {text!r} is answered")
        checkers.check_is_stored(self, saga_id)
        if self.chance.share("started again", number) < self.options.repeated_starts:
            other_id = saga_id_of(self.options.seed, self.options.sagas + number)
            self._spawn(self._start_again(saga_id, partial(self.client.start, saga, value, saga_id=other_id, key=key)))
        if chance.random() < 0.3:
            self._spawn(self._watch(saga_id))
        if chance.random() < 0.5:
            self._spawn(self._look(saga_id, chance.random()))
        if chance.random() < self.options.verbs:
            await Person(self, saga_id).meddles(chance)

    async def _start_again(self, saga_id: str, start: Callable[[], Coroutine[Any, Any, SagaHandle]]) -> None:
        """Somebody who knows nothing but the key starts it once more, and is told of the saga that is there (R4)."""
        await asyncio.sleep(self.chance.share("started again after", saga_id) * LOOKS_S_MAX)
        again = await start()
        if again.id != saga_id or again.is_new:
            self.record.violated("one start", saga_id, f"a start with its key made saga {again.id}")

    async def _look(self, saga_id: str, share: float) -> None:
        """Asks at some moment how it stands."""
        await asyncio.sleep(share * LOOKS_S_MAX)
        checkers.check_is_announced(self, await self.client.get(saga_id))

    async def _watch(self, saga_id: str) -> None:
        """Reads along, and leaves no gap (R33)."""
        expected = 1
        try:
            async with aclosing(self.client.watch(saga_id, timeout=timedelta(seconds=self.options.storm_s * 2))) as events:
                async for response in events:
                    if response.event.sequence != expected:
                        self.record.violated("watch", saga_id, f"expected event {expected}, found {response.event.sequence}")
                        return
                    checkers.check_is_committed(self, saga_id, response.event)
                    expected += 1
        except WaitTimedOut:
            return

    # ── Processes ───────────────────────────────────────────────────────────────────────────────────────────────────────────────

    def _make(self, name: str, clock: SimulatedClock) -> list[Participant]:
        barrier = self.barriers[name] = MemoryBarrier(self.databases[name], clock=clock)
        kinds: dict[str, type[Alpha | Beta | Gamma]] = {"alpha": Alpha, "beta": Beta, "gamma": Gamma}
        return [kinds[name](self.shared, barrier=barrier)]

    def _clock_fault(self, name: str, life: int) -> ClockFault:
        chance = self.chance.stream("clock", name, life)
        error_s, drift = self.options.clock_error_s, self.options.clock_drift
        return ClockFault(ahead_s=chance.uniform(-error_s, error_s), rate=1 + chance.uniform(-drift, drift))

    def _coordinator_dies(self, when: str) -> None:
        if not self.coordinator.is_running or self.disk.is_calm:
            return
        self.tell("", f"the coordinator dies {when}")
        self.coordinator.crash()
        away_s = self.chance.share("coordinator away", self.coordinator.lives) * self.options.outage_s
        self._spawn(self._come_back(away_s, self._start_coordinator))

    async def _start_coordinator(self) -> None:
        if not self.coordinator.is_running:
            fault = self._clock_fault("coordinator", self.coordinator.lives)
            self.tell("", f"the coordinator starts again, its clock {fault.ahead_s:+.0f} s")
            await self.coordinator.start(fault)

    def _participant_dies(self, number: int) -> None:
        chance = self.chance.stream("participant dies", number)
        name = chance.choice(PARTICIPANTS)
        if self.weather.is_calm or not self.participants[name].is_running:
            return
        self.tell("", f"{name} dies")
        self.barriers[name].store.crash()
        self.participants[name].crash()
        if name == "gamma":
            for promise in self._promises:
                promise.cancel()
        self._spawn(self._come_back(chance.random() * self.options.outage_s, lambda: self._start_participant(name)))

    async def _start_participant(self, name: str) -> None:
        process = self.participants[name]
        if process.is_running:
            return
        self.tell("", f"{name} starts again")
        await process.start(self._clock_fault(name, self.coordinator.lives))
        for participant in process.participants:
            if isinstance(participant, Gamma):
                participant.resume()

    async def _come_back(self, away_s: float, start: Callable[[], Coroutine[Any, Any, None]]) -> None:
        await asyncio.sleep(away_s)
        await start()

    def _part(self, number: int) -> None:
        chance = self.chance.stream("partition", number)
        pair = frozenset(chance.choice([*(("coordinator", f"{name}:1") for name in PARTICIPANTS), ("client", COORDINATOR_ADDRESS)]))
        if self.weather.is_calm:
            return
        self.tell("", f"nothing gets through between {' and '.join(sorted(pair))}")
        self.weather.parted.add(pair)
        self.loop.call_later(chance.random() * self.options.outage_s, self.weather.parted.discard, pair)

    def _at(self, name: tuple[object, ...], callback: Callable[[], None]) -> None:
        self.loop.call_later(self.chance.share(*name) * self.options.storm_s, callback)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = self.loop.create_task(work)
        self._tasks.append(task)

    def _spawn_promise(self, work: Coroutine[Any, Any, None]) -> None:
        task = self.loop.create_task(work)
        self._promises[task] = None
        task.add_done_callback(lambda done: self._promises.pop(done, None))


@contextmanager
def _unforeseen(record: Record) -> Iterator[None]:
    """Whatever the product itself logs as an error that nobody foresaw breaks a promise."""

    class Listener(logging.Handler):
        def emit(self, line: logging.LogRecord) -> None:
            if line.exc_info is not None:
                record.violated("unforeseen", getattr(line, "saga.id", "-"), f"{line.getMessage()}: {line.exc_info[1]!r}")

    listener, silence = Listener(logging.ERROR), logging.NullHandler()
    heard, unheard = logging.getLogger("coordinator"), logging.getLogger("participant_sdk")
    heard.addHandler(listener)
    unheard.addHandler(silence)  # its handlers stumble on purpose
    heard.propagate = unheard.propagate = False
    try:
        yield
    finally:
        heard.removeHandler(listener)
        unheard.removeHandler(silence)
        heard.propagate = unheard.propagate = True


def run(options: Options) -> Record:
    """Lives through one world."""
    random.seed(options.seed)  # what clients wait between two tries

    async def live() -> Record:
        return await World(options).live()

    return run_in_virtual_time(live(), patience_s=0.0)


def saga_id_of(seed: int, number: int) -> str:
    """Of one saga of a world: made from the seed, of version 7."""
    return ids.saga_id_of(BEGINNING_S * 1000 + number, Chance(seed).stream("saga id", number).getrandbits(76))
