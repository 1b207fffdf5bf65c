"""A coordinator that only answers: keeps sagas in memory, and fails as often and as badly as a test tells it."""

# ruff: noqa: N802 - gRPC names the methods

import asyncio
from collections import defaultdict, deque
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Final, TypeAlias, TypeVar

import grpc
from google.protobuf.message import Message
from google.rpc import status_pb2

from participant_sdk.rpc_errors import ErrorReason, abort_with, error_details, status_with
from saga.v1 import coordinator_pb2, coordinator_pb2_grpc, operator_pb2_grpc, saga_pb2
from tests.unit.client.fake_operator import FakeOperator

ENDED: Final = (saga_pb2.SAGA_STATUS_COMPLETED, saga_pb2.SAGA_STATUS_COMPENSATED)
AT_REST: Final = (*ENDED, saga_pb2.SAGA_STATUS_FAILED)

Context: TypeAlias = "grpc.aio.ServicerContext[Message, Message]"
RequestT = TypeVar("RequestT", bound=Message)


def unavailable() -> status_pb2.Status:
    return status_with(grpc.StatusCode.UNAVAILABLE, "away")


@dataclass
class FakeCoordinator(coordinator_pb2_grpc.SagaServiceServicer):
    sagas: dict[str, saga_pb2.Saga] = field(default_factory=dict)
    events: dict[str, list[coordinator_pb2.WatchSagaResponse]] = field(default_factory=lambda: defaultdict(list))
    definitions: list[coordinator_pb2.GetDefinitionResponse] = field(default_factory=list)
    failures: dict[str, deque[status_pb2.Status]] = field(default_factory=lambda: defaultdict(deque))
    """Per method: what the next calls are answered with, before anything else is done."""
    lost_replies: dict[str, deque[status_pb2.Status]] = field(default_factory=lambda: defaultdict(deque))
    """Per method: what the next calls are answered with, after their effect."""
    watch_breaks_after: deque[int] = field(default_factory=deque)
    """Per watch: events after which its stream breaks."""
    silent_watches: "asyncio.Queue[asyncio.Event] | None" = None
    """Watches that were begun and say nothing, where they are wanted: each breaks when it is told so."""
    watch_ends_after: deque[int] = field(default_factory=deque)
    """Per watch: events after which its stream ends well, as that of a coordinator that shuts down."""
    page_size: int = 1000
    knows_frames: bool = False
    """Whether it knows StartSagas; it answers nothing there."""
    streams: int = 0
    """Frames of starts that came."""
    requests: list[Message] = field(default_factory=list)
    metadata: list[dict[str, str | bytes]] = field(default_factory=list)
    seconds_left: list[float | None] = field(default_factory=list)
    """Per request: how far its deadline was."""
    operator: FakeOperator = field(init=False)
    _changed: asyncio.Condition = field(default_factory=asyncio.Condition)

    def __post_init__(self) -> None:
        self.operator = FakeOperator(begin=self._begin, find=self._find)

    async def move(self, saga_id: str, status: saga_pb2.SagaStatus.ValueType, **fact: Message) -> None:
        """Appends an event and tells the watchers."""
        async with self._changed:
            saga = self.sagas[saga_id]
            saga.status, saga.sequence = status, saga.sequence + 1
            event = saga_pb2.Event(saga_id=saga_id, sequence=saga.sequence, **fact)  # type: ignore[arg-type]
            self.events[saga_id].append(coordinator_pb2.WatchSagaResponse(event=event, status=status))
            self._changed.notify_all()

    async def wait_for(self, request_type: type[RequestT], count: int = 1) -> Sequence[RequestT]:
        """The requests of that type, as soon as there are so many."""
        async with self._changed:
            await self._changed.wait_for(lambda: len(self.received(request_type)) >= count)
        return self.received(request_type)

    def received(self, request_type: type[RequestT]) -> Sequence[RequestT]:
        return [request for request in self.requests if isinstance(request, request_type)]

    # ── SagaService ──────────────────────────────────────────────────────────────────────────────────────────────────────────────

    async def RegisterDefinition(
        self, request: coordinator_pb2.RegisterDefinitionRequest, context: Context
    ) -> coordinator_pb2.RegisterDefinitionResponse:
        await self._begin("RegisterDefinition", request, context)
        stored = coordinator_pb2.GetDefinitionResponse(definition=request.definition, descriptors=request.descriptors)
        created = stored not in self.definitions
        if created:
            self.definitions.append(stored)
        return coordinator_pb2.RegisterDefinitionResponse(created=created)

    async def GetDefinition(self, request: coordinator_pb2.GetDefinitionRequest, context: Context) -> coordinator_pb2.GetDefinitionResponse:
        await self._begin("GetDefinition", request, context)
        wanted = request.definition
        same_name = (each for each in self.definitions if each.definition.name == wanted.name)
        found = [each for each in same_name if wanted.version in {0, each.definition.version}]
        if not found:
            info = error_details(ErrorReason.DEFINITION_NOT_FOUND)
            await abort_with(context, status_with(grpc.StatusCode.NOT_FOUND, f"no definition {wanted.name}", info))
        return found[-1]

    async def ListDefinitions(
        self, request: coordinator_pb2.ListDefinitionsRequest, context: Context
    ) -> coordinator_pb2.ListDefinitionsResponse:
        await self._begin("ListDefinitions", request, context)
        start = int(request.page_token or 0)
        end = start + min(request.page_size, self.page_size)
        found = [stored.definition for stored in self.definitions if request.name in {"", stored.definition.name}]
        return coordinator_pb2.ListDefinitionsResponse(definitions=found[start:end], next_page_token=str(end) if end < len(found) else "")

    async def RegisterParticipant(
        self, request: coordinator_pb2.RegisterParticipantRequest, context: Context
    ) -> coordinator_pb2.RegisterParticipantResponse:
        await self._begin("RegisterParticipant", request, context)
        return coordinator_pb2.RegisterParticipantResponse(ttl=request.ttl)

    async def StartSaga(self, request: coordinator_pb2.StartSagaRequest, context: Context) -> coordinator_pb2.StartSagaResponse:
        await self._begin("StartSaga", request, context)
        created = request.saga_id not in self.sagas
        if created:
            self.sagas[request.saga_id] = saga_pb2.Saga(id=request.saga_id, definition=request.definition, input=request.input)
            await self.move(request.saga_id, saga_pb2.SAGA_STATUS_RUNNING, saga_started=saga_pb2.SagaStarted())
        await self._lose_reply("StartSaga", context)
        if request.wait:
            await self._wait_until_at_rest(request.saga_id)
        return coordinator_pb2.StartSagaResponse(saga=self.sagas[request.saga_id], created=created)

    async def StartSagas(
        self, request_iterator: AsyncIterator[coordinator_pb2.StartSagasRequest], context: Context
    ) -> AsyncIterator[coordinator_pb2.StartSagasResponse]:
        async for _ in request_iterator:
            self.streams += 1
            if self.failures["StartSagas"]:
                await abort_with(context, self.failures["StartSagas"].popleft())
            if not self.knows_frames:
                await abort_with(context, status_with(grpc.StatusCode.UNIMPLEMENTED, "of an older release"))
            yield coordinator_pb2.StartSagasResponse()

    async def GetSaga(self, request: coordinator_pb2.GetSagaRequest, context: Context) -> coordinator_pb2.GetSagaResponse:
        await self._begin("GetSaga", request, context)
        return coordinator_pb2.GetSagaResponse(saga=await self._find(request.saga_id, context))

    async def ListSagas(self, request: coordinator_pb2.ListSagasRequest, context: Context) -> coordinator_pb2.ListSagasResponse:
        await self._begin("ListSagas", request, context)
        start = int(request.page_token or 0)
        end = start + min(request.page_size, self.page_size)
        found = [saga for saga in self.sagas.values() if not request.statuses or saga.status in request.statuses]
        return coordinator_pb2.ListSagasResponse(sagas=found[start:end], next_page_token=str(end) if end < len(found) else "")

    async def GetHistory(self, request: coordinator_pb2.GetHistoryRequest, context: Context) -> coordinator_pb2.GetHistoryResponse:
        await self._begin("GetHistory", request, context)
        await self._find(request.saga_id, context)
        rest = [response.event for response in self.events[request.saga_id][request.after_sequence :]]
        size = min(request.page_size, self.page_size)
        return coordinator_pb2.GetHistoryResponse(events=rest[:size], more=len(rest) > size)

    async def WatchSaga(
        self, request: coordinator_pb2.WatchSagaRequest, context: Context
    ) -> AsyncIterator[coordinator_pb2.WatchSagaResponse]:
        await self._begin("WatchSaga", request, context)
        await self._find(request.saga_id, context)
        await context.send_initial_metadata(())
        if self.silent_watches is not None:
            broken = asyncio.Event()
            self.silent_watches.put_nowait(broken)
            await broken.wait()
            await abort_with(context, unavailable())
        events, sent = self.events[request.saga_id], request.after_sequence
        breaks_at = sent + self.watch_breaks_after.popleft() if self.watch_breaks_after else None
        ends_at = sent + self.watch_ends_after.popleft() if self.watch_ends_after else None
        while True:
            if sent == breaks_at:
                await abort_with(context, unavailable())
            if sent == ends_at:
                return
            if not await self._wait_for_event(request.saga_id, after=sent):
                return
            yield events[sent]
            sent += 1

    async def CancelSaga(self, request: coordinator_pb2.CancelSagaRequest, context: Context) -> coordinator_pb2.CancelSagaResponse:
        await self._begin("CancelSaga", request, context)
        saga = await self._find(request.saga_id, context)
        if saga.status in ENDED:
            info = error_details(ErrorReason.SAGA_ALREADY_ENDED)
            await abort_with(context, status_with(grpc.StatusCode.FAILED_PRECONDITION, "it has ended", info))
        await self.move(saga.id, saga_pb2.SAGA_STATUS_COMPENSATING, saga_turned_back=saga_pb2.SagaTurnedBack(actor=request.actor))
        return coordinator_pb2.CancelSagaResponse(saga=saga)

    async def CompleteStep(self, request: coordinator_pb2.CompleteStepRequest, context: Context) -> coordinator_pb2.CompleteStepResponse:
        await self._begin("CompleteStep", request, context)
        repeated = len(self.received(coordinator_pb2.CompleteStepRequest)) > 1
        return coordinator_pb2.CompleteStepResponse(repeated=repeated)

    async def HeartbeatStep(self, request: coordinator_pb2.HeartbeatStepRequest, context: Context) -> coordinator_pb2.HeartbeatStepResponse:
        await self._begin("HeartbeatStep", request, context)
        return coordinator_pb2.HeartbeatStepResponse(time_left=request.time_limit, turn_back_requested=True)

    async def _begin(self, method: str, request: Message, context: Context) -> None:
        async with self._changed:
            self.requests.append(request)
            self.metadata.append(dict(context.invocation_metadata() or ()))
            self.seconds_left.append(context.time_remaining())
            self._changed.notify_all()
        if self.failures[method]:
            await abort_with(context, self.failures[method].popleft())

    async def _lose_reply(self, method: str, context: Context) -> None:
        if self.lost_replies[method]:
            await abort_with(context, self.lost_replies[method].popleft())

    async def _wait_until_at_rest(self, saga_id: str) -> None:
        async with self._changed:
            await self._changed.wait_for(lambda: self.sagas[saga_id].status in AT_REST)

    async def _wait_for_event(self, saga_id: str, *, after: int) -> bool:
        events = self.events[saga_id]
        async with self._changed:
            await self._changed.wait_for(lambda: len(events) > after or self._is_over(self.sagas[saga_id]))
        return len(events) > after

    def _is_over(self, saga: saga_pb2.Saga) -> bool:
        is_hook_moving = saga.HasField("hook") and saga.hook.status == saga_pb2.STEP_STATUS_EXECUTING
        return (saga.status in ENDED or saga.HasField("terminated")) and not is_hook_moving

    async def _find(self, saga_id: str, context: Context) -> saga_pb2.Saga:
        if saga_id not in self.sagas:
            info = error_details(ErrorReason.SAGA_NOT_FOUND)
            await abort_with(context, status_with(grpc.StatusCode.NOT_FOUND, f"no saga {saga_id}", info))
        return self.sagas[saga_id]


@asynccontextmanager
async def served(
    coordinator: FakeCoordinator, address: str = "127.0.0.1:0", *, credentials: grpc.ServerCredentials | None = None
) -> AsyncIterator[str]:
    """Serves on a real socket; yields the address. Leaving it cuts every call off, as a crash would. `credentials`: for TLS."""
    server = grpc.aio.server()
    coordinator_pb2_grpc.add_SagaServiceServicer_to_server(coordinator, server)
    operator_pb2_grpc.add_OperatorServiceServicer_to_server(coordinator.operator, server)
    port = server.add_insecure_port(address) if credentials is None else server.add_secure_port(address, credentials)
    await server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        await server.stop(None)
