"""Coordinators and participants as processes that can die at any instant and come back, all in one loop."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any, Final, cast

import grpc

from coordinator.bootstrap import Coordinator, OpenedJournal, Surroundings, run_coordinator
from coordinator.codec.definitions import compile_content
from coordinator.engine.held import RESTING_MAX
from coordinator.engine.ports import Clock
from coordinator.journal.membership import Node
from coordinator.journal.memory_database import MemoryDatabase
from coordinator.settings import ParticipantSettings, Settings
from coordinator.telemetry.setup import Telemetry
from participant_sdk.participant import Participant
from participant_sdk.servicer import ParticipantServicer
from participant_sdk.testing.in_process import Network
from participant_sdk.testing.in_process_server import InProcessServer
from participant_sdk.testing.simulated_clock import SimulatedClock
from participant_sdk.testing.simulated_journal import Disk, PromptDisk, SimulatedDatabase, SimulatedJournal
from participant_sdk.testing.suspension import Suspension
from saga.v1 import participant_pb2, participant_pb2_grpc

COORDINATOR_ADDRESS: Final = "coordinator:7700"
_compile_stored: Final = lru_cache(maxsize=64)(compile_content)
"""Coordinators of one process start again very often, with the same definitions."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClockFault:
    """How the clock of a machine is wrong, from one start of its process to the next."""

    ahead_s: float = 0.0
    rate: float = 1.0


RIGHT_CLOCK: Final = ClockFault()


@dataclass(frozen=True, slots=True, kw_only=True)
class CoordinatorOptions:
    """What a simulated coordinator is started with."""

    name: str = "coordinator"
    """As the network knows it."""
    address: str = COORDINATOR_ADDRESS
    participants: Mapping[str, str] = field(default_factory=dict)
    """Address by name."""
    settings: Settings = field(default_factory=Settings)
    """Its address and those of the participants above are set by the simulation; it has no database but the simulated one."""
    disk: Disk = field(default_factory=PromptDisk)
    database: MemoryDatabase | None = None
    """That it shares with others; None: it has one of its own, and is alone."""
    resting_max: int = RESTING_MAX
    """Sagas that it holds although they sleep."""


class SimulatedCoordinator:
    """The real coordinator on a simulated network, a simulated disk and virtual time. Its database outlives it."""

    def __init__(self, network: Network, options: CoordinatorOptions) -> None:
        self._network = network
        self._options = options
        said = {name: ParticipantSettings(target=address) for name, address in options.participants.items()}
        settings = options.settings
        participants = {**settings.participants, **said}
        self._settings = replace(settings, address=options.address, advertise=options.address, participants=participants, retention_days=0)
        kept = MemoryDatabase() if options.database is None else options.database
        self.database: SimulatedDatabase = SimulatedDatabase(kept, options.disk)
        """What stays when it dies."""
        self._suspension = Suspension()
        self.lives: int = 0
        """How often it was started."""
        self._life: _Life | None = None

    @property
    def is_running(self) -> bool:
        """Whether it was started and has neither died nor stopped."""
        return self._life is not None

    @property
    def running(self) -> Coordinator:
        """The coordinator of this life. Raises RuntimeError if it is not running."""
        if self._life is None or self._life.coordinator is None:
            raise RuntimeError("the coordinator is not running")
        return self._life.coordinator

    async def start(self, clock: ClockFault = RIGHT_CLOCK) -> None:
        """Takes up what it left, and listens."""
        assert self._life is None, "it is running already"
        self.lives += 1
        self._suspension = Suspension()
        self._network.suspend_with(self._options.name, self._suspension)
        life = self._life = _Life(self._network, self._options, self.database, clock, self._suspension, self.node)
        await life.start(self._settings)

    @property
    def node(self) -> Node | None:
        """As which it shares its database in this life; None: it does not."""
        if self._options.database is None:
            return None
        return Node(id=f"{self._options.name}/{self.lives}", address=self._options.address, host=self._options.name, pid=self.lives)

    def suspend(self) -> None:
        """It is stopped at this instant, as by SIGSTOP. Whatever it would do waits."""
        self._suspension.stop()

    def resume(self) -> None:
        """It goes on, as by SIGCONT. Harmless if it was not stopped."""
        self._suspension.go_on()

    def cut_off(self) -> None:
        """Nothing gets through between it and its database from now on."""
        if self._life is not None:
            self._life.way_to_database.stop()

    def reconnect(self) -> None:
        """Its database can be reached again. Harmless if it could be."""
        if self._life is not None:
            self._life.way_to_database.go_on()

    def crash(self) -> None:
        """It dies at this instant. What was not committed never will be; nobody is told anything any more."""
        life, self._life = self._life, None
        if life is not None:
            life.crash()
            self._suspension.go_on()  # what has waited finds nobody

    async def stop(self) -> None:
        """Ends as after SIGTERM: drains, then closes. Safe to call when it is not running."""
        life, self._life = self._life, None
        if life is not None:
            await life.stop()


