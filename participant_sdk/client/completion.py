"""Finishing the steps that a participant answered with Accepted, and telling that it still works on them (R24).

Whoever has the completion token may do it: the participant itself, the web server that a person's approval arrives at, or a batch
job on another machine. `Participant.completing` uses these calls after it has stored the result; without a barrier they are used by
themselves, through `SagaClient`.
"""

from collections.abc import Awaitable
from dataclasses import dataclass
from datetime import timedelta
from typing import Final, Protocol, TypeVar

import grpc
from google.protobuf.any_pb2 import Any as PackedAny
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message

from participant_sdk.client.calls import call
from participant_sdk.client.errors import CoordinatorError, CoordinatorUnavailable, InvalidRequest, NotNow
from participant_sdk.client.retries import Retries
from participant_sdk.client.values import packed
from participant_sdk.completion_token import CompletionIdentity, TokenInvalidError, read_token
from participant_sdk.errors import Rejected
from participant_sdk.rpc_errors import ErrorReason
from saga.v1 import coordinator_pb2, coordinator_pb2_grpc, participant_pb2

PROGRESS_BYTES_MAX: Final = 16 * 1024
"""Largest progress of a heartbeat: 16 KiB."""

ResponseT = TypeVar("ResponseT")


class StepNotWaitingError(NotNow):
    """The step does not wait for this any more: it was completed otherwise, its time is over, or its saga has turned back.

    What was said stands in the saga's history and changes nothing. If the saga turned back, Compensate has come or will come.
    """


