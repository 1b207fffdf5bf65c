"""Serving participants: a gRPC server with health, reflection, registration and drain."""

import asyncio
import logging
import signal
from collections.abc import Sequence
from datetime import timedelta
from types import TracebackType
from typing import Final, Self, TypedDict, Unpack

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection
from opentelemetry.trace import TracerProvider

from participant_sdk.client.channel import MESSAGE_BYTES_MAX
from participant_sdk.errors import ParticipantSetupError
from participant_sdk.hosting import COORDINATOR_DEFAULT, CUT_SHORT_TIME_LIMIT_S, DRAIN_TIME_LIMIT_DEFAULT, Hosting, HostingOptions
from participant_sdk.participant import Participant
from participant_sdk.registration import TTL_DEFAULT
from participant_sdk.servicer import ParticipantServicer
from participant_sdk.telemetry import SERVICE_NAME
from saga.v1 import participant_pb2_grpc

logger = logging.getLogger(__name__)

ADDRESS_DEFAULT: Final = "127.0.0.1:0"
CALLS_MAX: Final = 1_000
"""Calls under way at most; further ones are refused, and the coordinator calls again."""
_WILDCARDS: Final = ("0.0.0.0:", "[::]:", "*:")

_OPTIONS: Final = (
    ("grpc.max_send_message_length", MESSAGE_BYTES_MAX),
    ("grpc.max_receive_message_length", MESSAGE_BYTES_MAX),
    # Two processes on one port would share its calls; that is to be an error and not a surprise.
    ("grpc.so_reuseport", 0),
)


class ParticipantServer:
    """Serves participants between `start` and `stop`, or as an async context manager, on a gRPC server of its own.

    Calls under way when it stops may end within `drain_time_limit`; what is left is cut short, rolled back, and called again by
    the coordinator elsewhere or later. In a server that is there already, use `HostedParticipants`.
    """

    def __init__(
        self,
        *participants: Participant,
        address: str = ADDRESS_DEFAULT,
        server_credentials: grpc.ServerCredentials | None = None,
        interceptors: Sequence[grpc.aio.ServerInterceptor] = (),
        advertise: str | None = None,
        coordinator: str | Sequence[str] | None = COORDINATOR_DEFAULT,
        channel_credentials: grpc.ChannelCredentials | None = None,
        ttl: timedelta = TTL_DEFAULT,
        drain_time_limit: timedelta = DRAIN_TIME_LIMIT_DEFAULT,
        tracer_provider: TracerProvider | None = None,
    ) -> None:
        """`address`: where to listen, "host:port" or "unix:path"; port 0 picks a free one.

        `server_credentials`: for TLS; None: none. The coordinator does not speak TLS to participants yet, so that this is for what stands
        between them. `interceptors`: of the gRPC server, before its own.
        `advertise`: what the coordinator is to dial, if that is not `address`.
        `tracer_provider`: None for the global one of OpenTelemetry. The others are those of `HostingOptions`.
        """
        if coordinator is not None and advertise is None and address.startswith(_WILDCARDS):
            raise ParticipantSetupError(f"nobody can dial {address}: name an address of this machine with advertise=…")
        options = HostingOptions(
            coordinator=coordinator, channel_credentials=channel_credentials, ttl=ttl, drain_time_limit=drain_time_limit
        )
        self._asked_address = address
        self._server_credentials = server_credentials
        self._interceptors = tuple(interceptors)
        self._advertise = advertise
        self._drain_time_limit = drain_time_limit
        self._servicer = ParticipantServicer(*participants, tracer_provider=tracer_provider)
        self._hosting = Hosting(self._servicer, options)
        self._server: grpc.aio.Server | None = None
        self._health = health.aio.HealthServicer()
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
        await self._hosting.prove()
        server = grpc.aio.server(options=_OPTIONS, maximum_concurrent_rpcs=CALLS_MAX, interceptors=self._interceptors)
        participant_pb2_grpc.add_ParticipantServiceServicer_to_server(self._servicer, server)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, server)
        reflection.enable_server_reflection((SERVICE_NAME, health.SERVICE_NAME, reflection.SERVICE_NAME), server)
        self._address = _bind(server, self._asked_address, self._server_credentials)
        await server.start()
        self._server = server
        await self._health.set(SERVICE_NAME, health_pb2.HealthCheckResponse.SERVING)
        names = ", ".join(each.participant_name for each in self._servicer.participants)
        logger.info("serving %s on %s", names, self._address)
        self._hosting.begin(self._advertise or self._address)

    async def wait_registered(self, time_limit: timedelta) -> None:
        """Waits until the coordinator has accepted the registration. Raises TimeoutError."""
        await self._hosting.wait_registered(time_limit)

    async def stop(self) -> None:
        """Takes no more calls, lets those under way end within the drain time limit, and gives back what it holds. Safe to repeat."""
        await self._hosting.retreat()
        if self._server is not None:
            await self._health.enter_graceful_shutdown()
            await self._server.stop(self._drain_time_limit.total_seconds())
            # The gRPC server does not wait for those cut short, and whoever owns the database engine wants to dispose of it now.
            await self._hosting.wait_idle(CUT_SHORT_TIME_LIMIT_S)
        await self._hosting.end()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self.stop()


