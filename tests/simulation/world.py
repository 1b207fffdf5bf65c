"""One simulated world: a coordinator, three participants, clients, persons, and everything that the options let go wrong.

Afterwards the storm ends, everything is started again, and the checkers look at what is left.
"""

import asyncio
import logging
import random
from collections import defaultdict
from collections.abc import Callable, Coroutine, Iterator, Mapping
from contextlib import aclosing, contextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, Final

from google.protobuf.wrappers_pb2 import StringValue

from coordinator.codec.completion_tokens import SECRET_NAME
from coordinator.core.values import MICROS_PER_SECOND, SagaId
from coordinator.journal.memory_database import MemoryDatabase as JournalDatabase
from coordinator.journal.memory_database import SagaRow, ShardRow
from participant_sdk import Participant, Saga, SagaClient, SagaHandle, ids
from participant_sdk.client import CoordinatorError, WaitTimedOut
from participant_sdk.client.starting import StartOptions
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
from participant_sdk.testing.virtual_time import StandstillError, run_in_virtual_time
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
DELAY_S_MAX: Final = 300.0
"""How long after it was started a saga begins at the latest, where that is delayed: long enough to be put to sleep."""
SHARDS: Final = 4
"""That several coordinators share."""
RESTING_MAX: Final = 3
"""So that sagas are put out of memory although there are few of them."""
PATIENCE: Final = timedelta(hours=1)
"""How long clients go on trying."""