class CompletionTokenInvalidError(InvalidRequest):
    """The token was not made by this coordinator. Give the one that came with Execute, as `step.completion_token` has it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Heartbeat:
    """What the coordinator says about an accepted step."""

    time_left: timedelta
    """Until when it must be completed, from now; zero if it is not wanted any more."""
    is_cancelled: bool
    """Whether it is not wanted any more: stop, and undo what is begun when Compensate comes."""
    is_turn_back_requested: bool
    """Whether the saga shall turn back although this step, its pivot, may go on to its end."""


class StepCompleter(Protocol):
    """What can tell the coordinator how an accepted step ended: a `SagaClient`."""

    async def complete_step(self, token: str, output: Message) -> bool:
        """See `complete_step` of this module."""

    async def reject_step(self, token: str, rejection: Rejected | participant_pb2.Rejected) -> bool:
        """See `reject_step` of this module."""


class HeartbeatSender(Protocol):
    """What can tell the coordinator that an accepted step is worked on: a `SagaClient`."""

    async def heartbeat(self, token: str, *, time_limit: timedelta | None = None, progress: object | None = None) -> Heartbeat:
        """See `heartbeat` of this module."""


class StepVoice(StepCompleter, HeartbeatSender, Protocol):
    """Both."""


async def complete_step(service: "coordinator_pb2_grpc.SagaServiceAsyncStub", token: str, output: object, *, retries: Retries) -> bool:
    """Tells that the step took effect. `output`: what its action returns, or a `google.protobuf.Any` that holds it already.

    True if the coordinator knew it already. Safe to repeat with the same output; before the acceptance has reached the coordinator
    the result is kept.

    Raises StepNotWaitingError if it is too late; CompletionTokenInvalidError; InvalidRequest if the output is of another type than
    the saga's definition says; SagaNotFound; CoordinatorUnavailable.
    """
    succeeded = participant_pb2.Succeeded(output=output if isinstance(output, PackedAny) else packed(output))
    return await _complete(service, coordinator_pb2.CompleteStepRequest(completion_token=token, succeeded=succeeded), retries)


async def reject_step(
    service: "coordinator_pb2_grpc.SagaServiceAsyncStub",
    token: str,
    rejection: Rejected | participant_pb2.Rejected,
    *,
    retries: Retries,
) -> bool:
    """Tells that the step is refused: `Rejected("DENIED", "not this year")`. True if the coordinator knew it already.

    A rejection that no barrier has sealed is not taken for clean, since the step was accepted before (R5): the step ends UNKNOWN and
    is compensated. `Participant.completing` seals, and gives the message of the wire that says so.

    Raises like `complete_step`.
    """
    wire = participant_pb2.Rejected(status=rejection.to_status()) if isinstance(rejection, Rejected) else rejection
    return await _complete(service, coordinator_pb2.CompleteStepRequest(completion_token=token, rejected=wire), retries)


async def heartbeat(
    service: "coordinator_pb2_grpc.SagaServiceAsyncStub",
    token: str,
    *,
    retries: Retries,
    time_limit: timedelta | None = None,
    progress: object | None = None,
) -> Heartbeat:
    """Tells that the step is worked on, and learns whether it is still wanted.

    `time_limit`: how long it may take from now, 1 s to 366 days; None: as long as was said when it was accepted. It never shortens.
    `progress`: how far it is, for people; any message of at most 16 KiB; None: nothing new.

    Raises StepNotWaitingError if it was completed; CompletionTokenInvalidError; InvalidRequest; SagaNotFound; CoordinatorUnavailable.
    """
    request = coordinator_pb2.HeartbeatStepRequest(
        completion_token=token,
        time_limit=_duration(time_limit),
        progress=checked_progress(progress),
    )
    identity = identity_of(token)
    doing = f"send a heartbeat of step {identity.step_id}"
    answer = await _refined(call(service.HeartbeatStep, request, retries=retries, doing=doing, saga_id=identity.saga_id))
    return Heartbeat(
        time_left=answer.time_left.ToTimedelta(),
        is_cancelled=answer.cancelled,
        is_turn_back_requested=answer.turn_back_requested,
    )


def checked_progress(progress: object | None) -> PackedAny | None:
    """The progress as it travels. Raises ValueError if it is too large."""
    if progress is None:
        return None
    payload = progress if isinstance(progress, PackedAny) else packed(progress)
    if len(payload.value) > PROGRESS_BYTES_MAX:
        raise ValueError(f"a progress has at most {PROGRESS_BYTES_MAX} bytes, found {len(payload.value)}; keep it for people to read")
    return payload


async def _complete(
    service: "coordinator_pb2_grpc.SagaServiceAsyncStub", request: coordinator_pb2.CompleteStepRequest, retries: Retries
) -> bool:
    identity = identity_of(request.completion_token)
    doing = f"complete step {identity.step_id}"
    answer = await _refined(call(service.CompleteStep, request, retries=retries, doing=doing, saga_id=identity.saga_id))
    return answer.repeated


async def _refined(answer: Awaitable[ResponseT]) -> ResponseT:
    """Raises the errors that only these calls know, by reason and code as all others."""
    try:
        return await answer
    except CoordinatorUnavailable:
        raise
    except CoordinatorError as error:
        if error.reason == ErrorReason.COMPLETION_TOKEN_INVALID:
            raise CompletionTokenInvalidError(str(error), status=error.status, saga_id=error.saga_id) from error
        # Whatever about the saga forbids it, for who has the token it is the same: too late. A code without a reason of ours comes
        # from something in between, and says nothing.
        is_refused = error.status is not None and error.status.code == grpc.StatusCode.FAILED_PRECONDITION.value[0]
        if is_refused and error.reason:
            raise StepNotWaitingError(str(error), status=error.status, saga_id=error.saga_id) from error
        raise


def identity_of(token: str) -> CompletionIdentity:
    """Which step a token completes. Raises CompletionTokenInvalidError if it is none at all; who made it is not checked here."""
    try:
        return read_token(token)[0]
    except TokenInvalidError as error:
        raise CompletionTokenInvalidError(f"nothing was done: {error}") from error


def _duration(time_limit: timedelta | None) -> Duration | None:
    if time_limit is None:
        return None
    duration = Duration()
    duration.FromTimedelta(time_limit)
    return duration
