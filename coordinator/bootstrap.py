"""Wires the coordinator together: the only module that knows every adapter."""

import asyncio
import contextlib
import gc
import logging
import signal
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Final, Protocol

import grpc

from coordinator.api import ApiServer
from coordinator.api.parts import ServiceParts
from coordinator.api.server import AddressInUseError, make_server
from coordinator.catalog import Compile, DefinitionCatalog
from coordinator.codec.completion_tokens import SECRET_NAME, CompletionTokens, new_secret
from coordinator.codec.definitions import compile_content
from coordinator.codec.services import ServicePlan
from coordinator.core.values import MICROS_PER_SECOND, Failure
from coordinator.dispatcher import GrpcDispatcher, ParticipantDirectory, ParticipantRegistry
from coordinator.dispatcher.channels import Channels, OpenChannel, open_channel
from coordinator.dispatcher.services import Services
from coordinator.engine.clock import SystemClock
from coordinator.engine.engine import Engine
from coordinator.engine.held import RESTING_MAX
from coordinator.engine.hints import Hints, Signals
from coordinator.engine.ports import Clock, Journal, JournalListener, JournalUnavailableError
from coordinator.engine.recovery import Takeover
from coordinator.engine.retention import Retention
from coordinator.engine.reviver import Reviver
from coordinator.engine.shards import Shards
from coordinator.engine.sleepers import Sleepers
from coordinator.journal import JournalOpenError, SqlJournal
from coordinator.measured import measures_of
from coordinator.service_files import compile_services
from coordinator.settings import Settings, SettingsError
from coordinator.telemetry.logs import configure_logging
from coordinator.telemetry.setup import Telemetry, configure_telemetry, sample_ratio_from_environment

EXIT_STOPPED: Final = 0
EXIT_LOST: Final = 1
"""The database or its ownership is gone: nothing may be committed any more."""
EXIT_CANNOT_START: Final = 2

MICROS_PER_DAY: Final = 86_400 * MICROS_PER_SECOND
GARBAGE_THRESHOLDS: Final = (20_000, 20, 100)
"""Python's own (700, 10, 10) walk all sagas in memory every few thousand of them: 8 % of the processor time at 256 in flight."""
FOLLOW_EVERY_S: Final = 1.0
"""How often it is looked up what other nodes were told."""

_logger = logging.getLogger(__name__)


class OpenedJournal(Journal, Protocol):
    """A journal whose listener can still be named: the engine is made after it."""

    @property
    def shards(self) -> Shards:
        """What this process holds of it."""

    @property
    def signals(self) -> Signals:
        """What it hears of others that share it."""

    def listen(self, listener: JournalListener, /) -> None:
        """Says who is told what becomes of appends. To be called once, before anything is appended."""


OpenJournal = Callable[[str, Clock], AbstractAsyncContextManager[OpenedJournal]]
"""Opens the journal behind an SQLAlchemy URL, for as long as the context lasts."""


@contextlib.asynccontextmanager
async def open_sql_journal(url: str, clock: Clock) -> AsyncIterator[OpenedJournal]:
    """The journal that is used unless another one is given. Raises JournalOpenError."""
    async with await SqlJournal.open(url, clock=clock) as journal:
        yield journal


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """What a coordinator stands on. Tests and simulations bring their own."""

    make_clock: Callable[[asyncio.AbstractEventLoop], Clock] = SystemClock
    """Where time comes from."""
    open_journal: OpenJournal = open_sql_journal
    """Where it keeps what it knows."""
    open_channel: OpenChannel = open_channel
    """How it reaches participants."""
    make_server: Callable[[], grpc.aio.Server] = make_server
    """Where it listens."""
    resting_max: int = RESTING_MAX
    """How many sagas are held although they sleep."""
    compile_stored: Compile = compile_content
    """How it takes up definitions. The same content gives the same, so whoever starts many coordinators may remember it."""


REAL_SURROUNDINGS: Final = Surroundings()


