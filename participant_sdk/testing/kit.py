"""A whole coordinator in one test: the real one, with its real client and SDK, in virtual time and without sockets."""

import asyncio
import contextlib
from collections.abc import Coroutine, Iterable
from contextlib import AsyncExitStack
from datetime import datetime, timedelta
from types import TracebackType
from typing import Any, Final, Self, Unpack

from google.protobuf.descriptor_pb2 import FileDescriptorSet

from coordinator.codec.completion_tokens import SECRET_NAME
from coordinator.core.values import SagaId
from coordinator.journal.memory_database import SagaRow
from coordinator.settings import Settings
from participant_sdk.builder import Saga
from participant_sdk.client import NotNow, SagaAlreadyEnded, SagaClient, SagaHandle
from participant_sdk.client.starting import StartOptions
from participant_sdk.clock import instant_of
from participant_sdk.ids import saga_id_of
from participant_sdk.payloads import Payload
from participant_sdk.testing.disturbance import Disturbance, DisturbedDisk
from participant_sdk.testing.errors import KitError, SagaStandstillError
from participant_sdk.testing.faults import AWAY_S, CallFault, Fault, Mishap, Refusal
from participant_sdk.testing.in_process import Network
from participant_sdk.testing.ledger import Call
from participant_sdk.testing.plans import Plan, definition_of
from participant_sdk.testing.processes import COORDINATOR_ADDRESS, CoordinatorOptions, SimulatedCoordinator
from participant_sdk.testing.saga_run import SagaRun
from participant_sdk.testing.serving import Part, Process, make_parts, processes_of
from participant_sdk.testing.simulated_clock import BEGINNING_S, SimulatedClock
from participant_sdk.testing.virtual_time import VirtualTimeLoop

PATIENCE: Final = timedelta(days=1)
"""How long the client of a kit goes on trying, in virtual time, while a coordinator is away."""
STORIES_MAX: Final = 5
"""Sagas whose stories a test shows that failed."""
_SECRET: Final = b"a secret that is no secret at all"[:32]
"""What completion tokens of a kit are signed with: equal worlds are to have equal tokens."""


