"""Serving participants: a gRPC server with health, reflection, registration and drain."""

import asyncio
import logging
import signal
from collections.abc import Coroutine, Sequence
from datetime import timedelta
from types import TracebackType
from typing import Final, Self

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection
from opentelemetry.trace import TracerProvider

from participant_sdk.barrier.barrier import Barrier
from participant_sdk.barrier.store import StoreBusyError, StoreUnavailableError
from participant_sdk.client.channel import MESSAGE_BYTES_MAX
from participant_sdk.client.saga_client import SagaClient
from participant_sdk.closings import wait_for_closings
from participant_sdk.completing import LentClient
from participant_sdk.errors import ParticipantSetupError
from participant_sdk.participant import Participant
from participant_sdk.registration import TTL_DEFAULT, Registration
from participant_sdk.retention import forget_expired_keys
from participant_sdk.servicer import ParticipantServicer
from participant_sdk.telemetry import SERVICE_NAME
from saga.v1 import participant_pb2_grpc

logger = logging.getLogger(__name__)

ADDRESS_DEFAULT: Final = "127.0.0.1:0"
COORDINATOR_DEFAULT: Final = "127.0.0.1:7700"
DRAIN_TIME_LIMIT_DEFAULT: Final = timedelta(seconds=10)
"""How long calls under way may take to end when the server stops."""
CALLS_MAX: Final = 1_000
"""Calls under way at most; further ones are refused, and the coordinator calls again."""
_CUT_SHORT_TIME_LIMIT_S: Final = 15.0
"""How long calls that were cut short may take to roll back, or to end a COMMIT under way."""
_WILDCARDS: Final = ("0.0.0.0:", "[::]:", "*:")

_OPTIONS: Final = (
    ("grpc.max_send_message_length", MESSAGE_BYTES_MAX),
    ("grpc.max_receive_message_length", MESSAGE_BYTES_MAX),
    # Two processes on one port would share its calls; that is to be an error and not a surprise.
    ("grpc.so_reuseport", 0),
)


class ParticipantServer:
    """Serves participants between `start` and `stop`, or as an async context manager. Without TLS, so far.

    Calls under way when it stops may end within `drain_time_limit`; what is left is cut short, rolled back, and called again by
    the coordinator elsewhere or later.
    """

    def __init__(
        self,
        *participants: Participant,
        address: str = ADDRESS_DEFAULT,
        coordinator: str | Sequence[str] | None = COORDINATOR_DEFAULT,
        advertise: str | None = None,
        ttl: timedelta = TTL_DEFAULT,
        drain_time_limit: timedelta = DRAIN_TIME_LIMIT_DEFAULT,
        tracer_provider: TracerProvider | None = None,
    ) -> None:
        """`address`: where to listen, "host:port" or "unix:path"; port 0 picks a free one.

        `coordinator`: where to register, one address or those of several nodes; None if it knows the participants by its configuration.
        `advertise`: what the coordinator is to dial, if that is not `address`.
        `ttl`: how long a registration holds, 1 s to 1 h; it is repeated three times as often.
        `tracer_provider`: None for the global one of OpenTelemetry.
        """
        if not timedelta(seconds=1) <= ttl <= timedelta(hours=1):
            raise ParticipantSetupError(f"ttl must be from 1 s to 1 h, found {ttl}")
        if coordinator is not None and advertise is None and address.startswith(_WILDCARDS):
            raise ParticipantSetupError(f"nobody can dial {address}: name an address of this machine with advertise=…")
        self._asked_address = address
        self._coordinator = coordinator
        self._advertise = advertise
        self._ttl = ttl
        self._drain_time_limit = drain_time_limit
        self._servicer = ParticipantServicer(*participants, tracer_provider=tracer_provider)
        self._server: grpc.aio.Server | None = None
        self._health = health.aio.HealthServicer()
        self._registration: Registration | None = None
        self._client: LentClient | None = None
        """What the participants' `completing` tells the coordinator through. Dialled when it is first used."""
        self._background: list[asyncio.Task[None]] = []
        self._address = ""

    @property
    def address(self) -> str:
        """Where it listens, with the port that was picked; empty before `start`."""
        return self._address

    @property
    def port(self) -> int:
        """The port that it listens on. Raises ParticipantSetupError before `start` and on a unix socket."""
        number = self._address.rpartition(":")[2]
        if not number.isdigit():
            raise ParticipantSetupError(f"there is no port: the address is {self._address or 'not known before start()'!r}")
        return int(number)

    async def start(self) -> None:
        """Proves the barriers, listens, and begins to register.

        Raises ParticipantSetupError if it could never serve. A database that is only away for now is no reason: calls are answered
        UNAVAILABLE until it is back.
        """
        if self._server is not None:
            raise ParticipantSetupError("this server was started before; make another one")
        barriers = list({id(each.barrier): each.barrier for each in self._servicer.participants}.values())
        for barrier in barriers:
            await _prove(barrier)
        server = grpc.aio.server(options=_OPTIONS, maximum_concurrent_rpcs=CALLS_MAX)
        participant_pb2_grpc.add_ParticipantServiceServicer_to_server(self._servicer, server)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, server)
        reflection.enable_server_reflection((SERVICE_NAME, health.SERVICE_NAME, reflection.SERVICE_NAME), server)
        self._address = _bind(server, self._asked_address)
        await server.start()
        self._server = server
        await self._health.set(SERVICE_NAME, health_pb2.HealthCheckResponse.SERVING)
        names = ", ".join(each.participant_name for each in self._servicer.participants)
        logger.info("serving %s on %s", names, self._address)
        for barrier in barriers:
            if barrier.retention is not None:
                self._run_in_background(forget_expired_keys(barrier), "retention")
        if self._coordinator is not None:
            self._client = LentClient(SagaClient(self._coordinator))
            self._lend(self._client)
            self._registration = Registration(
                coordinator=self._coordinator,
                target=self._advertise or self._address,
                descriptions=self._servicer.descriptions,
                ttl=self._ttl,
            )
            self._run_in_background(self._registration.run(), "registration")

    async def wait_registered(self, time_limit: timedelta) -> None:
        """Waits until the coordinator has accepted the registration. Raises TimeoutError."""
        if self._registration is None:
            raise ParticipantSetupError("nothing is registered: start() comes first, with a coordinator")
        async with asyncio.timeout(time_limit.total_seconds()):
            await self._registration.accepted.wait()

    async def stop(self) -> None:
        """Takes no more calls, lets those under way end within the drain time limit, and gives back what it holds. Safe to repeat."""
        background, self._background = self._background, []
        for task in background:
            task.cancel()
        await asyncio.gather(*background, return_exceptions=True)
        if self._server is not None:
            await self._health.enter_graceful_shutdown()
            self._servicer.drain()
            await self._server.stop(self._drain_time_limit.total_seconds())
            await self._wait_for_those_cut_short()
        client, self._client = self._client, None
        if client is not None:
            self._lend(None)
            await client.close(self._drain_time_limit)
        self._servicer.close()
        await wait_for_closings()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self.stop()

    async def _wait_for_those_cut_short(self) -> None:
        """The gRPC server does not wait for them, and whoever owns the database engine wants to dispose of it now."""
        try:
            async with asyncio.timeout(_CUT_SHORT_TIME_LIMIT_S):
                await self._servicer.wait_idle()
        except TimeoutError:
            logger.warning("calls that were cut short did not end in time; their outcome is unknown")

    def _lend(self, client: LentClient | None) -> None:
        for participant in self._servicer.participants:
            participant.tell_completions_to(client)

    def _run_in_background(self, work: Coroutine[None, None, None], name: str) -> None:
        """Runs until `stop`, which awaits it. A bug that ends it early is told at once, not at the end."""
        task = asyncio.get_running_loop().create_task(work, name=name)
        task.add_done_callback(_tell_if_broken)
        self._background.append(task)