class Coordinator:
    """A running coordinator. Made by `run_coordinator`; everything in it lives as long as that context."""

    def __init__(self, *, engine: Engine, dispatcher: GrpcDispatcher, server: ApiServer, settings: Settings) -> None:
        self.engine = engine
        self._dispatcher = dispatcher
        self._server = server
        self._settings = settings

    @property
    def address(self) -> str:
        """Where the API listens."""
        return self._server.address

    @property
    def lost_reason(self) -> "asyncio.Future[Failure]":
        """Done when this process may not go on."""
        return self.engine.lost_reason

    async def drain(self) -> None:
        """Begins nothing new, lets calls under way finish within the time limit, and refuses requests. What is left is for recovery."""
        await self._server.announce_closing()
        try:
            async with asyncio.timeout(self._settings.drain_time_limit_s):
                await self.engine.drain()
        except TimeoutError:
            _logger.warning("calls are still under way after the drain time limit; they are left to recovery")
        await self._server.stop()
        await self._dispatcher.aclose()


class _Wiring:
    """Every part of one coordinator, put together. Nothing of it runs yet."""

    def __init__(
        self,
        settings: Settings,
        telemetry: Telemetry,
        surroundings: Surroundings,
        clock: Clock,
        journal: OpenedJournal,
        tokens: CompletionTokens,
        plans: Mapping[str, ServicePlan],
    ) -> None:
        self.shards = shards = journal.shards
        channels, configured = Channels(surroundings.open_channel, shards.is_current), settings.services
        self.registry = registry = ParticipantRegistry(
            clock=clock, journal=journal, configured=settings.participant_targets, services=configured
        )
        self.services = services = Services(registry=registry, channels=channels, payload_bytes_max=settings.payload_bytes_max)
        services.add_all(configured, plans)
        self.dispatcher = dispatcher = GrpcDispatcher(
            clock=clock,
            registry=registry,
            tokens=tokens,
            limits_of=settings.limits_of,
            payload_bytes_max=settings.payload_bytes_max,
            channels=channels,
            services=services,
            may_send=shards.is_current,
        )
        self.engine = engine = Engine(
            clock=clock,
            journal=journal,
            dispatcher=dispatcher,
            observers=telemetry.observers,
            shards=shards,
            live_sagas_max=settings.live_sagas_max,
            resting_max=surroundings.resting_max,
        )
        dispatcher.listen(engine)
        journal.listen(engine)
        self.catalog = catalog = DefinitionCatalog(clock=clock, journal=journal, compile_stored=surroundings.compile_stored)
        reviver = Reviver(engine, journal, catalog)
        self.sleepers = Sleepers(clock=clock, engine=engine, journal=journal, reviver=reviver, shards=shards)
        self.takeover = Takeover(clock=clock, engine=engine, reviver=reviver, sleepers=self.sleepers, shards=shards)
        self.retention = Retention(clock=clock, journal=journal, keep_us=round(settings.retention_days * MICROS_PER_DAY))
        telemetry.measure(measures_of(engine, journal, shards, self.retention))
        directory = ParticipantDirectory(registry, dispatcher)
        parts = ServiceParts(
            clock=clock,
            engine=engine,
            journal=journal,
            catalog=catalog,
            participants=directory,
            whereabouts=directory,
            shards=shards,
            hints=Hints(clock, engine, journal.signals) if shards.is_shared else None,
            open_channel=surroundings.open_channel,
            tokens=tokens,
            payload_bytes_max=settings.payload_bytes_max,
            trace_sample_ratio=sample_ratio_from_environment(settings.trace_sample_ratio) if telemetry.is_tracing else 0.0,
        )
        self.server = ApiServer(parts=parts, address=settings.address, server=surroundings.make_server())

    def work_beside(self) -> Iterator[Coroutine[None, None, None]]:
        """What runs beside the sagas once they are taken up, each until it is cancelled."""
        yield self.takeover.run()
        yield self.sleepers.run()
        if self.services.has_questions:
            yield self.services.run()
        if self.retention.is_on:
            yield self.retention.run()
        if self.shards.is_shared:
            yield _follow_others(self.registry, self.catalog)


