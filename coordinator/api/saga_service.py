"""SagaService: registers plans and participants, starts sagas, and tells how they stand."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

import grpc

from coordinator.api import requests
from coordinator.api.errors import CallContext, answers_errors, invalid, not_found, refusal, streams_errors, unavailable
from coordinator.api.starts import StartWaits
from coordinator.api.views import SagaViews
from coordinator.api.waits import OpenWaits
from coordinator.api.watch import Watches
from coordinator.catalog import DefinitionCatalog
from coordinator.codec.definition_rules import Problem
from coordinator.codec.definitions import CompiledDefinition, DefinitionInvalidError, compile_definition
from coordinator.codec.participants import find_mismatches
from coordinator.codec.sagas import saga_summary
from coordinator.codec.values import to_duration, to_timestamp
from coordinator.core.inputs import Cancel
from coordinator.core.values import SagaId
from coordinator.engine.commands import CancelAccepted, CancelAnswer, CancelRefused, Declined, NotLive
from coordinator.engine.engine import Engine
from coordinator.engine.ports import Clock, Journal, ParticipantConflictError
from participant_sdk.rpc_errors import ErrorReason
from saga.v1 import coordinator_pb2, coordinator_pb2_grpc, participant_pb2, saga_pb2

_LOCAL_PEERS: Final = ("ipv4:127.", "ipv6:[::1]", "ipv6:%5B::1%5D", "unix:")
STALLED_US_MAX: Final = 2_000_000
"""How long the journal may have been failing before starts are refused at once, so that they do not pile up."""


class ParticipantDirectory(Protocol):
    """What the API needs to know of participants."""

    async def register(self, target: str, description: participant_pb2.ParticipantDescription, ttl_us: int) -> None:
        """Remembers a target. Raises ParticipantConflictError, JournalUnavailableError."""

    async def describe(self, participant: str) -> participant_pb2.ParticipantDescription | None:
        """What a participant says it can do; None if it is not known or does not answer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceParts:
    """What the service is made of."""

    clock: Clock
    engine: Engine
    journal: Journal
    catalog: DefinitionCatalog
    participants: ParticipantDirectory
    payload_bytes_max: int
    trace_sample_ratio: float