class HostedParticipants:
    """Participants in a grpc.aio server that is there already, beside its other services. Make it before the server starts, and enter it
    after that:

        server = grpc.aio.server()
        orders_pb2_grpc.add_OrdersServicer_to_server(Orders(), server)
        hosted = HostedParticipants(server, Inventory(barrier=barrier), advertise="inventory:50051")
        server.add_insecure_port("[::]:50051")
        await server.start()
        async with hosted:
            await server.wait_for_termination()

    Ports, credentials, interceptors, reflection and the end of the server stay with whoever owns it. Leaving it lets the calls under way
    end within `drain_time_limit`; then stop the server, whose grace cuts short what is left.
    """

    def __init__(
        self,
        server: grpc.aio.Server,
        *participants: Participant,
        advertise: str,
        health_servicer: health.aio.HealthServicer | None = None,
        options: HostingOptions | None = None,
        tracer_provider: TracerProvider | None = None,
    ) -> None:
        """`advertise`: what the coordinator is to dial. `health_servicer`: the one of the server, which is told how they are; None: nobody.

        `options`: how they are made known; None: the defaults. `tracer_provider`: None for the global one of OpenTelemetry.
        """
        self._options = options if options is not None else HostingOptions()
        self._advertise = advertise
        self._servicer = ParticipantServicer(*participants, tracer_provider=tracer_provider)
        self._hosting = Hosting(self._servicer, self._options)
        self._health = health_servicer
        self._is_entered = False
        participant_pb2_grpc.add_ParticipantServiceServicer_to_server(self._servicer, server)

    async def wait_registered(self, time_limit: timedelta) -> None:
        """Waits until the coordinator has accepted the registration. Raises TimeoutError."""
        await self._hosting.wait_registered(time_limit)

    async def __aenter__(self) -> Self:
        """Proves the barriers and begins to register. Raises ParticipantSetupError if they could never be served, or were before."""
        if self._is_entered:
            raise ParticipantSetupError("these participants were served before; make them anew, with another server")
        self._is_entered = True
        await self._hosting.prove()
        await self._say(health_pb2.HealthCheckResponse.SERVING)
        self._hosting.begin(self._advertise)
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self._hosting.retreat()
        await self._say(health_pb2.HealthCheckResponse.NOT_SERVING)
        await self._hosting.wait_idle(self._options.drain_time_limit.total_seconds())
        await self._hosting.end()

    async def _say(self, status: health_pb2.HealthCheckResponse.ServingStatus.ValueType) -> None:
        if self._health is not None:
            await self._health.set(SERVICE_NAME, status)


class ServerOptions(TypedDict, total=False):
    """The arguments of `ParticipantServer`."""

    address: str
    server_credentials: grpc.ServerCredentials | None
    interceptors: Sequence[grpc.aio.ServerInterceptor]
    advertise: str | None
    coordinator: str | Sequence[str] | None
    channel_credentials: grpc.ChannelCredentials | None
    ttl: timedelta
    drain_time_limit: timedelta
    tracer_provider: TracerProvider | None


async def serve(*participants: Participant, **options: Unpack[ServerOptions]) -> None:
    """Serves participants until SIGTERM or SIGINT, then drains. The options are the arguments of `ParticipantServer`.

    A second signal during the drain ends the process at once.
    """
    async with ParticipantServer(*participants, **options) as server:
        await until_signalled()
        logger.info("draining: %s takes no more calls", server.address)


async def until_signalled() -> None:
    """Waits for SIGTERM or SIGINT; for a server of one's own."""
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


def _bind(server: grpc.aio.Server, address: str, credentials: grpc.ServerCredentials | None) -> str:
    """Listens there; returns the address with the port that was picked."""
    try:
        port = server.add_insecure_port(address) if credentials is None else server.add_secure_port(address, credentials)
    except RuntimeError as error:
        raise ParticipantSetupError(f"cannot listen on {address}: is the port taken, is the address of this machine?") from error
    if address.startswith("unix:"):
        return address
    return f"{address.rpartition(':')[0]}:{port}"
