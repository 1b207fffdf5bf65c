"""SagaService: registers plans and participants, starts sagas, and tells how they stand."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Final

import grpc

from coordinator.api import pages, requests
from coordinator.api.caller import caller_of, is_forwarded
from coordinator.api.checks import definition_name_of, saga_id_of
from coordinator.api.completions import Completions
from coordinator.api.errors import CallContext, answers_errors, invalid, refusal, streams_errors
from coordinator.api.forwarding import Stub, answers_as_owner
from coordinator.api.parts import ServiceParts, SharedParts
from coordinator.api.selections import listed_sagas
from coordinator.api.start_requests import StartRequests
from coordinator.api.start_stream import StartStream
from coordinator.api.starts import Starts
from coordinator.api.watch import Watches
from coordinator.codec.definitions import CompiledDefinition, DefinitionInvalidError, compile_definition
from coordinator.codec.participants import find_mismatches
from coordinator.codec.sagas import saga_summary
from coordinator.codec.values import to_duration, to_timestamp
from coordinator.engine.ports import ParticipantConflictError
from participant_sdk.definitions.problems import Problem
from participant_sdk.rpc_errors import ErrorReason
from saga.v1 import coordinator_pb2, coordinator_pb2_grpc, saga_pb2

_LOCAL_PEERS: Final = ("ipv4:127.", "ipv6:[::1]", "ipv6:%5B::1%5D", "unix:")


class SagaService(coordinator_pb2_grpc.SagaServiceServicer):
    """Answers callers. Reads come from the journal, commands go to the engine; nothing is answered that is not committed (R25)."""

    def __init__(self, parts: ServiceParts, shared: SharedParts) -> None:
        self.forwarding = shared.forwarding
        self._clock = parts.clock
        self._journal = parts.journal
        self._catalog = parts.catalog
        self._participants = parts.participants
        self._views = shared.views
        self._commands = shared.commands
        self._waits = shared.waits
        self._starts = Starts(parts.engine, shared.views, shared.waits, parts.shards)
        self._start_requests = StartRequests(
            clock=parts.clock,
            journal=parts.journal,
            catalog=parts.catalog,
            forwarding=shared.forwarding,
            starts=self._starts,
            payload_bytes_max=parts.payload_bytes_max,
            trace_sample_ratio=parts.trace_sample_ratio,
        )
        self._watches = Watches(parts.engine, parts.journal, shared.waits, hints=parts.hints)
        self._completions = Completions(
            tokens=parts.tokens,
            views=shared.views,
            commands=shared.commands,
            payload_bytes_max=parts.payload_bytes_max,
        )

    @property
    def stub(self) -> Stub:
        """How other nodes are asked."""
        return coordinator_pb2_grpc.SagaServiceStub

    # ── Definitions ─────────────────────────────────────────────────────────────────────────────────────────────────────────────

    @answers_errors
    async def RegisterDefinition(
        self, request: coordinator_pb2.RegisterDefinitionRequest, context: CallContext
    ) -> coordinator_pb2.RegisterDefinitionResponse:
        try:
            compiled = compile_definition(request.definition, request.descriptors)
        except DefinitionInvalidError as error:
            raise invalid(error.problems, ErrorReason.DEFINITION_INVALID) from error
        mismatches = await self._mismatches(compiled)
        if mismatches:
            raise invalid(mismatches, ErrorReason.DEFINITION_INVALID)
        created = await self._catalog.register(compiled)
        name, version = compiled.key
        if created is None:
            raise refusal(
                grpc.StatusCode.ALREADY_EXISTS,
                ErrorReason.DEFINITION_CONFLICT,
                f"definition {name!r} version {version} is registered with other content; a version never changes: register version "
                f"{version + 1}, running sagas keep theirs",
                name=name,
                version=str(version),
            )
        reference = saga_pb2.DefinitionReference(name=name, version=version)
        return coordinator_pb2.RegisterDefinitionResponse(definition=reference, created=created)

    @answers_errors
    async def GetDefinition(
        self, request: coordinator_pb2.GetDefinitionRequest, context: CallContext
    ) -> coordinator_pb2.GetDefinitionResponse:
        compiled = await self._start_requests.definition(request.definition)
        stored = await self._journal.find_definition(*compiled.key)
        assert stored is not None, "a definition is never deleted"
        return coordinator_pb2.GetDefinitionResponse(
            definition=compiled.message, descriptors=compiled.descriptors, registered_at=to_timestamp(stored.registered_at)
        )

    @answers_errors
    async def ListDefinitions(
        self, request: coordinator_pb2.ListDefinitionsRequest, context: CallContext
    ) -> coordinator_pb2.ListDefinitionsResponse:
        size = pages.page_size_of(request.page_size)
        after = pages.parse_definition_page_token(request.page_token)
        found = await self._journal.list_definitions(definition_name_of(request.name, "name"), after, size + 1)
        length = pages.page_length((len(stored.content) for stored in found), size)
        page = found[:length]
        definitions = [coordinator_pb2.RegisterDefinitionRequest.FromString(stored.content).definition for stored in page]
        token = pages.definition_page_token(page[-1].key) if len(found) > length else ""
        return coordinator_pb2.ListDefinitionsResponse(definitions=definitions, next_page_token=token)

    # ── Participants ────────────────────────────────────────────────────────────────────────────────────────────────────────────

    @answers_errors
    async def RegisterParticipant(
        self, request: coordinator_pb2.RegisterParticipantRequest, context: CallContext
    ) -> coordinator_pb2.RegisterParticipantResponse:
        if not context.peer().startswith(_LOCAL_PEERS):
            raise refusal(
                grpc.StatusCode.PERMISSION_DENIED,
                ErrorReason.REGISTRATION_FORBIDDEN,
                "participants register from loopback addresses and unix sockets only; name this one in the coordinator's configuration",
            )
        ttl_us = requests.registration_ttl_us(request)
        try:
            await self._participants.register(request.target, request.description, ttl_us)
        except ParticipantConflictError as error:
            raise refusal(grpc.StatusCode.ALREADY_EXISTS, ErrorReason.PARTICIPANT_CONFLICT, str(error)) from error
        return coordinator_pb2.RegisterParticipantResponse(ttl=to_duration(ttl_us))

    # ── Sagas ───────────────────────────────────────────────────────────────────────────────────────────────────────────────────

    @answers_errors
    async def StartSaga(self, request: coordinator_pb2.StartSagaRequest, context: CallContext) -> coordinator_pb2.StartSagaResponse:
        return await self._start_requests.answer(request, caller_of(context), is_forwarded=is_forwarded(context))

    async def StartSagas(
        self, request_iterator: AsyncIterator[coordinator_pb2.StartSagasRequest], context: CallContext
    ) -> AsyncIterator[coordinator_pb2.StartSagasResponse]:
        async for frame in StartStream(self._start_requests, self._starts, self._waits).run(request_iterator):
            yield frame

    @answers_errors
    async def GetSaga(self, request: coordinator_pb2.GetSagaRequest, context: CallContext) -> coordinator_pb2.GetSagaResponse:
        return coordinator_pb2.GetSagaResponse(saga=await self._views.get(saga_id_of(request.saga_id)))

    @answers_errors
    async def ListSagas(self, request: coordinator_pb2.ListSagasRequest, context: CallContext) -> coordinator_pb2.ListSagasResponse:
        size = pages.page_size_of(request.page_size)
        before = pages.parse_saga_page_token(request.page_token)
        found = await self._journal.list_sagas(listed_sagas(request), before, size + 1)
        summaries = self._views.summaries(found[:size])
        length = pages.page_length((saga.ByteSize() for saga in summaries), size)
        last = found[length - 1] if len(found) > length else None
        token = "" if last is None else pages.saga_page_token(last.created_at, last.saga_id)
        return coordinator_pb2.ListSagasResponse(sagas=summaries[:length], next_page_token=token)

    @answers_errors
    async def GetHistory(self, request: coordinator_pb2.GetHistoryRequest, context: CallContext) -> coordinator_pb2.GetHistoryResponse:
        saga_id = saga_id_of(request.saga_id)
        size = pages.page_size_of(request.page_size)
        found: Sequence[bytes] = await self._journal.read_events(saga_id, pages.sequence_of(request.after_sequence), size + 1)
        if not found:
            await self._views.require(saga_id)
        length = pages.page_length(map(len, found), size)
        events = [saga_pb2.Event.FromString(encoded) for encoded in found[:length]]
        return coordinator_pb2.GetHistoryResponse(events=events, more=len(found) > length)

    @streams_errors
    async def WatchSaga(
        self, request: coordinator_pb2.WatchSagaRequest, context: CallContext
    ) -> AsyncIterator[coordinator_pb2.WatchSagaResponse]:
        saga_id = saga_id_of(request.saga_id)
        await self._views.require(saga_id)
        await context.send_initial_metadata(())  # whoever watches a silent saga knows that it is heard
        async for response in self._watches.watch(saga_id, request.after_sequence):
            yield response

    @answers_as_owner
    async def CancelSaga(self, request: coordinator_pb2.CancelSagaRequest, context: CallContext) -> coordinator_pb2.CancelSagaResponse:
        command = requests.cancel_command(request)
        saga = await self._commands.give(saga_id_of(request.saga_id), command, lambda accepted: saga_summary(accepted.plan, accepted.state))
        return coordinator_pb2.CancelSagaResponse(saga=saga)

    # ── Steps that are finished later ───────────────────────────────────────────────────────────────────────────────────────────

    @answers_as_owner
    async def CompleteStep(
        self, request: coordinator_pb2.CompleteStepRequest, context: CallContext
    ) -> coordinator_pb2.CompleteStepResponse:
        return await self._completions.complete(request)

    @answers_as_owner
    async def HeartbeatStep(
        self, request: coordinator_pb2.HeartbeatStepRequest, context: CallContext
    ) -> coordinator_pb2.HeartbeatStepResponse:
        return await self._completions.heartbeat(request)

    async def _mismatches(self, compiled: CompiledDefinition) -> list[Problem]:
        """Where the definition contradicts what known participants say (R9). One that is not here cannot be asked, and refuses nothing."""
        hooks = [hook for hook in (compiled.plan.on_success, compiled.plan.on_failure) if hook is not None]
        names = sorted({step.participant for step in (*compiled.plan.steps, *hooks)})
        described = await asyncio.gather(*(self._participants.describe(name) for name in names))
        return list(find_mismatches(compiled.message, dict(zip(names, described, strict=True))))
