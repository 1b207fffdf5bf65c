"""The operator's side of the coordinator that only answers: what a test scripts, or else the saga as it stands."""

# ruff: noqa: N802 - gRPC names the methods

from collections import defaultdict, deque
from collections.abc import AsyncIterator, Awaitable, Callable
from copy import deepcopy
from dataclasses import dataclass, field
from typing import TypeAlias

import grpc
from google.protobuf.message import Message
from google.rpc import status_pb2

from participant_sdk.rpc_errors import abort_with
from saga.v1 import operator_pb2, operator_pb2_grpc, saga_pb2

Context: TypeAlias = "grpc.aio.ServicerContext[Message, Message]"


@dataclass
class FakeOperator(operator_pb2_grpc.OperatorServiceServicer):
    begin: Callable[[str, Message, Context], Awaitable[None]]
    """Records a request, and fails as the test said."""
    find: Callable[[str, Context], Awaitable[saga_pb2.Saga]]
    explanations: dict[str, operator_pb2.ExplainSagaResponse] = field(default_factory=dict)
    incidents: list[operator_pb2.SagaIncident] = field(default_factory=list)
    participants: list[operator_pb2.ParticipantStanding] = field(default_factory=list)
    nodes: list[operator_pb2.Node] = field(default_factory=list)
    results: list[operator_pb2.ActOnSagasResponse] = field(default_factory=list)
    """What acting on sagas is answered with, in a dry run and else."""
    break_after: deque[int] = field(default_factory=deque)
    """Per call that acts on sagas: results after which its stream breaks."""
    refused_since: dict[str, status_pb2.Status] = field(default_factory=dict)
    """Sagas that refuse although the dry run did not say so, by id."""
    page_size: int = 1000
    lost_replies: dict[str, deque[status_pb2.Status]] = field(default_factory=lambda: defaultdict(deque))
    """Per method: what the next calls are answered with, after their effect."""

    async def ExplainSaga(self, request: operator_pb2.ExplainSagaRequest, context: Context) -> operator_pb2.ExplainSagaResponse:
        await self.begin("ExplainSaga", request, context)
        return self.explanations[request.saga_id]

    async def PauseSaga(self, request: operator_pb2.PauseSagaRequest, context: Context) -> operator_pb2.PauseSagaResponse:
        saga = await self._saga("PauseSaga", request.saga_id, request, context)
        saga.paused.actor, saga.paused.reason = request.actor, request.reason
        await self._lose_reply("PauseSaga", context)
        return operator_pb2.PauseSagaResponse(saga=saga)

    async def ResumeSaga(self, request: operator_pb2.ResumeSagaRequest, context: Context) -> operator_pb2.ResumeSagaResponse:
        saga = await self._saga("ResumeSaga", request.saga_id, request, context)
        saga.ClearField("paused")
        return operator_pb2.ResumeSagaResponse(saga=saga)

    async def TerminateSaga(self, request: operator_pb2.TerminateSagaRequest, context: Context) -> operator_pb2.TerminateSagaResponse:
        saga = await self._saga("TerminateSaga", request.saga_id, request, context)
        saga.status = saga_pb2.SAGA_STATUS_FAILED
        saga.terminated.actor, saga.terminated.reason = request.actor, request.reason
        return operator_pb2.TerminateSagaResponse(saga=saga)

    async def RetryStep(self, request: operator_pb2.RetryStepRequest, context: Context) -> operator_pb2.RetryStepResponse:
        return operator_pb2.RetryStepResponse(saga=await self._saga("RetryStep", request.saga_id, request, context))

    async def ResolveStep(self, request: operator_pb2.ResolveStepRequest, context: Context) -> operator_pb2.ResolveStepResponse:
        return operator_pb2.ResolveStepResponse(saga=await self._saga("ResolveStep", request.saga_id, request, context))

    async def ChangeStepPolicy(
        self, request: operator_pb2.ChangeStepPolicyRequest, context: Context
    ) -> operator_pb2.ChangeStepPolicyResponse:
        return operator_pb2.ChangeStepPolicyResponse(saga=await self._saga("ChangeStepPolicy", request.saga_id, request, context))

    async def ResolveOutput(self, request: operator_pb2.ResolveOutputRequest, context: Context) -> operator_pb2.ResolveOutputResponse:
        return operator_pb2.ResolveOutputResponse(saga=await self._saga("ResolveOutput", request.saga_id, request, context))

    async def AcknowledgeIncident(
        self, request: operator_pb2.AcknowledgeIncidentRequest, context: Context
    ) -> operator_pb2.AcknowledgeIncidentResponse:
        return operator_pb2.AcknowledgeIncidentResponse(saga=await self._saga("AcknowledgeIncident", request.saga_id, request, context))

    async def ListIncidents(self, request: operator_pb2.ListIncidentsRequest, context: Context) -> operator_pb2.ListIncidentsResponse:
        await self.begin("ListIncidents", request, context)
        start = int(request.page_token or 0)
        end = start + min(request.page_size, self.page_size)
        token = str(end) if end < len(self.incidents) else ""
        return operator_pb2.ListIncidentsResponse(incidents=self.incidents[start:end], next_page_token=token)

    async def ActOnSagas(self, request: operator_pb2.ActOnSagasRequest, context: Context) -> AsyncIterator[operator_pb2.ActOnSagasResponse]:
        await self.begin("ActOnSagas", request, context)
        results = [deepcopy(one) for one in self.results if request.dry_run or one.saga.id in request.saga_ids]
        breaks_after = self.break_after.popleft() if self.break_after else None
        for sent, result in enumerate(results):
            if sent == breaks_after:
                await context.abort(grpc.StatusCode.UNAVAILABLE, "away")
            result.found = len(results)
            if not request.dry_run and result.saga.id in self.refused_since:
                result.error.CopyFrom(self.refused_since[result.saga.id])
            yield result

    async def ListParticipants(
        self, request: operator_pb2.ListParticipantsRequest, context: Context
    ) -> operator_pb2.ListParticipantsResponse:
        await self.begin("ListParticipants", request, context)
        return operator_pb2.ListParticipantsResponse(participants=self.participants)

    async def ListNodes(self, request: operator_pb2.ListNodesRequest, context: Context) -> operator_pb2.ListNodesResponse:
        await self.begin("ListNodes", request, context)
        return operator_pb2.ListNodesResponse(nodes=self.nodes)

    async def CordonNode(self, request: operator_pb2.CordonNodeRequest, context: Context) -> operator_pb2.CordonNodeResponse:
        await self.begin("CordonNode", request, context)
        return operator_pb2.CordonNodeResponse()

    async def _saga(self, method: str, saga_id: str, request: Message, context: Context) -> saga_pb2.Saga:
        await self.begin(method, request, context)
        return await self.find(saga_id, context)

    async def _lose_reply(self, method: str, context: Context) -> None:
        if self.lost_replies[method]:
            await abort_with(context, self.lost_replies[method].popleft())