class SagaKit:
    """A coordinator with participants, for one test. Starts when it is first used, or with `async with`; the test's event loop must be
    one in virtual time (the fixture `saga_kit` sees to both).

        kit.serve(Inventory(barrier=MemoryBarrier()), stub(Payments.charge).rejects("CARD_DECLINED"))
        run = await kit.run(place_order, PlaceOrder(sku="widget"))
        run.then_compensated(because="CARD_DECLINED").then_called("reserve", "charge", "undo reserve")

    Time jumps whenever nothing else can happen: backoff, time limits and days of waiting take none.
    """

    def __init__(self, *parts: Part, faults: Iterable[Fault] = (), settings: Settings | None = None) -> None:
        """`parts`: as for `serve`. `faults`: what is to go wrong. `settings`: of the coordinator; its addresses and its database do not
        count.
        """
        self._parts: list[Part] = list(parts)
        self._settings = settings if settings is not None else Settings()
        self._disturbance = Disturbance(faults, crash=self._die, cancel=self._cancel_all)
        self._network = Network(self._disturbance)
        self._stack = AsyncExitStack()
        self._loop: VirtualTimeLoop | None = None
        self._coordinator: SimulatedCoordinator | None = None
        self._processes: list[Process] = []
        self._client: SagaClient | None = None
        self._known: dict[tuple[str, int], FileDescriptorSet] = {}
        self._ring = asyncio.Event()
        self._background: set[asyncio.Task[Any]] = set()
        self._began_s = 0.0
        self._started = 0
        self._stories: dict[str, SagaRun] = {}
        self._disturbance.on_commit(self._ring.set)

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self.close()

    def serve(self, *parts: Part) -> Self:
        """Adds participants, before anything else: `Participant`s, stubs, `Servicer`s, lists of them, or functions that make them.

        Their barriers follow virtual time from then on. Raises KitError if the kit is open.
        """
        if self._loop is not None:
            raise KitError("this kit is open: serve(…) comes before the first run(…) or start(…)")
        self._parts += parts
        return self

    async def open(self) -> None:
        """Serves what it was given, and starts the coordinator. Called by whatever needs it; safe to call twice."""
        if self._loop is not None:
            return
        loop = asyncio.get_running_loop()
        if not isinstance(loop, VirtualTimeLoop):
            raise KitError("a kit needs an event loop in virtual time: use the fixture saga_kit, or run_in_virtual_time(main())")
        self._loop, self._began_s, clock = loop, loop.time(), SimulatedClock(loop)
        self._client = client = SagaClient(channel=self._network.channel(COORDINATOR_ADDRESS), timeout=PATIENCE)
        ones = await make_parts(self._parts, self._stack)
        self._processes = processes_of(ones, observer=self._disturbance, clock=clock, client=client)
        for process in self._processes:
            await process.start(self._network, client)
        addresses = {process.name: process.address for process in self._processes}
        options = CoordinatorOptions(participants=addresses, settings=self._settings, disk=DisturbedDisk(self._disturbance))
        self._coordinator = SimulatedCoordinator(self._network, options)
        self._coordinator.database.content.secrets[SECRET_NAME] = _SECRET
        await self._coordinator.start()

    async def close(self) -> None:
        """Ends everything that it began. Safe to call twice, and when it was never opened."""
        background, self._background = self._background, set()
        for task in background:
            task.cancel()
        await asyncio.gather(*background, return_exceptions=True)
        if self._coordinator is not None:
            await self._coordinator.stop()
        for process in self._processes:
            await process.stop()
        if self._client is not None:
            await self._client.close()
        await self._stack.aclose()

    # ── Sagas ───────────────────────────────────────────────────────────────────────────────────────────────────────────────────

    @property
    def client(self) -> SagaClient:
        """A client of this coordinator, `client.operator` too, for what the kit has no word for. Raises KitError before `open`."""
        if self._client is None:
            raise KitError("this kit is not open yet: await kit.open(), or run a saga first")
        return self._client

    async def register(self, plan: Plan) -> None:
        """Registers a definition, once."""
        await self.open()
        definition = definition_of(plan)
        key = definition.message.name, definition.message.version
        if key not in self._known:
            await self.client.register_definition(definition.message, definition.descriptors)
            self._known[key] = definition.descriptors

    async def start(self, plan: Plan, message: Payload, **options: Unpack[StartOptions]) -> SagaHandle:
        """Registers a saga, if that was not done, and starts it; it goes on while the test awaits something."""
        await self.register(plan)
        options.setdefault("saga_id", self._next_id())
        if isinstance(plan, Saga):
            return await self.client.start(plan, message, **options)
        named: StartOptions = {"version": plan.message.version, **options}
        return await self.client.start(plan.message.name, message, **named)

    async def run(self, plan: Plan, message: Payload, **options: Unpack[StartOptions]) -> SagaRun:
        """Starts a saga and waits until it is at rest: ended, its hook too, or in need of a person."""
        return await self.wait(await self.start(plan, message, **options))

    async def wait(self, saga: SagaHandle | str) -> SagaRun:
        """Waits until a saga is at rest: ended, its hook too, or in need of a person. Time jumps as far as that takes.

        Raises SagaStandstillError if nothing will ever move it, as when it is paused.
        """
        saga_id = saga if isinstance(saga, str) else saga.id
        while not self._is_at_rest(saga_id):
            await self._next_commit(saga_id)
        return await self.look(saga_id)

    async def look(self, saga: SagaHandle | str) -> SagaRun:
        """A saga as it stands now."""
        saga_id = saga if isinstance(saga, str) else saga.id
        found = await self.client.get(saga_id)
        events = [event async for event in self.client.history(saga_id)]
        calls = [call for call in self.calls if call.saga_id == saga_id]
        key = found.definition.name, found.definition.version
        descriptors = self._known.get(key, FileDescriptorSet())
        participants = [each for process in self._processes for each in process.participants]
        run = SagaRun(saga=found, events=events, calls=calls, descriptors=descriptors, now=self.now, participants=participants)
        self._stories[saga_id] = run
        return run

    @property
    def stories(self) -> list[str]:
        """What happened to the sagas that were looked at last, each as it stood then."""
        return [run.story() for run in list(self._stories.values())[-STORIES_MAX:]]

    @property
    def calls(self) -> list[Call]:
        """Everything that arrived at participants so far, in that order."""
        return list(self._disturbance.calls)

    # ── Time ────────────────────────────────────────────────────────────────────────────────────────────────────────────────────

    @property
    def now(self) -> datetime:
        """Virtual time, aware: what coordinator and barriers go by."""
        loop = self._loop if self._loop is not None else asyncio.get_running_loop()
        return instant_of(SimulatedClock(loop)())

    @property
    def elapsed(self) -> timedelta:
        """Virtual time since `open`."""
        return timedelta() if self._loop is None else timedelta(seconds=self._loop.time() - self._began_s)

    async def advance(self, time: timedelta) -> None:
        """Lets so much time pass, with everything that happens in it."""
        await self.open()
        await asyncio.sleep(time.total_seconds())

    def _next_id(self) -> str:
        """Equal tests are to have equal sagas: backoff is jittered by their ids."""
        self._started += 1
        return saga_id_of(BEGINNING_S * 1000 + self._started, self._started)

    # ── What goes wrong ─────────────────────────────────────────────────────────────────────────────────────────────────────────

    def mishap(self, step_id: str, mishap: Mishap, *, attempt: int = 1, undo: bool = False) -> Self:
        """Something shall happen to an attempt of a step, or of what undoes it."""
        self._disturbance.add(CallFault(step_id, undo, attempt, mishap))
        return self

    def refuse(self, step_id: str) -> Self:
        """The participant shall refuse that step, whatever its code would say."""
        self._disturbance.add(Refusal(step_id))
        return self

    async def crash_coordinator(self, *, away: timedelta = timedelta(seconds=AWAY_S)) -> None:
        """The coordinator dies at this instant, and starts again after `away` on what it had committed."""
        assert self._coordinator is not None, "there is no coordinator before open()"
        self._coordinator.crash()
        await self._come_back(away.total_seconds())

    @property
    def faults_left(self) -> tuple[Fault, ...]:
        """What was asked for and has not happened."""
        return self._disturbance.pending

    @property
    def disturbance(self) -> Disturbance:
        """What makes the faults happen, and has seen what could be disturbed."""
        return self._disturbance

    def _die(self) -> None:
        if self._coordinator is not None and self._coordinator.is_running:
            self._coordinator.crash()
            self._spawn(self._come_back(AWAY_S))

    async def _come_back(self, away_s: float) -> None:
        await asyncio.sleep(away_s)
        if self._coordinator is not None and not self._coordinator.is_running:
            await self._coordinator.start()

    def _cancel_all(self) -> None:
        for saga_id in self._rows():
            if not self._is_at_rest(saga_id):
                self._spawn(self._cancel(saga_id))

    async def _cancel(self, saga_id: str) -> None:
        with contextlib.suppress(SagaAlreadyEnded, NotNow):  # too late: an answer like any other
            await self.client.cancel(saga_id, reason="cancelled by the test")

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._background.add(task)
        task.add_done_callback(self._background.discard)

    # ── Waiting ─────────────────────────────────────────────────────────────────────────────────────────────────────────────────

    def _rows(self) -> dict[SagaId, SagaRow]:
        assert self._coordinator is not None, "there is no coordinator before open()"
        return self._coordinator.database.content.sagas

    def _is_at_rest(self, saga_id: str) -> bool:
        row = self._rows().get(SagaId(saga_id))
        # Read from the database: a coordinator that is away, or that has not been told, tells nobody.
        return row is not None and not row.standing.is_unfinished

    async def _next_commit(self, saga_id: str) -> None:
        assert self._loop is not None, "there is no coordinator before open()"
        self._ring.clear()
        ringing = asyncio.ensure_future(self._ring.wait())
        problem: list[SagaStandstillError] = []

        def never(where: str) -> bool:
            problem.append(SagaStandstillError(self._why_never(saga_id, where)))
            ringing.cancel()
            return True

        with self._loop.waiting(never):
            await asyncio.wait((ringing,))
        if problem:
            raise problem[0]

    def _why_never(self, saga_id: str, where: str) -> str:
        row = self._rows().get(SagaId(saga_id))
        if row is None:
            return f"saga {saga_id} is waited for, and was never started here"
        paused = ", and is paused: only a person lets it go on (client.operator.resume)" if row.standing.is_paused else ""
        status = f"{row.standing.status.name}{paused}"
        last = self.calls[-1] if self.calls else "none"
        return (
            f"saga {saga_id} is waited for, and nothing will ever move it: no timer is set, and nothing is under way outside of the loop\n"
            f"  it is {status}\n  last call at a participant: {last}\n{where}"
        )
