"""What a request is told that gets no answer of a handler: one table for HTTP and gRPC."""

import math
from dataclasses import dataclass
from typing import Final, assert_never

import grpc
from google.rpc import error_details_pb2, status_pb2

from participant_sdk.idempotency.outcomes import (
    AnswerNotStored,
    KeyReused,
    OutcomeUnknown,
    RunBroke,
    StillRunning,
    StoreAway,
)
from participant_sdk.idempotency.verdict import WhenUnknown
from participant_sdk.rpc_errors import ErrorReason, error_details, status_with

STORE_AWAY_DELAY_S: Final = 1.0
"""When to come again while the store is away."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """A refusal in the words of both protocols."""

    reason: str
    """For programs: the reason of gRPC's ErrorInfo; in lower case the end of the problem's type."""
    title: str
    """The same for every refusal with that reason."""
    detail: str
    """What was expected, what was found, what to do next."""
    http_status: int
    grpc_code: grpc.StatusCode
    """Chosen by R6: a rejection only where nothing ran and nothing will."""
    retry_after_s: float | None = None
    """When to come again with the same key; None: coming again does not help, or is not safe."""

    @property
    def problem(self) -> dict[str, str | int]:
        """The body of an `application/problem+json`. Source: RFC 9457."""
        return {"type": self.problem_type, "title": self.title, "status": self.http_status, "detail": self.detail}

    @property
    def problem_type(self) -> str:
        return f"urn:saga:problem:{self.reason.lower().replace('_', '-')}"

    @property
    def retry_after(self) -> int | None:
        """Whole seconds, at least 1."""
        return None if self.retry_after_s is None else max(math.ceil(self.retry_after_s), 1)

    @property
    def status(self) -> status_pb2.Status:
        """The status of a gRPC call."""
        info = error_details(self.reason)
        if self.retry_after_s is None:
            return status_with(self.grpc_code, self.detail, info)
        retry = error_details_pb2.RetryInfo()
        retry.retry_delay.FromMilliseconds(int(self.retry_after_s * 1_000))
        return status_with(self.grpc_code, self.detail, info, retry)


def refusal_of(
    outcome: StillRunning | KeyReused | OutcomeUnknown | StoreAway | AnswerNotStored | RunBroke, when_unknown: WhenUnknown
) -> Refusal:
    """What is said of an outcome without an answer."""
    next_run = "runs again" if when_unknown is WhenUnknown.RUN_AGAIN else "is refused"
    match outcome:
        case StillRunning(retry_after_s=delay_s):
            return Refusal(
                reason="IDEMPOTENCY_IN_PROGRESS",
                title="A request with this key is under way",
                detail="another request with this idempotency key is still running; repeat this one with the same key",
                http_status=409,
                grpc_code=grpc.StatusCode.ABORTED,
                retry_after_s=delay_s,
            )
        case KeyReused():
            return Refusal(
                reason=ErrorReason.IDEMPOTENCY_KEY_REUSED,
                title="This key belongs to another request",
                detail="this idempotency key came before with another request; make a new key for each new request, and repeat a request "
                "byte by byte",
                http_status=422,
                grpc_code=grpc.StatusCode.INVALID_ARGUMENT,
            )
        case OutcomeUnknown():
            return Refusal(
                reason="IDEMPOTENCY_OUTCOME_UNKNOWN",
                title="Nobody knows whether this request took effect",
                detail="a request with this idempotency key ran and ended without a stored answer, and this service does not run it twice; "
                "find out whether it took effect, and only if not, send it with a new key",
                http_status=409,
                grpc_code=grpc.StatusCode.UNKNOWN,
            )
        case StoreAway():
            return Refusal(
                reason="IDEMPOTENCY_STORE_UNAVAILABLE",
                title="Idempotency keys cannot be looked up now",
                detail="the store of idempotency keys cannot be used, so nothing ran; repeat the request with the same key",
                http_status=503,
                grpc_code=grpc.StatusCode.UNAVAILABLE,
                retry_after_s=STORE_AWAY_DELAY_S,
            )
        case AnswerNotStored() | RunBroke():
            return _after_a_run(outcome, next_run)
        case _:
            assert_never(outcome)


def _after_a_run(outcome: AnswerNotStored | RunBroke, next_run: str) -> Refusal:
    if isinstance(outcome, AnswerNotStored):
        return Refusal(
            reason="IDEMPOTENCY_ANSWER_NOT_STORED",
            title="The request ran, and its answer is lost",
            detail=f"the request ran, but its answer could not be stored under its idempotency key; a repetition {next_run}; look "
            "first whether it took effect",
            http_status=500,
            grpc_code=grpc.StatusCode.UNKNOWN,
        )
    return Refusal(
        reason="IDEMPOTENCY_RUN_FAILED",
        title="The request that ran with this key failed",
        detail="the request with the same idempotency key that this one waited for failed, and nobody knows whether it took "
        f"effect; a repetition {next_run}",
        http_status=500,
        grpc_code=grpc.StatusCode.UNKNOWN,
    )


def answer_not_kept(original: str) -> Refusal:
    """A repetition of what was answered at a length that is not stored. `original`: its status, in words."""
    return Refusal(
        reason="IDEMPOTENCY_ANSWER_NOT_KEPT",
        title="The answer was too large to be kept",
        detail=f"this request ran before and was answered {original}; its body was too large to be kept, and it does not run twice",
        http_status=409,
        grpc_code=grpc.StatusCode.DATA_LOSS,
    )


def key_missing(name: str) -> Refusal:
    """The route needs a key."""
    return Refusal(
        reason="IDEMPOTENCY_KEY_MISSING",
        title="An idempotency key is needed here",
        detail=f"expected {name} with a key of its own for each request, found none; nothing ran",
        http_status=400,
        grpc_code=grpc.StatusCode.INVALID_ARGUMENT,
    )


def key_invalid(detail: str) -> Refusal:
    """What was sent is no key."""
    return Refusal(
        reason="IDEMPOTENCY_KEY_INVALID",
        title="This is not an idempotency key",
        detail=detail,
        http_status=400,
        grpc_code=grpc.StatusCode.INVALID_ARGUMENT,
    )


def request_too_large(bytes_max: int) -> Refusal:
    """The body cannot be held to be compared."""
    return Refusal(
        reason="IDEMPOTENCY_REQUEST_TOO_LARGE",
        title="The request is too large for an idempotency key",
        detail=f"expected at most {bytes_max} bytes of a request with an idempotency key, found more; nothing ran",
        http_status=413,
        grpc_code=grpc.StatusCode.INVALID_ARGUMENT,
    )


def streaming_refused(method: str) -> Refusal:
    """A stream cannot be repeated from a store."""
    return Refusal(
        reason="IDEMPOTENCY_STREAM",
        title="Streams have no idempotency key",
        detail=f"{method} is a stream, which cannot be made idempotent by a key; call it without one; nothing ran",
        http_status=400,
        grpc_code=grpc.StatusCode.INVALID_ARGUMENT,
    )
