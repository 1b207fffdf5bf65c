"""Looks after sagas, from Python: why one does not move, and how to move it."""

from collections.abc import AsyncGenerator, Iterable, Sequence
from datetime import timedelta
from enum import Enum, auto
from typing import Final, TypedDict, TypeVar, Unpack

import grpc
from google.protobuf.message import Message

from participant_sdk.client.calls import call, pause_or_raise
from participant_sdk.client.connection import Connection
from participant_sdk.client.errors import CoordinatorUnavailable, to_client_error
from participant_sdk.client.selection import ActionResult, SagaSelection, result_of
from participant_sdk.client.values import checked_id, packed
from participant_sdk.policies import RetryPolicy, to_duration
from participant_sdk.rpc_errors import from_rpc_error
from saga.v1 import operator_pb2, operator_pb2_grpc, saga_pb2

PAGE_SIZE: Final = 200
"""Entries asked for at once by what pages by itself."""
BULK_TIMEOUT_S: Final = 3600.0
"""Longest call that does something to many sagas; then the rest of them is left alone."""

RequestT = TypeVar("RequestT", bound=Message)
ResponseT = TypeVar("ResponseT", bound=Message)


class Resolution(Enum):
    """How a step ended, as a person says, if it did not succeed."""

    SKIPPED = auto()
    """It had no effect and is left out: the saga goes on without it."""
    REJECTED = auto()
    """It had no effect and cannot be done: the saga turns back. Refused past the point of no return."""
    COMPENSATED = auto()
    """It is undone."""


class ByWhom(TypedDict, total=False):
    """What may be said about whatever a person does to a saga. Both stand in the history of the saga."""

    reason: str
    """Why. At most 1,024 characters."""
    actor: str
    """Who. At most 255 characters."""


class PolicyChange(ByWhom, total=False):
    """How a step is repeated from now on. What is left out stays as it was."""

    execute_retry: RetryPolicy
    """How execute is repeated; as a whole: its fields that are left out take their defaults."""
    compensate_retry: RetryPolicy
    """How compensate is repeated; as a whole too."""
    attempt_timeout: timedelta
    """Time for one attempt, in either direction."""
    execute_time_limit: timedelta
    """Time for all attempts to execute together, while the saga can still turn back."""
    compensate_time_limit: timedelta
    """Time for all attempts of recovery together, until a person is asked."""