class _Life:
    """From one start to the next end."""

    def __init__(
        self,
        network: Network,
        options: CoordinatorOptions,
        database: SimulatedDatabase,
        clock: ClockFault,
        suspension: Suspension,
        node: Node | None,
    ) -> None:
        self.coordinator: Coordinator | None = None
        self._network = network
        self._options = options
        self._database = database
        self._clock = clock
        self._suspension = suspension
        self._node = node
        self._journal: SimulatedJournal | None = None
        self._server: InProcessServer | None = None
        self._end = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    @property
    def way_to_database(self) -> Suspension:
        """Stopped: it cannot be reached."""
        return Suspension() if self._journal is None else self._journal.way

    async def start(self, settings: Settings) -> None:
        ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._task = asyncio.create_task(self._run(settings, ready))
        await asyncio.wait((self._task, ready), return_when=asyncio.FIRST_COMPLETED)
        if not ready.done() and not self._task.cancelled() and (error := self._task.exception()) is not None:
            raise error

    async def _run(self, settings: Settings, ready: "asyncio.Future[None]") -> None:
        surroundings = Surroundings(
            make_clock=lambda loop: SimulatedClock(loop, ahead_s=self._clock.ahead_s, rate=self._clock.rate, suspension=self._suspension),
            open_journal=self._open_journal,
            open_channel=lambda target: self._network.channel(target, source=self._options.name),
            make_server=self._make_server,
            compile_stored=_compile_stored,
            resting_max=self._options.resting_max,
        )
        async with run_coordinator(settings, Telemetry(None), surroundings=surroundings) as self.coordinator:
            ready.set_result(None)
            await self._end.wait()

    def crash(self) -> None:
        if self._server is not None:
            self._server.crash()
        if self._journal is not None:
            self._journal.die()
        if self.coordinator is None and self._task is not None:
            self._task.cancel()
        self._end.set()

    async def stop(self) -> None:
        self._end.set()
        if self._task is not None:
            await self._task

    def _make_server(self) -> "grpc.aio.Server":
        self._server = self._network.server(self._suspension)
        # The generated code and the API ask for no more than is here.
        return cast("grpc.aio.Server", self._server)

    @contextlib.asynccontextmanager
    async def _open_journal(self, _: str, clock: Clock) -> AsyncIterator[OpenedJournal]:
        self._journal = SimulatedJournal(self._database, clock, self._suspension, self._node)
        await self._journal.start()
        try:
            yield cast("OpenedJournal", self._journal)
        finally:
            await self._journal.aclose()


class SimulatedParticipants:
    """The process that serves one or several participants, with the real servicer. Databases outlive it, if `make` lets them."""

    def __init__(self, network: Network, address: str, make: Callable[[SimulatedClock], Sequence[Participant]]) -> None:
        """`make`: called at each start. A barrier that it makes must take the clock that it is given."""
        self._network = network
        self.address: Final = address
        self._make = make
        self._server: InProcessServer | None = None
        self._servicer: ParticipantServicer | None = None
        self.participants: Sequence[Participant] = ()
        """Those of this life."""

    @property
    def is_running(self) -> bool:
        """Whether it was started and has not ended."""
        return self._server is not None

    async def start(self, clock: ClockFault = RIGHT_CLOCK, *, serves_exchange: bool = True) -> None:
        """Serves. `serves_exchange`: if not, it is a release that can only be called one by one, and says so."""
        assert self._server is None, "it is running already"
        own_clock = SimulatedClock(asyncio.get_running_loop(), ahead_s=clock.ahead_s, rate=clock.rate)
        self.participants = self._make(own_clock)
        self._servicer = (ParticipantServicer if serves_exchange else _OneByOneServicer)(*self.participants, clock=own_clock)
        self._server = self._network.server()
        participant_pb2_grpc.add_ParticipantServiceServicer_to_server(self._servicer, cast("grpc.aio.Server", self._server))
        self._server.add_insecure_port(self.address)
        await self._server.start()

    def drain(self) -> None:
        """It asks for no more calls on the streams that it has now, as before a stop. Harmless if it is not running."""
        if self._servicer is not None:
            self._servicer.drain()

    def crash(self) -> None:
        """It dies at this instant, with every call that it has. Whoever made its barriers must crash their stores too."""
        server, self._server = self._server, None
        if server is not None and self._servicer is not None:
            server.crash()
            self._servicer.close()

    async def stop(self) -> None:
        """Ends as after SIGTERM."""
        server, self._server = self._server, None
        if server is not None and self._servicer is not None:
            self._servicer.drain()
            await server.stop(10.0)
            self._servicer.close()


class _OneByOneServicer(ParticipantServicer):
    """As of a release that knows no Exchange."""

    async def Describe(self, request: participant_pb2.DescribeRequest, context: Any) -> participant_pb2.DescribeResponse:  # noqa: N802
        response = await super().Describe(request, context)
        response.description.exchange = False
        return response

    async def Exchange(self, request_iterator: object, context: Any) -> None:  # type: ignore[override] # noqa: N802 - ends at once
        await context.abort(grpc.StatusCode.UNIMPLEMENTED, "calls one by one, please")