class SagaService(coordinator_pb2_grpc.SagaServiceServicer):
    """Answers callers. Reads come from the journal, commands go to the engine; nothing is answered that is not committed (R25)."""

    def __init__(self, parts: ServiceParts) -> None:
        self._clock = parts.clock
        self._engine = parts.engine
        self._journal = parts.journal
        self._catalog = parts.catalog
        self._participants = parts.participants
        self._payload_bytes_max = parts.payload_bytes_max
        self._trace_sample_ratio = parts.trace_sample_ratio
        self._waits = OpenWaits()
        self._views = SagaViews(parts.journal, parts.catalog)
        self._starts = StartWaits(parts.engine, self._views, self._waits)
        self._watches = Watches(parts.engine, parts.journal, self._waits)

    def close(self) -> None:
        """Ends everything that is awaited with UNAVAILABLE."""
        self._waits.close()

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
        compiled = await self._definition(request.definition)
        stored = await self._journal.find_definition(*compiled.key)
        assert stored is not None, "a definition is never deleted"
        return coordinator_pb2.GetDefinitionResponse(
            definition=compiled.message, descriptors=compiled.descriptors, registered_at=to_timestamp(stored.registered_at)
        )

    @answers_errors
    async def ListDefinitions(
        self, request: coordinator_pb2.ListDefinitionsRequest, context: CallContext
    ) -> coordinator_pb2.ListDefinitionsResponse:
        size = requests.page_size_of(request.page_size)
        after = requests.parse_definition_page_token(request.page_token)
        found = await self._journal.list_definitions(requests.definition_name_of(request.name, "name"), after, size + 1)
        length = requests.page_length((len(stored.content) for stored in found), size)
        page = found[:length]
        definitions = [coordinator_pb2.RegisterDefinitionRequest.FromString(stored.content).definition for stored in page]
        token = requests.definition_page_token(page[-1].key) if len(found) > length else ""
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
        if self._journal.stalled_for_us > STALLED_US_MAX:
            raise unavailable(ErrorReason.JOURNAL_UNAVAILABLE, "the database takes nothing now; send the same request again")
        compiled = await self._definition(request.definition)
        metadata = dict(context.invocation_metadata() or ())
        command = requests.start_command(
            request,
            compiled,
            now=self._clock.now(),
            payload_bytes_max=self._payload_bytes_max,
            traceparent=_text(metadata.get("traceparent", "")),
            tracestate=_text(metadata.get("tracestate", "")),
            sample_ratio=self._trace_sample_ratio,
        )
        if request.wait:
            return await self._starts.start_and_wait(command)
        return await self._starts.start(command)

    @answers_errors
    async def GetSaga(self, request: coordinator_pb2.GetSagaRequest, context: CallContext) -> coordinator_pb2.GetSagaResponse:
        return coordinator_pb2.GetSagaResponse(saga=await self._views.get(requests.saga_id_of(request.saga_id)))

    @answers_errors
    async def ListSagas(self, request: coordinator_pb2.ListSagasRequest, context: CallContext) -> coordinator_pb2.ListSagasResponse:
        size = requests.page_size_of(request.page_size)
        before = requests.parse_saga_page_token(request.page_token)
        found = await self._journal.list_sagas(requests.saga_filter(request), before, size + 1)
        summaries = self._views.summaries(found[:size])
        length = requests.page_length((saga.ByteSize() for saga in summaries), size)
        last = found[length - 1] if len(found) > length else None
        token = "" if last is None else requests.saga_page_token(last.created_at, last.saga_id)
        return coordinator_pb2.ListSagasResponse(sagas=summaries[:length], next_page_token=token)

    @answers_errors
    async def GetHistory(self, request: coordinator_pb2.GetHistoryRequest, context: CallContext) -> coordinator_pb2.GetHistoryResponse:
        saga_id = requests.saga_id_of(request.saga_id)
        size = requests.page_size_of(request.page_size)
        found: Sequence[bytes] = await self._journal.read_events(saga_id, requests.sequence_of(request.after_sequence), size + 1)
        if not found:
            await self._views.require(saga_id)
        length = requests.page_length(map(len, found), size)
        events = [saga_pb2.Event.FromString(encoded) for encoded in found[:length]]
        return coordinator_pb2.GetHistoryResponse(events=events, more=len(found) > length)

    @streams_errors
    async def WatchSaga(
        self, request: coordinator_pb2.WatchSagaRequest, context: CallContext
    ) -> AsyncIterator[coordinator_pb2.WatchSagaResponse]:
        saga_id = requests.saga_id_of(request.saga_id)
        await self._views.require(saga_id)
        async for response in self._watches.watch(saga_id, request.after_sequence):
            yield response

    @answers_errors
    async def CancelSaga(self, request: coordinator_pb2.CancelSagaRequest, context: CallContext) -> coordinator_pb2.CancelSagaResponse:
        requests.check_cancel(request)
        saga_id = requests.saga_id_of(request.saga_id)
        answered: asyncio.Future[saga_pb2.Saga | None] = self._waits.add(asyncio.get_running_loop().create_future())

        def answer(given: CancelAnswer) -> None:
            if answered.done():
                return
            match given:
                case CancelAccepted(plan=plan, state=state):
                    answered.set_result(saga_summary(plan, state))
                case CancelRefused() | NotLive():
                    answered.set_result(None)
                case Declined(failure=failure):
                    answered.set_exception(unavailable(ErrorReason.SHUTTING_DOWN, failure.message))

        self._engine.cancel(saga_id, Cancel(reason=request.reason, actor=request.actor), answer)
        saga = await answered
        return coordinator_pb2.CancelSagaResponse(saga=saga if saga is not None else await self._cancelled_before(saga_id))

    async def _cancelled_before(self, saga_id: SagaId) -> saga_pb2.Saga:
        """The engine does not hold the saga any more: either it was cancelled before, or it is too late."""
        saga = await self._views.get(saga_id)
        if saga.status == saga_pb2.SAGA_STATUS_COMPENSATED and saga.cause == saga_pb2.TURN_BACK_CAUSE_CANCELLED:
            return saga
        status = saga_pb2.SagaStatus.Name(saga.status).removeprefix("SAGA_STATUS_")
        raise refusal(
            grpc.StatusCode.FAILED_PRECONDITION,
            ErrorReason.SAGA_ALREADY_ENDED,
            f"saga {saga_id} cannot be cancelled: it is {status}",
            saga_id=saga_id,
            status=status,
        )

    async def _definition(self, reference: saga_pb2.DefinitionReference) -> CompiledDefinition:
        name = requests.definition_name_of(reference.name, "definition.name")
        compiled = await self._catalog.find(name, reference.version)
        if compiled is None:
            which = f"{reference.name!r} version {reference.version}" if reference.version else f"{reference.name!r}"
            message = f"definition {which} is not registered; register it, or list what there is with ListDefinitions"
            raise not_found(ErrorReason.DEFINITION_NOT_FOUND, "saga.v1.SagaDefinition", reference.name, message)
        return compiled

    async def _mismatches(self, compiled: CompiledDefinition) -> list[Problem]:
        """Where the definition contradicts what known participants say (R9). One that is not here cannot be asked, and refuses nothing."""
        names = sorted({step.action.partition(".")[0] for step in compiled.message.steps})
        described = await asyncio.gather(*(self._participants.describe(name) for name in names))
        return list(find_mismatches(compiled.message, dict(zip(names, described, strict=True))))


def _text(value: str | bytes) -> str:
    return value if isinstance(value, str) else value.decode("ascii", "replace")
