"""The gRPC server: SagaService and OperatorService, health and reflection on one address."""

from typing import Final

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from coordinator.api.operator_service import OperatorService
from coordinator.api.parts import ServiceParts, SharedParts
from coordinator.api.saga_service import SagaService
from saga.v1 import coordinator_pb2, coordinator_pb2_grpc, operator_pb2, operator_pb2_grpc

MESSAGE_BYTES_MAX: Final = 4 * 1024 * 1024 + 64 * 1024
"""Largest message in either direction; larger ones are refused by gRPC itself with RESOURCE_EXHAUSTED."""
CLOSE_GRACE_S: Final = 2.0
"""Time for answers that are being written when the server closes."""

_SERVICE_NAMES: Final = (
    coordinator_pb2.DESCRIPTOR.services_by_name["SagaService"].full_name,
    operator_pb2.DESCRIPTOR.services_by_name["OperatorService"].full_name,
)
_OPTIONS: Final = (
    ("grpc.max_receive_message_length", MESSAGE_BYTES_MAX),
    ("grpc.max_send_message_length", MESSAGE_BYTES_MAX),
    ("grpc.so_reuseport", 0),  # two coordinators must not share one port without knowing of each other
    ("grpc.http2.min_ping_interval_without_data_ms", 5_000),
    ("grpc.keepalive_permit_without_calls", 1),
)


def make_server() -> grpc.aio.Server:
    """A gRPC server as coordinators use it."""
    return grpc.aio.server(options=_OPTIONS)


class AddressInUseError(Exception):
    """Nothing can listen there."""


class ApiServer:
    """Listens when entered. `stop` refuses what comes, lets answers go out, and ends."""

    def __init__(self, *, parts: ServiceParts, address: str, server: grpc.aio.Server) -> None:
        """`server`: becomes its own."""
        self._shared = SharedParts(parts)
        self._saga_service = SagaService(parts, self._shared)
        self._operator_service = OperatorService(parts, self._shared)
        self._requested_address = address
        self._server = server
        self._health = health.aio.HealthServicer()
        self.address = address
        """Where it listens; the port is the real one after `start`."""

    async def start(self) -> None:
        """Begins to listen and to say SERVING. Raises AddressInUseError."""
        coordinator_pb2_grpc.add_SagaServiceServicer_to_server(self._saga_service, self._server)
        operator_pb2_grpc.add_OperatorServiceServicer_to_server(self._operator_service, self._server)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        reflection.enable_server_reflection((*_SERVICE_NAMES, health.SERVICE_NAME, reflection.SERVICE_NAME), self._server)
        try:
            port = self._server.add_insecure_port(self._requested_address)
        except RuntimeError as error:
            raise AddressInUseError(
                f"cannot listen on {self._requested_address}: is another coordinator running there? "
                "Choose another one with --address or SAGA_ADDRESS"
            ) from error
        if not self._requested_address.startswith("unix:"):
            self.address = f"{self._requested_address.rpartition(':')[0]}:{port}"
        await self._server.start()
        for name in ("", *_SERVICE_NAMES):
            await self._health.set(name, health_pb2.HealthCheckResponse.SERVING)

    async def announce_closing(self) -> None:
        """Says NOT_SERVING to whoever asks for its health, and goes on answering. Safe to call twice."""
        await self._health.enter_graceful_shutdown()

    async def stop(self) -> None:
        """Ends open waits and watches with UNAVAILABLE, and closes. Safe to call twice."""
        await self.announce_closing()
        self._shared.waits.close()
        await self._server.stop(CLOSE_GRACE_S)
        await self._shared.forwarding.aclose()