async def serve(
    *participants: Participant,
    address: str = ADDRESS_DEFAULT,
    coordinator: str | Sequence[str] | None = COORDINATOR_DEFAULT,
    advertise: str | None = None,
    ttl: timedelta = TTL_DEFAULT,
    drain_time_limit: timedelta = DRAIN_TIME_LIMIT_DEFAULT,
) -> None:
    """Serves participants until SIGTERM or SIGINT, then drains. The arguments are those of `ParticipantServer`.

    A second signal during the drain ends the process at once.
    """
    server = ParticipantServer(
        *participants,
        address=address,
        coordinator=coordinator,
        advertise=advertise,
        ttl=ttl,
        drain_time_limit=drain_time_limit,
    )
    async with server:
        await _until_signalled()
        logger.info("draining: %s takes no more calls", server.address)


async def _until_signalled() -> None:
    told = asyncio.Event()
    loop = asyncio.get_running_loop()
    installed: list[signal.Signals] = []
    try:
        for number in (signal.SIGTERM, signal.SIGINT):
            try:
                loop.add_signal_handler(number, told.set)
            except NotImplementedError:  # Not on this system: there the end comes as a cancellation.
                continue
            installed.append(number)
        await told.wait()
    finally:
        for number in installed:
            loop.remove_signal_handler(number)


async def _prove(barrier: Barrier) -> None:
    try:
        await barrier.check()
    except (StoreUnavailableError, StoreBusyError) as error:
        logger.warning("the participant's database cannot be used now, starting without having tried it: %s", error)


def _bind(server: grpc.aio.Server, address: str) -> str:
    """Listens there; returns the address with the port that was picked."""
    try:
        port = server.add_insecure_port(address)
    except RuntimeError as error:
        raise ParticipantSetupError(f"cannot listen on {address}: is the port taken, is the address of this machine?") from error
    if address.startswith("unix:"):
        return address
    return f"{address.rpartition(':')[0]}:{port}"


def _tell_if_broken(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and task.exception() is not None:
        logger.error("%s ended by a fault of its own", task.get_name(), exc_info=task.exception())