class OperatorClient:
    """A coordinator, as those see it who look after sagas: `client.operator`.

    What changes a saga is an event in its history, with `reason` and `actor`, and returns the saga as it then stood, without
    steps and payloads. All of it raises SagaNotFound; SagaAlreadyEnded if the saga has ended or was terminated; NotNow, with
    its subclasses, if the saga or the step stands where this cannot be done; InvalidRequest for what is wrong with the
    request; CoordinatorUnavailable. A refusal changes nothing.

    Calls are repeated as those of `SagaClient` are. What was done by an attempt whose answer was lost may be refused to the
    next one: `may_be_done` of the error tells, and the history of the saga has the answer.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection: Final = connection

    # ── One saga ─────────────────────────────────────────────────────────────────────────────────────────────────────────────────

    async def explain(self, saga_id: str) -> operator_pb2.ExplainSagaResponse:
        """Why a saga stands where it stands, what will happen next and when, and what a person can do now."""
        request = operator_pb2.ExplainSagaRequest(saga_id=checked_id(saga_id))
        return await self._call(self._service.ExplainSaga, request, f"explain saga {request.saga_id}", request.saga_id)

    async def pause(self, saga_id: str, **by: Unpack[ByWhom]) -> saga_pb2.Saga:
        """Stops a saga for a while: attempts under way come to rest, nothing new starts. Its clocks run on."""
        request = operator_pb2.PauseSagaRequest(saga_id=checked_id(saga_id), **by)
        return (await self._call(self._service.PauseSaga, request, f"pause saga {request.saga_id}", request.saga_id)).saga

    async def resume(self, saga_id: str, **by: Unpack[ByWhom]) -> saga_pb2.Saga:
        """Lets a paused saga go on. What its clocks say is judged now."""
        request = operator_pb2.ResumeSagaRequest(saga_id=checked_id(saga_id), **by)
        return (await self._call(self._service.ResumeSaga, request, f"resume saga {request.saga_id}", request.saga_id)).saga

    async def terminate(self, saga_id: str, *, reason: str, actor: str = "") -> saga_pb2.Saga:
        """Ends a saga as it stands: FAILED for good. Nothing is undone by that; `SagaClient.cancel` undoes."""
        request = operator_pb2.TerminateSagaRequest(saga_id=checked_id(saga_id), reason=reason, actor=actor)
        return (await self._call(self._service.TerminateSaga, request, f"terminate saga {request.saga_id}", request.saga_id)).saga

    async def resolve_output(self, saga_id: str, output: object, *, reason: str, actor: str = "") -> saga_pb2.Saga:
        """Says what a saga returns, because the expression for it failed. `output` is of the definition's output type."""
        request = operator_pb2.ResolveOutputRequest(saga_id=checked_id(saga_id), output=packed(output), reason=reason, actor=actor)
        doing = f"resolve the output of saga {request.saga_id}"
        return (await self._call(self._service.ResolveOutput, request, doing, request.saga_id)).saga

    async def acknowledge_incident(self, saga_id: str, incident_id: int, *, reason: str, actor: str = "") -> saga_pb2.Saga:
        """Closes an incident that asks for nothing but to be known: LATE_OUTCOME. Any other is closed by what is done about it.

        Works in whatever status the saga is. Raises IncidentNotFound beside what they all raise.
        """
        request = operator_pb2.AcknowledgeIncidentRequest(saga_id=checked_id(saga_id), incident_id=incident_id, reason=reason, actor=actor)
        doing = f"acknowledge incident {incident_id} of saga {request.saga_id}"
        return (await self._call(self._service.AcknowledgeIncident, request, doing, request.saga_id)).saga

    # ── One step ─────────────────────────────────────────────────────────────────────────────────────────────────────────────────

    async def retry_step(self, saga_id: str, step_id: str, *, message: object | None = None, **by: Unpack[ByWhom]) -> saga_pb2.Saga:
        """Tries a step, or the hook, again now: one that waits for its next attempt, or one that a person is asked for.

        `message`: another input, of the step's input type, for a step that is known to have had no effect; it then gets a new
        idempotency key (R1). None: as before.

        Raises StepNotFound beside what they all raise.
        """
        request = operator_pb2.RetryStepRequest(
            saga_id=checked_id(saga_id), step_id=step_id, input=packed(message) if message is not None else None, **by
        )
        doing = f"retry step {step_id} of saga {request.saga_id}"
        return (await self._call(self._service.RetryStep, request, doing, request.saga_id)).saga

    async def resolve_step(self, saga_id: str, step_id: str, ended: object, *, reason: str, actor: str = "") -> saga_pb2.Saga:
        """Says how a step, or the hook, ended (R17).

        `ended`: a Resolution; or a message, of the step's output type: the step took effect and returned this, and is then compensated
        like any other if the saga turns back.

        Raises StepNotFound, and AttemptUnderWay while the participant still has the step, beside what they all raise.
        """
        request = operator_pb2.ResolveStepRequest(saga_id=checked_id(saga_id), step_id=step_id, reason=reason, actor=actor)
        match ended:
            case Resolution.SKIPPED:
                request.skipped.SetInParent()
            case Resolution.REJECTED:
                request.rejected.SetInParent()
            case Resolution.COMPENSATED:
                request.compensated.SetInParent()
            case _:
                request.succeeded.CopyFrom(packed(ended))
        doing = f"resolve step {step_id} of saga {request.saga_id}"
        return (await self._call(self._service.ResolveStep, request, doing, request.saga_id)).saga

    async def change_step_policy(self, saga_id: str, step_id: str, **change: Unpack[PolicyChange]) -> saga_pb2.Saga:
        """Changes how a step, or the hook, is repeated, in this saga only. At least one field of the policy must be given.

        Raises StepNotFound beside what they all raise.
        """
        execute_retry, compensate_retry = change.get("execute_retry"), change.get("compensate_retry")
        policy = saga_pb2.StepPolicy(
            execute_retry=execute_retry.to_message() if execute_retry is not None else None,
            compensate_retry=compensate_retry.to_message() if compensate_retry is not None else None,
            attempt_timeout=to_duration(change.get("attempt_timeout")),
            execute_time_limit=to_duration(change.get("execute_time_limit")),
            compensate_time_limit=to_duration(change.get("compensate_time_limit")),
        )
        request = operator_pb2.ChangeStepPolicyRequest(
            saga_id=checked_id(saga_id), step_id=step_id, policy=policy, reason=change.get("reason", ""), actor=change.get("actor", "")
        )
        doing = f"change the policy of step {step_id} of saga {request.saga_id}"
        return (await self._call(self._service.ChangeStepPolicy, request, doing, request.saga_id)).saga

    # ── Many sagas ───────────────────────────────────────────────────────────────────────────────────────────────────────────────

    async def incidents(
        self,
        *,
        include_closed: bool = False,
        kinds: Iterable[saga_pb2.IncidentKind.ValueType] = (),
        saga_id: str = "",
        definition: str = "",
    ) -> AsyncGenerator[operator_pb2.SagaIncident]:
        """All incidents for which every condition given holds, oldest first. Pages by itself."""
        request = operator_pb2.ListIncidentsRequest(
            page_size=PAGE_SIZE,
            include_closed=include_closed,
            kinds=kinds,
            saga_id=checked_id(saga_id) if saga_id else "",
            definition_name=definition,
        )
        while True:
            page = await self._call(self._service.ListIncidents, request, "list incidents", None)
            for incident in page.incidents:
                yield incident
            if not page.next_page_token:
                return
            request.page_token = page.next_page_token

    async def dry_run(self, selection: SagaSelection, action: operator_pb2.BulkAction.ValueType) -> AsyncGenerator[ActionResult]:
        """What `act_on_sagas` would do, saga by saga. Changes nothing."""
        request = operator_pb2.ActOnSagasRequest(selection=selection.to_message(), action=action, dry_run=True)
        retries = self._connection.waiting(None)
        while True:
            seen = 0
            retries.begin_attempt(BULK_TIMEOUT_S)
            stream = self._service.ActOnSagas(request, timeout=BULK_TIMEOUT_S)
            try:
                async for response in stream:
                    yield result_of(response, _verb(action))
                    seen += 1
            except grpc.aio.AioRpcError as error:
                # What was told already must not be told again.
                if seen:
                    raise to_client_error(from_rpc_error(error), doing=f"{_verb(action)} sagas") from error
                await pause_or_raise(error, retries=retries, doing=f"{_verb(action)} sagas", saga_id=None)
            else:
                return
            finally:
                stream.cancel()

    async def act_on_sagas(
        self,
        selection: SagaSelection,
        action: operator_pb2.BulkAction.ValueType,
        *,
        saga_ids: Sequence[str],
        reason: str,
        actor: str = "",
    ) -> AsyncGenerator[ActionResult]:
        """Does the same to many sagas, and tells what became of each as it goes. One refusal stops no other.

        `saga_ids`: to which, as a dry run of the same selection showed them. One that is selected no more is refused
        (NoLongerSelected); one that came to be selected since is left alone. Whoever stops listening stops the rest from being done.

        It is never repeated: after CoordinatorUnavailable, look at a new dry run. Raises InvalidRequest.
        """
        request = operator_pb2.ActOnSagasRequest(
            selection=selection.to_message(), action=action, saga_ids=saga_ids, reason=reason, actor=actor
        )
        stream = self._service.ActOnSagas(request, timeout=BULK_TIMEOUT_S)
        answered = 0
        try:
            async for response in stream:
                answered += 1
                yield result_of(response, _verb(action))
        except grpc.aio.AioRpcError as error:
            problem = to_client_error(from_rpc_error(error), doing=f"{_verb(action)} sagas")
            if not isinstance(problem, CoordinatorUnavailable):
                raise problem from error
            unclear = f"{problem}; {answered} sagas were answered for, nobody knows about the others: look at a new dry run"
            raise CoordinatorUnavailable(unclear, status=problem.status) from error
        finally:
            stream.cancel()

    async def nodes(self) -> Sequence[operator_pb2.Node]:
        """The coordinators that share the database, by their start."""
        return (await self._call(self._service.ListNodes, operator_pb2.ListNodesRequest(), "list nodes", None)).nodes

    async def cordon(self, node_id: str, *, cordoned: bool = True) -> None:
        """Has a node give up its sagas to the others and take no more; `cordoned` False: it may have some again.

        Raises NodeNotFound.
        """
        request = operator_pb2.CordonNodeRequest(node_id=node_id, cordoned=cordoned)
        await self._call(self._service.CordonNode, request, f"cordon node {node_id}", None)

    async def participants(self) -> Sequence[operator_pb2.ParticipantStanding]:
        """All participants that are registered, configured, or called by a saga, and how their calls are getting on, by name."""
        request = operator_pb2.ListParticipantsRequest()
        return (await self._call(self._service.ListParticipants, request, "list participants", None)).participants

    async def _call(
        self, method: "grpc.aio.UnaryUnaryMultiCallable[RequestT, ResponseT]", request: RequestT, doing: str, saga_id: str | None
    ) -> ResponseT:
        return await call(method, request, retries=self._connection.retries(), doing=doing, saga_id=saga_id)

    @property
    def _service(self) -> "operator_pb2_grpc.OperatorServiceAsyncStub":
        return self._connection.operator_service


def _verb(action: operator_pb2.BulkAction.ValueType) -> str:
    return operator_pb2.BulkAction.Name(action).removeprefix("BULK_ACTION_").lower()
