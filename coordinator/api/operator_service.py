"""OperatorService: tells why sagas do not move, and moves them."""

from collections.abc import AsyncIterator

import grpc

from coordinator.api import operator_requests as asked
from coordinator.api import pages
from coordinator.api.bulk import BulkActions
from coordinator.api.caller import is_forwarded
from coordinator.api.checks import saga_id_of
from coordinator.api.errors import CallContext, answers_errors, not_found, refusal, streams_errors
from coordinator.api.explaining import Explanations
from coordinator.api.forwarding import Stub, answers_as_owner
from coordinator.api.parts import ServiceParts, SharedParts
from coordinator.api.selections import listed_incidents
from coordinator.codec.explanations import node_message, standing_message
from coordinator.codec.sagas import saga_summary, stored_incident_message
from coordinator.core.inputs import Command
from coordinator.core.values import SagaId
from participant_sdk.rpc_errors import ErrorReason
from saga.v1 import operator_pb2, operator_pb2_grpc, saga_pb2


class OperatorService(operator_pb2_grpc.OperatorServiceServicer):
    """Answers operators. Every change is a command to one saga, and an event in its journal."""

    def __init__(self, parts: ServiceParts, shared: SharedParts) -> None:
        self.forwarding = shared.forwarding
        self._shards = parts.shards
        self._journal = parts.journal
        self._whereabouts = parts.whereabouts
        self._payload_bytes_max = parts.payload_bytes_max
        self._views = shared.views
        self._commands = shared.commands
        self._explanations = Explanations(parts.clock, shared.views, parts.whereabouts)
        self._bulk = BulkActions(
            engine=parts.engine, journal=parts.journal, views=shared.views, commands=shared.commands, forwarding=shared.forwarding
        )

    @property
    def stub(self) -> Stub:
        """How other nodes are asked."""
        return operator_pb2_grpc.OperatorServiceStub

    # ── Looking ─────────────────────────────────────────────────────────────────────────────────────────────────────────────────

    @answers_as_owner
    async def ExplainSaga(self, request: operator_pb2.ExplainSagaRequest, context: CallContext) -> operator_pb2.ExplainSagaResponse:
        return await self._explanations.explain(saga_id_of(request.saga_id))

    @answers_errors
    async def ListIncidents(self, request: operator_pb2.ListIncidentsRequest, context: CallContext) -> operator_pb2.ListIncidentsResponse:
        size = pages.page_size_of(request.page_size)
        after = pages.parse_incident_page_token(request.page_token)
        found = await self._journal.list_incidents(listed_incidents(request), after, size + 1)
        messages = [stored_incident_message(incident) for incident in found]
        length = pages.page_length((message.ByteSize() for message in messages), size)
        last = found[length - 1] if len(found) > length else None
        token = "" if last is None else pages.incident_page_token(last.opened_at, last.saga_id, last.id)
        return operator_pb2.ListIncidentsResponse(incidents=messages[:length], next_page_token=token)

    @answers_errors
    async def ListParticipants(
        self, request: operator_pb2.ListParticipantsRequest, context: CallContext
    ) -> operator_pb2.ListParticipantsResponse:
        standings = sorted(self._whereabouts.standings(), key=lambda standing: standing.name)
        return operator_pb2.ListParticipantsResponse(participants=[standing_message(standing) for standing in standings])

    @answers_errors
    async def ListNodes(self, request: operator_pb2.ListNodesRequest, context: CallContext) -> operator_pb2.ListNodesResponse:
        return operator_pb2.ListNodesResponse(nodes=[node_message(node) for node in await self._shards.nodes()])

    @answers_errors
    async def CordonNode(self, request: operator_pb2.CordonNodeRequest, context: CallContext) -> operator_pb2.CordonNodeResponse:
        if not self._shards.is_shared:
            message = "this coordinator is the only one on its database: nobody could take its sagas"
            raise refusal(grpc.StatusCode.FAILED_PRECONDITION, ErrorReason.REQUEST_INVALID, message)
        if not await self._shards.cordon(request.node_id, cordoned=request.cordoned):
            message = f"there is no node {request.node_id!r}; ListNodes lists those that there are"
            raise not_found(ErrorReason.NODE_NOT_FOUND, "saga.v1.Node", request.node_id, message)
        return operator_pb2.CordonNodeResponse()

    # ── Whole sagas ─────────────────────────────────────────────────────────────────────────────────────────────────────────────

    @answers_as_owner
    async def PauseSaga(self, request: operator_pb2.PauseSagaRequest, context: CallContext) -> operator_pb2.PauseSagaResponse:
        command = asked.pause_command(request)
        return operator_pb2.PauseSagaResponse(saga=await self._give(saga_id_of(request.saga_id), command))

    @answers_as_owner
    async def ResumeSaga(self, request: operator_pb2.ResumeSagaRequest, context: CallContext) -> operator_pb2.ResumeSagaResponse:
        command = asked.resume_command(request)
        return operator_pb2.ResumeSagaResponse(saga=await self._give(saga_id_of(request.saga_id), command))

    @answers_as_owner
    async def TerminateSaga(self, request: operator_pb2.TerminateSagaRequest, context: CallContext) -> operator_pb2.TerminateSagaResponse:
        command = asked.terminate_command(request)
        return operator_pb2.TerminateSagaResponse(saga=await self._give(saga_id_of(request.saga_id), command))

    @answers_as_owner
    async def ResolveOutput(self, request: operator_pb2.ResolveOutputRequest, context: CallContext) -> operator_pb2.ResolveOutputResponse:
        asked.check_output_resolution(request)
        saga_id = saga_id_of(request.saga_id)
        command = asked.output_command(request, await self._views.definition_of(saga_id), self._payload_bytes_max)
        return operator_pb2.ResolveOutputResponse(saga=await self._give(saga_id, command))

    @answers_as_owner
    async def AcknowledgeIncident(
        self, request: operator_pb2.AcknowledgeIncidentRequest, context: CallContext
    ) -> operator_pb2.AcknowledgeIncidentResponse:
        command = asked.acknowledge_command(request)
        return operator_pb2.AcknowledgeIncidentResponse(saga=await self._give(saga_id_of(request.saga_id), command))

    @streams_errors
    async def ActOnSagas(
        self, request: operator_pb2.ActOnSagasRequest, context: CallContext
    ) -> AsyncIterator[operator_pb2.ActOnSagasResponse]:
        async for response in self._bulk.act(request, passes_on=not is_forwarded(context)):
            yield response

    # ── Steps ───────────────────────────────────────────────────────────────────────────────────────────────────────────────────

    @answers_as_owner
    async def RetryStep(self, request: operator_pb2.RetryStepRequest, context: CallContext) -> operator_pb2.RetryStepResponse:
        asked.check_retry(request)
        saga_id = saga_id_of(request.saga_id)
        command = asked.retry_command(request, await self._views.definition_of(saga_id), self._payload_bytes_max)
        return operator_pb2.RetryStepResponse(saga=await self._give(saga_id, command))

    @answers_as_owner
    async def ResolveStep(self, request: operator_pb2.ResolveStepRequest, context: CallContext) -> operator_pb2.ResolveStepResponse:
        asked.check_resolution(request)
        saga_id = saga_id_of(request.saga_id)
        command = asked.resolve_command(request, await self._views.definition_of(saga_id), self._payload_bytes_max)
        return operator_pb2.ResolveStepResponse(saga=await self._give(saga_id, command))

    @answers_as_owner
    async def ChangeStepPolicy(
        self, request: operator_pb2.ChangeStepPolicyRequest, context: CallContext
    ) -> operator_pb2.ChangeStepPolicyResponse:
        command = asked.policy_command(request)
        return operator_pb2.ChangeStepPolicyResponse(saga=await self._give(saga_id_of(request.saga_id), command))

    async def _give(self, saga_id: SagaId, command: Command) -> saga_pb2.Saga:
        return await self._commands.give(saga_id, command, lambda accepted: saga_summary(accepted.plan, accepted.state))