class World:
    """Made, run and looked at once."""

    def __init__(self, options: Options, record: Record) -> None:
        self.options = options
        self.chance = Chance(options.seed)
        self.record = record
        self.loop = asyncio.get_running_loop()
        self.weather = StormyWeather(options, self.chance, self.tell, partial(checkers.check_is_justified, self))
        self.network = Network(self.weather)
        addresses = {name: f"{name}:1" for name in PARTICIPANTS}
        self.journal = JournalDatabase(shards={shard: ShardRow() for shard in range(SHARDS if options.nodes > 1 else 1)})
        """What the coordinators have committed."""
        self.journal.secrets[SECRET_NAME] = b"s" * 32
        self.disks = [self._make_disk(number) for number in range(options.nodes)]
        self.nodes = [self._make_node(number, addresses) for number in range(options.nodes)]
        self.network.balance(COORDINATOR_ADDRESS, [_address_of(number) for number in range(options.nodes)])
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
        return self.journal.sagas.get(SagaId(saga_id))

    def why_not_owner(self, name: str, row: SagaRow) -> str:
        """Why the coordinator of that name may not act for a saga now; empty: it may."""
        node = next(each.node for number, each in enumerate(self.nodes) if _name_of(number) == name)
        shard, now = self.journal.shards[row.shard], self.loop.time()
        left_s = shard.lease_until / MICROS_PER_SECOND - now
        if node is None or (shard.owner == node.id and left_s > 0):
            return ""
        return f"shard {row.shard} is leased to {shard.owner or 'nobody'} for {left_s:.3f} s more"

    def shape_of(self, saga_id: str) -> Shape:
        """What the definition of a saga looks like."""
        return self.definitions[self.sagas[saga_id]][1]

    def tell(self, saga_id: str, text: str) -> None:
        """A line for the transcript."""
        self.record.lines.append(Line(self.loop.time(), saga_id, text))

    # ── Its life ────────────────────────────────────────────────────────────────────────────────────────────────────────────────

    async def live(self) -> None:
        """From the beginning to the end of everything."""
        with _unforeseen(self.record):
            await self._begin()
            await self._storm()
            await self._calm()
            await checkers.check(self)
            await self._end()

    async def _begin(self) -> None:
        for name, process in self.participants.items():
            await process.start(serves_exchange=self._serves_exchange(name, 0))
        for node in self.nodes:
            await node.start()
        for number in range(self.options.definitions):
            name = f"plan-{number}"
            saga, shape = make_definition(name, self.chance.stream("definition", number))
            await self.client.register(saga)
            self.definitions[name] = saga, shape

    async def _storm(self) -> None:
        self._set_calm(is_calm=False)
        numbers = self.options.only or range(self.options.sagas)
        for number in numbers:
            self._spawn(self._saga(number))
        for number in range(self.options.coordinator_crashes):
            self._at(("coordinator crash", number), partial(self._coordinator_dies, self._node("crash", number), "at a random instant"))
        for number in range(self.options.suspensions):
            self._at(("suspension", number), partial(self._suspend, self._node("suspension", number), number))
        for number in range(self.options.cut_offs if self.options.nodes > 1 else 0):
            self._at(("cut off", number), partial(self._cut_off, self._node("cut off", number), number))
        for number in range(self.options.participant_crashes):
            self._at(("participant crash", number), partial(self._participant_dies, number))
        for number in range(self.options.drains):
            self._at(("drain", number), partial(self._drain, number))
        for number in range(self.options.partitions):
            self._at(("partition", number), partial(self._part, number))
        await asyncio.sleep(self.options.storm_s)

    async def _calm(self) -> None:
        self._set_calm(is_calm=True)
        self._check_nobody_is_lost()
        self.weather.parted.clear()
        self.tell("", "the storm is over")
        for name in PARTICIPANTS:
            if not self.participants[name].is_running:
                await self._start_participant(name)
        for number, node in enumerate(self.nodes):
            node.resume()
            node.reconnect()
            await self._start_coordinator(number)
        try:
            async with asyncio.timeout(CALM_LIMIT.total_seconds()):
                await asyncio.gather(*self._tasks)
                for saga_id in self.sagas:
                    self.seen_last[saga_id] = await Person(self, saga_id).sees_to_it()
                    if self.record.violations:
                        break  # what waits for ever takes long to wait for
        except (TimeoutError, CoordinatorError) as error:
            self.record.violated("liveness", "-", f"the clients did not come to their end: {type(error).__name__}: {error}")

    def _check_nobody_is_lost(self) -> None:
        """What one coordinator writes never contradicts what another has written: then it would not go on (R27)."""
        for number, node in enumerate(self.nodes):
            if node.is_running and node.running.lost_reason.done():
                self.record.violated("R27", "-", f"{_name_of(number)} is lost: {node.running.lost_reason.result().message}")

    async def _end(self) -> None:
        self._check_nobody_is_lost()
        for promise in self._promises:
            promise.cancel()
        await asyncio.gather(*self._promises, return_exceptions=True)
        for node in self.nodes:
            await node.stop()
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
        options: StartOptions = {"saga_id": saga_id, "key": key}
        if chance.random() < self.options.delayed_starts:
            options["start_at"] = datetime.fromtimestamp(BEGINNING_S + self.loop.time() + chance.random() * DELAY_S_MAX, UTC)
        await self.client.start(saga, value, **options)
        self.record.acknowledged.add(saga_id)
        self.tell(saga_id, f"start of {name} with {text!r} is answered")
        checkers.check_is_stored(self, saga_id)
        if self.chance.share("started again", number) < self.options.repeated_starts:
            other_id = saga_id_of(self.options.seed, self.options.sagas + number)
            again: StartOptions = {**options, "saga_id": other_id}
            self._spawn(self._start_again(saga_id, partial(self.client.start, saga, value, **again)))
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

    def _make_disk(self, number: int) -> StormyDisk:
        die, name = partial(self._coordinator_dies, number), _name_of(number) if self.options.nodes > 1 else ""
        return StormyDisk(self.options, self.chance, die, self.loop.call_later, name=name)

    def _make_node(self, number: int, participants: Mapping[str, str]) -> SimulatedCoordinator:
        options = CoordinatorOptions(
            name=_name_of(number),
            address=_address_of(number),
            participants=participants,
            disk=self.disks[number],
            database=self.journal if self.options.nodes > 1 else None,
            resting_max=RESTING_MAX,
        )
        node = SimulatedCoordinator(self.network, options)
        node.database.content = self.journal
        return node

    def _set_calm(self, *, is_calm: bool) -> None:
        self.weather.is_calm = is_calm
        for disk in self.disks:
            disk.is_calm = is_calm

    def _node(self, what: str, number: int) -> int:
        return int(self.chance.share("node", what, number) * self.options.nodes)

    def _coordinator_dies(self, number: int, when: str) -> None:
        node = self.nodes[number]
        if not node.is_running or self.weather.is_calm:
            return
        self.tell("", f"{_name_of(number)} dies {when}")
        node.crash()
        away_s = self.chance.share("coordinator away", number, node.lives) * self.options.outage_s
        self._spawn(self._come_back(away_s, partial(self._start_coordinator, number)))

    async def _start_coordinator(self, number: int) -> None:
        node = self.nodes[number]
        if not node.is_running:
            fault = self._clock_fault(_name_of(number), node.lives)
            self.tell("", f"{_name_of(number)} starts again, its clock {fault.ahead_s:+.0f} s")
            await node.start(fault)

    def _suspend(self, number: int, which: int) -> None:
        node, absence_s = self.nodes[number], self.chance.share("stopped for", which) * self.options.absence_s
        if node.is_running and not self.weather.is_calm:
            self.tell("", f"{_name_of(number)} is stopped for {absence_s:.1f} s")
            node.suspend()
            self.loop.call_later(absence_s, node.resume)

    def _cut_off(self, number: int, which: int) -> None:
        node, absence_s = self.nodes[number], self.chance.share("cut off for", which) * self.options.absence_s
        if node.is_running and not self.weather.is_calm:
            self.tell("", f"{_name_of(number)} cannot reach the database for {absence_s:.1f} s")
            node.cut_off()
            self.loop.call_later(absence_s, node.reconnect)

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
        life = sum(node.lives for node in self.nodes)
        await process.start(self._clock_fault(name, life), serves_exchange=self._serves_exchange(name, life))
        for participant in process.participants:
            if isinstance(participant, Gamma):
                participant.resume()

    def _serves_exchange(self, name: str, life: int) -> bool:
        return self.chance.share("serves exchange", name, life) < self.options.framed

    def _drain(self, number: int) -> None:
        name = self.chance.stream("drain of", number).choice(PARTICIPANTS)
        if not self.weather.is_calm:
            self.participants[name].drain()

    async def _come_back(self, away_s: float, start: Callable[[], Coroutine[Any, Any, None]]) -> None:
        await asyncio.sleep(away_s)
        await start()

    def _part(self, number: int) -> None:
        chance = self.chance.stream("partition", number)
        node = int(chance.random() * self.options.nodes)
        pair = frozenset(chance.choice([*((_name_of(node), f"{name}:1") for name in PARTICIPANTS), ("client", _address_of(node))]))
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

    record = Record()

    async def live() -> None:
        await World(options, record).live()

    try:
        run_in_virtual_time(live(), patience_s=0.0)
    except StandstillError as error:
        record.violated("liveness", "-", str(error))
    return record


def _name_of(number: int) -> str:
    return f"node-{number}"


def _address_of(number: int) -> str:
    return f"{_name_of(number)}:7700"


def saga_id_of(seed: int, number: int) -> str:
    """Of one saga of a world: made from the seed, of version 7."""
    return ids.saga_id_of(BEGINNING_S * 1000 + number, Chance(seed).stream("saga id", number).getrandbits(76))
