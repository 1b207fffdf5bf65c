"""One call to the coordinator, repeated until it is answered or its time is over.

Only calls that are safe to repeat go through here: reads, registrations, starts, which always carry a saga id (R2), and what people
do to sagas: the state of the saga decides whether it still applies, so that a repetition is at worst refused.
"""

from collections.abc import Awaitable
from typing import Final, Protocol, TypeVar

import grpc
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2

from participant_sdk.client.errors import CoordinatorUnavailable, to_client_error
from participant_sdk.client.retries import Retries
from participant_sdk.client.telemetry import Metadata
from participant_sdk.rpc_errors import find_detail, from_rpc_error

ATTEMPT_TIMEOUT_S: Final = 10.0
"""Longest attempt of a call that the coordinator answers at once; then it counts as lost and is repeated."""
PAUSE_MAX_S: Final = 10.0
"""Longest wait that the coordinator can ask for with RetryInfo."""

RequestT = TypeVar("RequestT", bound=Message)
ResponseT = TypeVar("ResponseT", bound=Message)
_RequestT_contra = TypeVar("_RequestT_contra", bound=Message, contravariant=True)
_ResponseT_co = TypeVar("_ResponseT_co", bound=Message, covariant=True)


class Method(Protocol[_RequestT_contra, _ResponseT_co]):
    """A method of a stub, or what is called like one. Raises AioRpcError."""

    def __call__(self, request: _RequestT_contra, /, *, timeout: float, metadata: Metadata) -> Awaitable[_ResponseT_co]:
        """Calls it once."""


async def call(
    method: Method[RequestT, ResponseT],
    request: RequestT,
    *,
    retries: Retries,
    doing: str,
    saga_id: str | None = None,
    metadata: Metadata = (),
    attempt_timeout_s: float = ATTEMPT_TIMEOUT_S,
) -> ResponseT:
    """Calls until it is answered. `doing` says what is asked, for messages: "start place-order".

    Raises the CoordinatorError for what was answered; CoordinatorUnavailable when nothing was, within the time of `retries`.
    """
    while True:
        try:
            response = await method(request, timeout=retries.begin_attempt(attempt_timeout_s), metadata=metadata)
        except grpc.aio.AioRpcError as error:
            await pause_or_raise(error, retries=retries, doing=doing, saga_id=saga_id)
        else:
            return response


async def pause_or_raise(error: grpc.aio.AioRpcError, *, retries: Retries, doing: str, saga_id: str | None) -> None:
    """Waits, if what failed may be tried again and there is time for it; raises the error for it otherwise."""
    status = from_rpc_error(error)
    problem = to_client_error(status, doing=doing, saga_id=saga_id, may_be_done=retries.was_unanswered)
    if not isinstance(problem, CoordinatorUnavailable) or not await retries.wait_before_next(_asked_pause_s(status)):
        raise problem from error


def _asked_pause_s(status: status_pb2.Status) -> float:
    asked = find_detail(status, error_details_pb2.RetryInfo)
    return min(max(0.0, asked.retry_delay.ToTimedelta().total_seconds()), PAUSE_MAX_S) if asked is not None else 0.0
