"""Steps that their participants finish later: CompleteStep and HeartbeatStep (R24)."""

from typing import Final

import grpc

from coordinator.api.checks import check_payload, find_in_duration, find_unreadable, refuse_if_any, step_of
from coordinator.api.errors import invalid, refusal
from coordinator.api.saga_commands import SagaCommands
from coordinator.api.views import SagaViews
from coordinator.codec.completion_tokens import CompletionTokens
from coordinator.codec.outcomes import failure_of_participant
from coordinator.codec.values import payload_of, to_duration
from coordinator.core.events import LateOutcome
from coordinator.core.inputs import CompleteStep, Heartbeat, Rejected, Succeeded
from coordinator.core.state import SagaState, StepState
from coordinator.core.values import MICROS_PER_SECOND, Code, Failure, Instant, SagaId, SagaStatus, StepId, StepKind, StepStatus
from coordinator.engine.commands import CommandAccepted
from participant_sdk.completion_token import CompletionIdentity, TokenInvalidError
from participant_sdk.definitions.durations import micros_of
from participant_sdk.definitions.problems import Problem
from participant_sdk.rpc_errors import ErrorReason
from saga.v1 import coordinator_pb2, participant_pb2

HEARTBEAT_US_MIN: Final = MICROS_PER_SECOND
HEARTBEAT_US_MAX: Final = 366 * 86_400 * MICROS_PER_SECOND
"""How long a heartbeat can let a step take from now."""
PROGRESS_BYTES_MAX: Final = 16 * 1024
"""Type and content of what a heartbeat tells: it is written to the journal."""


class Completions:
    """Answers participants that finish steps later. A token is believed only if this coordinator made it."""

    def __init__(
        self,
        *,
        tokens: CompletionTokens,
        views: SagaViews,
        commands: SagaCommands,
        payload_bytes_max: int,
    ) -> None:
        self._tokens = tokens
        self._views = views
        self._commands = commands
        self._payload_bytes_max = payload_bytes_max

    async def complete(self, request: coordinator_pb2.CompleteStepRequest) -> coordinator_pb2.CompleteStepResponse:
        """Finishes a step. Refuses a result that does not fit, without recording anything, and one that comes too late."""
        identity = self._identity(request.completion_token)
        command = CompleteStep(step_id=StepId(identity.step_id), round=identity.round, result=await self._result(identity, request))

        def read(accepted: CommandAccepted) -> tuple[bool, bool]:
            return not accepted.events, any(isinstance(event.fact, LateOutcome) for event in accepted.events)

        is_repeated, is_late = await self._commands.give(SagaId(identity.saga_id), command, read)
        if is_late:
            message = f"step {identity.step_id!r} of saga {identity.saga_id} was settled before; what was sent is kept in its history only"
            raise refusal(grpc.StatusCode.FAILED_PRECONDITION, ErrorReason.STEP_NOT_WAITING, message, saga_id=identity.saga_id)
        return coordinator_pb2.CompleteStepResponse(repeated=is_repeated)

    async def heartbeat(self, request: coordinator_pb2.HeartbeatStepRequest) -> coordinator_pb2.HeartbeatStepResponse:
        """Extends the time of a step, and tells whether it is still wanted. Refuses one that was completed."""
        refuse_if_any(_find_in_heartbeat(request))
        identity = self._identity(request.completion_token)
        step_id = StepId(identity.step_id)
        command = Heartbeat(
            step_id=step_id,
            round=identity.round,
            time_limit_us=micros_of(request.time_limit) if request.HasField("time_limit") else None,
            progress=payload_of(request.progress) if request.HasField("progress") else None,
        )

        def read(accepted: CommandAccepted) -> coordinator_pb2.HeartbeatStepResponse:
            step = accepted.state.step(accepted.plan, step_id)
            assert step is not None, "a heartbeat is accepted only for a step"
            return heartbeat_answer(accepted.state, step, accepted.now)

        return await self._commands.give(SagaId(identity.saga_id), command, read)

    def _identity(self, token: str) -> CompletionIdentity:
        try:
            return self._tokens.read(token)
        except TokenInvalidError as error:
            raise invalid([Problem("completion_token", str(error))], ErrorReason.COMPLETION_TOKEN_INVALID) from error

    async def _result(self, identity: CompletionIdentity, request: coordinator_pb2.CompleteStepRequest) -> Succeeded | Rejected:
        match request.WhichOneof("result"):
            case "succeeded":
                return await self._succeeded(identity, request.succeeded)
            case "rejected":
                return Rejected(failure=_failure_of(request.rejected), sealed=request.rejected.sealed)
            case _:
                raise invalid([Problem("result", "expected how the step ended: succeeded with its output, or rejected; found neither")])

    async def _succeeded(self, identity: CompletionIdentity, result: participant_pb2.Succeeded) -> Succeeded:
        """The output, checked against what the definition says, BEFORE anything is recorded."""
        compiled = await self._views.definition_of(SagaId(identity.saga_id))
        step = step_of(compiled, identity.step_id)
        output = check_payload(
            result.output,
            "succeeded.output",
            lambda given: compiled.canonical_output(step.id, given),
            expected_type=step.output_type,
            payload_bytes_max=self._payload_bytes_max,
        )
        return Succeeded(output=output)


def heartbeat_answer(state: SagaState, step: StepState, now: Instant) -> coordinator_pb2.HeartbeatStepResponse:
    """Whether a participant is to go on with a step that has not been completed, and how long it may take."""
    if step.status is StepStatus.ACCEPTED and step.accepted_until is not None:
        left_us = max(step.accepted_until - now, 0)
    elif step.status is StepStatus.EXECUTING and state.status is not SagaStatus.COMPENSATING:
        left_us = step.plan.attempt_timeout_us  # the beat overtook the answer that accepts the step
    else:
        return coordinator_pb2.HeartbeatStepResponse(time_left=to_duration(0), cancelled=True)
    shall_turn_back = state.turn_back_requested is not None and step.plan.kind is StepKind.PIVOT
    return coordinator_pb2.HeartbeatStepResponse(time_left=to_duration(left_us), turn_back_requested=shall_turn_back)


def _find_in_heartbeat(request: coordinator_pb2.HeartbeatStepRequest) -> list[Problem]:
    problems: list[Problem] = []
    if request.HasField("time_limit"):
        problems.extend(find_in_duration(request.time_limit, "time_limit", HEARTBEAT_US_MIN, HEARTBEAT_US_MAX))
    if request.HasField("progress"):
        problems.extend(find_unreadable(lambda: payload_of(request.progress), "progress"))
        size = request.progress.ByteSize()
        if size > PROGRESS_BYTES_MAX:
            problems.append(Problem("progress", f"expected at most {PROGRESS_BYTES_MAX} bytes, found {size}"))
    return problems


def _failure_of(rejected: participant_pb2.Rejected) -> Failure:
    """Why a participant refuses a step, bounded like every failure of participants."""
    failure = failure_of_participant(rejected.status)
    if failure.code != 0:
        return failure
    return Failure(Code.FAILED_PRECONDITION, failure.message or "rejected without a reason", failure.details)
