"""A participant that knows no stream of calls, as one in another language or of an earlier release: every call is an RPC of its own."""

import asyncio
import signal
from datetime import timedelta
from typing import Any

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from participant_sdk import Participant, ParticipantServicer
from participant_sdk.registration import TTL_DEFAULT, Registration
from saga.v1 import participant_pb2_grpc

_DRAIN_S = timedelta(seconds=5).total_seconds()


class UnaryServicer(ParticipantServicer):
    """Says that it has no stream of calls, and refuses one."""

    def __init__(self, participant: Participant) -> None:
        super().__init__(participant)
        for description in self.descriptions:
            description.exchange = False

    async def Exchange(  # type: ignore[override]  # noqa: N802 - ends at once
        self, request_iterator: object, context: "grpc.aio.ServicerContext[Any, Any]"
    ) -> None:
        await context.abort(grpc.StatusCode.UNIMPLEMENTED, "calls come one by one here")


async def serve_one_by_one(participant: Participant, *, coordinator: str, address: str) -> None:
    """Serves it until SIGTERM."""
    servicer = UnaryServicer(participant)
    server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
    health_servicer = health.aio.HealthServicer()
    participant_pb2_grpc.add_ParticipantServiceServicer_to_server(servicer, server)
    health_pb2_grpc.add_HealthServicer_to_server(health_servicer, server)
    server.add_insecure_port(address)
    await server.start()
    await health_servicer.set("", health_pb2.HealthCheckResponse.SERVING)
    registration = Registration(coordinator=coordinator, target=address, descriptions=servicer.descriptions, ttl=TTL_DEFAULT)
    registering = asyncio.create_task(registration.run())
    ended = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ended.set)
    await ended.wait()
    registering.cancel()
    await server.stop(_DRAIN_S)
    servicer.close()
