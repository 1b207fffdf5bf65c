"""Calls at a participant that somebody looks at: their beginning, and what is noted of their end."""

import asyncio
from contextvars import ContextVar
from typing import Final, Protocol

import grpc
from google.rpc import status_pb2

from participant_sdk.errors import Rejected
from participant_sdk.testing.framed_fates import CallRequest
from participant_sdk.testing.ledger import Call, CallOutcome
from saga.v1 import participant_pb2

_REJECTIONS: Final = frozenset(
    code.value[0]
    for code in (
        grpc.StatusCode.INVALID_ARGUMENT,
        grpc.StatusCode.NOT_FOUND,
        grpc.StatusCode.ALREADY_EXISTS,
        grpc.StatusCode.FAILED_PRECONDITION,
        grpc.StatusCode.OUT_OF_RANGE,
    )
)
"""R6."""
REFUSED: Final = Rejected("REFUSED", "refused by the test")

current_call: Final[ContextVar[Call | None]] = ContextVar("call that is being served", default=None)


class Observer(Protocol):
    """Is told of calls, and has a say in them."""

    def arrived(self, call: Call, /) -> None:
        """A call has reached its participant."""

    def answered(self, call: Call, /) -> None:
        """It has ended there, and its reply is on its way."""

    def is_refused(self, step_id: str, /) -> bool:
        """Whether the participant is to refuse that step, whatever its code would say."""

    def dies(self, call: Call, /) -> bool:
        """Whether the process of the participant dies now: the handler has run and nothing is committed. Asked once per call."""


def noted_arrival(request: CallRequest, observer: Observer) -> Call:
    """A call that has just arrived; the observer is told."""
    call = Call(
        saga_id=request.saga_id,
        step_id=request.step_id,
        action=request.action,
        is_undo=isinstance(request, participant_pb2.CompensateRequest),
        key=request.key,
        execute_key=request.execute_key if isinstance(request, participant_pb2.CompensateRequest) else request.key,
        attempt=request.attempt,
        packed_input=request.input,
        arrived_s=asyncio.get_running_loop().time(),
    )
    observer.arrived(call)
    return call


def note_end(call: Call, observer: Observer) -> None:
    """It has ended now, in a way that is noted already; the observer is told if it was answered."""
    call.ended_s = asyncio.get_running_loop().time()
    if call.outcome is not CallOutcome.CUT:
        observer.answered(call)


def note_status(call: Call, code: int, words: str) -> None:
    """It was answered with a plain gRPC status."""
    call.outcome = CallOutcome.REJECTED if code in _REJECTIONS else CallOutcome.FAILED
    call.error = words


def note_response(call: Call, response: object) -> None:
    """It was answered with a message."""
    if isinstance(response, participant_pb2.CompensateResponse):
        match response.WhichOneof("outcome"):
            case "compensated":
                call.outcome = CallOutcome.UNDONE if response.compensated.handler_ran else CallOutcome.NOTHING_TO_UNDO
            case "retry_later":
                call.outcome, call.error = CallOutcome.RETRY_LATER, response.retry_later.status.message
            case _:
                call.outcome, call.error = CallOutcome.FAILED, "answered without an outcome"
        return
    assert isinstance(response, participant_pb2.ExecuteResponse)
    match response.WhichOneof("outcome"):
        case "succeeded":
            call.outcome = CallOutcome.SUCCEEDED
        case "accepted":
            call.outcome = CallOutcome.ACCEPTED
        case "rejected":
            call.outcome, call.error = CallOutcome.REJECTED, _words_of(response.rejected.status)
        case "retry_later":
            call.outcome, call.error = CallOutcome.RETRY_LATER, response.retry_later.status.message
        case _:
            call.outcome, call.error = CallOutcome.FAILED, "answered without an outcome"


def _words_of(status: status_pb2.Status) -> str:
    return str(status.message)
