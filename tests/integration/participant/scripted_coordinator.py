"""A coordinator that knows how steps are completed, and nothing else; it fails as a test tells it."""

# ruff: noqa: N802 - gRPC names the methods

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, TypeAlias

import grpc
from google.protobuf.message import Message
from google.rpc import status_pb2

from participant_sdk.rpc_errors import ErrorReason, abort_with, error_details, status_with
from saga.v1 import coordinator_pb2

Context: TypeAlias = "grpc.aio.ServicerContext[Message, Message]"


def unavailable() -> status_pb2.Status:
    return status_with(grpc.StatusCode.UNAVAILABLE, "away")


def too_late() -> status_pb2.Status:
    return status_with(grpc.StatusCode.FAILED_PRECONDITION, "it has turned back", error_details(ErrorReason.STEP_NOT_WAITING))


def not_mine() -> status_pb2.Status:
    return status_with(grpc.StatusCode.INVALID_ARGUMENT, "made elsewhere", error_details(ErrorReason.COMPLETION_TOKEN_INVALID))


@dataclass
class ScriptedCoordinator:
    failures: deque[status_pb2.Status] = field(default_factory=deque)
    """What the next calls are answered with, before anything else is done."""
    results: dict[str, coordinator_pb2.CompleteStepRequest] = field(default_factory=dict)
    """How steps were completed, by token."""
    completions: list[coordinator_pb2.CompleteStepRequest] = field(default_factory=list)
    heartbeats: list[coordinator_pb2.HeartbeatStepRequest] = field(default_factory=list)
    registrations: list[coordinator_pb2.RegisterParticipantRequest] = field(default_factory=list)
    is_step_wanted: bool = True
    time_left: timedelta = timedelta(minutes=5)
    gate: asyncio.Event = field(default_factory=asyncio.Event)
    """What a completion waits for; open unless a test closes it."""
    is_asked: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when a completion has arrived."""
    _changed: asyncio.Condition = field(default_factory=asyncio.Condition)

    def __post_init__(self) -> None:
        self.gate.set()

    async def RegisterParticipant(
        self, request: coordinator_pb2.RegisterParticipantRequest, context: Context
    ) -> coordinator_pb2.RegisterParticipantResponse:
        async with self._changed:
            self.registrations.append(request)
            self._changed.notify_all()
        return coordinator_pb2.RegisterParticipantResponse(ttl=request.ttl)

    async def CompleteStep(self, request: coordinator_pb2.CompleteStepRequest, context: Context) -> coordinator_pb2.CompleteStepResponse:
        self.completions.append(request)
        self.is_asked.set()
        await self.gate.wait()
        await self._fail(context)
        known = self.results.setdefault(request.completion_token, request)
        if known != request:
            await abort_with(context, too_late())
        return coordinator_pb2.CompleteStepResponse(repeated=known is not request)

    async def HeartbeatStep(self, request: coordinator_pb2.HeartbeatStepRequest, context: Context) -> coordinator_pb2.HeartbeatStepResponse:
        async with self._changed:
            self.heartbeats.append(request)
            self._changed.notify_all()
        await self._fail(context)
        response = coordinator_pb2.HeartbeatStepResponse(cancelled=not self.is_step_wanted)
        if self.is_step_wanted:
            response.time_left.FromTimedelta(self.time_left)
        return response

    async def registered(self) -> coordinator_pb2.RegisterParticipantRequest:
        """Waits for the first registration."""
        async with self._changed:
            await self._changed.wait_for(lambda: self.registrations)
            return self.registrations[0]

    async def wait_for_heartbeats(self, count: int) -> None:
        """Waits until there have been so many."""
        async with self._changed:
            await self._changed.wait_for(lambda: len(self.heartbeats) >= count)

    async def _fail(self, context: Context) -> None:
        if self.failures:
            await abort_with(context, self.failures.popleft())


@asynccontextmanager
async def served(coordinator: ScriptedCoordinator, address: str = "127.0.0.1:0") -> AsyncIterator[str]:
    """Serves on a real socket; yields the address."""
    server = grpc.aio.server()
    handlers: dict[str, grpc.RpcMethodHandler[Any, Any]] = {
        "RegisterParticipant": grpc.unary_unary_rpc_method_handler(
            coordinator.RegisterParticipant,
            request_deserializer=coordinator_pb2.RegisterParticipantRequest.FromString,
            response_serializer=coordinator_pb2.RegisterParticipantResponse.SerializeToString,
        ),
        "CompleteStep": grpc.unary_unary_rpc_method_handler(
            coordinator.CompleteStep,
            request_deserializer=coordinator_pb2.CompleteStepRequest.FromString,
            response_serializer=coordinator_pb2.CompleteStepResponse.SerializeToString,
        ),
        "HeartbeatStep": grpc.unary_unary_rpc_method_handler(
            coordinator.HeartbeatStep,
            request_deserializer=coordinator_pb2.HeartbeatStepRequest.FromString,
            response_serializer=coordinator_pb2.HeartbeatStepResponse.SerializeToString,
        ),
    }
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler("saga.v1.SagaService", handlers)])
    port = server.add_insecure_port(address)
    await server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        await server.stop(None)