@contextlib.asynccontextmanager
async def run_coordinator(
    settings: Settings, telemetry: Telemetry, *, surroundings: Surroundings = REAL_SURROUNDINGS
) -> AsyncIterator[Coordinator]:
    """Opens the journal, takes up what an earlier process left, and listens. On exit everything is drained and closed.

    Raises SettingsError, JournalOpenError, JournalUnavailableError or AddressInUseError if it cannot start.
    """
    plans = compile_services(settings.services)
    clock = surroundings.make_clock(asyncio.get_running_loop())
    async with surroundings.open_journal(settings.database, clock) as journal:
        tokens = CompletionTokens(await journal.keep_secret(SECRET_NAME, new_secret()))
        wired = _Wiring(settings, telemetry, surroundings, clock, journal, tokens, plans)
        await wired.registry.load()
        coordinator = Coordinator(engine=wired.engine, dispatcher=wired.dispatcher, server=wired.server, settings=settings)
        beside = [asyncio.create_task(wired.engine.run())]
        try:
            recovered = await wired.takeover.begin()
            await wired.server.start()
            wired.shards.announce(settings.advertise or coordinator.address)
            beside += [asyncio.create_task(work) for work in wired.work_beside()]
            _logger.info("ready", extra={"address": coordinator.address, "recovered_sagas": recovered})
            yield coordinator
        finally:
            await coordinator.drain()
            for task in beside:
                task.cancel()
            await asyncio.wait(beside)


async def _follow_others(registry: ParticipantRegistry, catalog: DefinitionCatalog) -> None:
    """Learns what other nodes were told of participants and definitions. Runs until it is cancelled."""
    while True:
        await asyncio.sleep(FOLLOW_EVERY_S)
        catalog.look_again()
        with contextlib.suppress(JournalUnavailableError):
            await registry.load()


def run(settings: Settings, *, surroundings: Surroundings = REAL_SURROUNDINGS) -> int:
    """Does what `serve` does, in a loop of its own: uvloop's if the extra `uvloop` is installed (7 to 15 % more sagas a second)."""
    collect_garbage_seldom()
    with asyncio.Runner(loop_factory=_find_loop_factory()) as runner:
        return runner.run(serve(settings, surroundings=surroundings))


def collect_garbage_seldom() -> None:
    """For a process of its own: what is imported stays for good and is never walked, and what sagas leave waits for more company."""
    gc.freeze()
    gc.set_threshold(*GARBAGE_THRESHOLDS)
    gc.enable()


def _find_loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """None: asyncio's own."""
    try:
        import uvloop  # noqa: PLC0415 - an extra
    except ImportError:
        return None
    factory: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop
    return factory


async def serve(settings: Settings, *, surroundings: Surroundings = REAL_SURROUNDINGS) -> int:
    """Runs a coordinator until SIGTERM or SIGINT, or until it may not go on; returns the exit code of the process."""
    configure_logging(settings.log_level, settings.log_format)
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopped.set)
    try:
        async with configure_telemetry() as telemetry, run_coordinator(settings, telemetry, surroundings=surroundings) as coordinator:
            return await _until_stopped(coordinator, stopped)
    except (SettingsError, JournalOpenError, JournalUnavailableError, AddressInUseError) as error:
        _logger.critical("cannot start: %s", error)
        return EXIT_CANNOT_START


async def _until_stopped(coordinator: Coordinator, stopped: asyncio.Event) -> int:
    waiting = asyncio.ensure_future(stopped.wait())
    await asyncio.wait((waiting, coordinator.lost_reason), return_when=asyncio.FIRST_COMPLETED)
    waiting.cancel()
    if coordinator.lost_reason.done():
        _logger.critical("stopping: %s", coordinator.lost_reason.result().message)
        return EXIT_LOST
    _logger.info("draining", extra={"live_sagas": len(coordinator.engine.held)})
    return EXIT_STOPPED
