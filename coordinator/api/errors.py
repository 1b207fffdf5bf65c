"""Refusals of the API: each is a google.rpc.Status with details, and every method ends in an answer or in one of these."""

import functools
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from itertools import islice
from typing import Final, TypeVar

import grpc
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2

from coordinator.core.errors import CorruptJournalError, Refusal
from coordinator.core.values import SagaId
from coordinator.engine.commands import CommandRefused
from coordinator.engine.ports import JournalUnavailableError
from participant_sdk.definitions.problems import PROBLEMS_MAX, Problem
from participant_sdk.rpc_errors import ErrorReason, abort_with, error_details, status_with

RETRY_DELAY: Final = Duration(seconds=1)
"""What a caller is told to wait before it asks again."""

_REFUSALS: Final[dict[Refusal, tuple[grpc.StatusCode, ErrorReason]]] = {
    Refusal.SAGA_ENDED: (grpc.StatusCode.FAILED_PRECONDITION, ErrorReason.SAGA_ALREADY_ENDED),
    Refusal.SAGA_STATUS: (grpc.StatusCode.FAILED_PRECONDITION, ErrorReason.SAGA_STATUS),
    Refusal.NO_RETURN: (grpc.StatusCode.FAILED_PRECONDITION, ErrorReason.POINT_OF_NO_RETURN_PASSED),
    Refusal.NO_SUCH_STEP: (grpc.StatusCode.NOT_FOUND, ErrorReason.STEP_NOT_FOUND),
    Refusal.NO_SUCH_INCIDENT: (grpc.StatusCode.NOT_FOUND, ErrorReason.INCIDENT_NOT_FOUND),
    Refusal.STEP_STATUS: (grpc.StatusCode.FAILED_PRECONDITION, ErrorReason.STEP_STATUS),
    Refusal.UNDER_WAY: (grpc.StatusCode.FAILED_PRECONDITION, ErrorReason.ATTEMPT_UNDER_WAY),
    Refusal.INPUT_FIXED: (grpc.StatusCode.FAILED_PRECONDITION, ErrorReason.STEP_INPUT_FIXED),
    Refusal.TYPE_MISMATCH: (grpc.StatusCode.INVALID_ARGUMENT, ErrorReason.INPUT_TYPE_MISMATCH),
    Refusal.TOO_LATE: (grpc.StatusCode.FAILED_PRECONDITION, ErrorReason.STEP_NOT_WAITING),
}
"""What callers are told when the state of a saga forbids a command."""

_logger = logging.getLogger(__name__)
_Service = TypeVar("_Service")
_Request = TypeVar("_Request", bound=Message)
_Response = TypeVar("_Response", bound=Message)
CallContext = grpc.aio.ServicerContext[Message, Message]
"""The context of any call; what is used of it does not depend on the messages."""
_Unary = Callable[[_Service, _Request, CallContext], Awaitable[_Response]]
_Streaming = Callable[[_Service, _Request, CallContext], AsyncIterator[_Response]]


class RefusedError(Exception):
    """A request is refused; carries the whole status."""

    def __init__(self, status: status_pb2.Status) -> None:
        super().__init__(status.message)
        self.status = status


def refusal(code: grpc.StatusCode, reason: ErrorReason, message: str, **metadata: str) -> RefusedError:
    """A refusal that programs can tell apart by its reason."""
    return RefusedError(status_with(code, message, error_details(reason, **metadata)))


def invalid(problems: Iterable[Problem], reason: ErrorReason = ErrorReason.REQUEST_INVALID) -> RefusedError:
    """INVALID_ARGUMENT with one field violation per problem, all at once, up to PROBLEMS_MAX."""
    listed = list(islice(problems, PROBLEMS_MAX))
    bad_request = error_details_pb2.BadRequest(
        field_violations=[
            error_details_pb2.BadRequest.FieldViolation(field=problem.field, description=problem.description) for problem in listed
        ]
    )
    message = "; ".join(f"{problem.field}: {problem.description}" for problem in listed)
    return RefusedError(status_with(grpc.StatusCode.INVALID_ARGUMENT, message, error_details(reason), bad_request))


def not_found(reason: ErrorReason, kind: str, name: str, message: str) -> RefusedError:
    """NOT_FOUND with the name of what is missing."""
    resource = error_details_pb2.ResourceInfo(resource_type=kind, resource_name=name)
    return RefusedError(status_with(grpc.StatusCode.NOT_FOUND, message, error_details(reason), resource))


def refusal_of_command(saga_id: SagaId, refused: CommandRefused) -> RefusedError:
    """The state of a saga forbids a command; nothing was changed."""
    code, reason = _REFUSALS[refused.refusal]
    return refusal(code, reason, refused.message, saga_id=saga_id, status=refused.status.name)


def unavailable(reason: ErrorReason, message: str) -> RefusedError:
    """UNAVAILABLE: the same request may be sent again after the delay."""
    return _later(grpc.StatusCode.UNAVAILABLE, reason, message)


def overloaded(message: str) -> RefusedError:
    """RESOURCE_EXHAUSTED: there is too much to do already; the same request may be sent again after the delay."""
    return _later(grpc.StatusCode.RESOURCE_EXHAUSTED, ErrorReason.OVERLOADED, message)


def _later(code: grpc.StatusCode, reason: ErrorReason, message: str) -> RefusedError:
    retry_info = error_details_pb2.RetryInfo(retry_delay=RETRY_DELAY)
    return RefusedError(status_with(code, message, error_details(reason), retry_info))


def answers_errors(method: _Unary[_Service, _Request, _Response]) -> _Unary[_Service, _Request, _Response]:
    """Wraps a unary method so that whatever it raises becomes a status."""

    @functools.wraps(method)
    async def answered(self: _Service, request: _Request, context: CallContext) -> _Response:
        try:
            return await method(self, request, context)
        except Exception as error:
            status = status_of(error, method.__name__)
        return await abort_with(context, status)

    return answered


def streams_errors(method: _Streaming[_Service, _Request, _Response]) -> _Streaming[_Service, _Request, _Response]:
    """Wraps a server-streaming method so that whatever it raises becomes a status."""

    @functools.wraps(method)
    async def answered(self: _Service, request: _Request, context: CallContext) -> AsyncIterator[_Response]:
        try:
            async for response in method(self, request, context):
                yield response
        except Exception as error:
            status = status_of(error, method.__name__)
        else:
            return
        await abort_with(context, status)

    return answered


def status_of(error: Exception, method: str) -> status_pb2.Status:
    """What callers are told of an error. One that nobody foresaw is logged, with the method that it came from."""
    if isinstance(error, RefusedError):
        return error.status
    if isinstance(error, JournalUnavailableError):
        return unavailable(ErrorReason.JOURNAL_UNAVAILABLE, f"the database cannot be reached now: {error}").status
    if isinstance(error, CorruptJournalError):
        return status_with(grpc.StatusCode.DATA_LOSS, f"this saga's journal cannot be read: {error}")
    _logger.error("request failed", exc_info=error, extra={"rpc.method": method})
    return status_with(grpc.StatusCode.INTERNAL, f"{type(error).__name__}: this is a defect of the coordinator; its log says more")
