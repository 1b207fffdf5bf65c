"""Looking over the shoulder of a participant: what arrives, whether a handler ran, what was answered, and what took effect."""

import asyncio
import inspect
from contextlib import AbstractAsyncContextManager
from contextvars import ContextVar
from datetime import timedelta
from typing import Any, Final, Protocol, TypeAlias, cast

import grpc
from google.protobuf.any_pb2 import Any as PackedAny
from google.rpc import status_pb2

from participant_sdk.barrier.barrier import Barrier, RunCompensate, RunExecute
from participant_sdk.barrier.completions import OpenCompletion, StoredResult
from participant_sdk.barrier.outcomes import (
    CompensateAnswer,
    CompensateOutcome,
    ExecuteAnswer,
    ExecuteOutcome,
    HandlerFailed,
    HandlerRejected,
)
from participant_sdk.barrier.verdict import CompensateCall, CompletionCall, ExecuteCall
from participant_sdk.effects import Effect
from participant_sdk.errors import Rejected
from participant_sdk.rpc_errors import abort_with, status_with
from participant_sdk.step_context import SessionSource
from participant_sdk.testing.ledger import Call, CallOutcome
from saga.v1 import participant_pb2, participant_pb2_grpc

Context: TypeAlias = "grpc.aio.ServicerContext[object, object]"
_REJECTIONS: Final = frozenset(
    {
        grpc.StatusCode.INVALID_ARGUMENT,
        grpc.StatusCode.NOT_FOUND,
        grpc.StatusCode.ALREADY_EXISTS,
        grpc.StatusCode.FAILED_PRECONDITION,
        grpc.StatusCode.OUT_OF_RANGE,
    }
)
"""R6."""
REFUSED: Final = Rejected("REFUSED", "refused by the test")

_current: ContextVar[Call | None] = ContextVar("call that is being served", default=None)


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


class ObservedServicer(participant_pb2_grpc.ParticipantServiceServicer):
    """Any participant, seen."""

    def __init__(self, inner: participant_pb2_grpc.ParticipantServiceServicer, observer: Observer, *, has_sdk: bool) -> None:
        """`has_sdk`: whether its barriers are observed ones, which see more."""
        self._inner = inner
        self._observer = observer
        self._has_sdk = has_sdk

    async def Describe(self, request: participant_pb2.DescribeRequest, context: Context) -> participant_pb2.DescribeResponse:  # noqa: N802
        return cast("participant_pb2.DescribeResponse", await _answer_of(self._inner.Describe(request, cast("Any", context))))

    async def Exchange(self, request_iterator: object, context: Context) -> None:  # type: ignore[override] # noqa: N802 - ends at once
        await context.abort(grpc.StatusCode.UNIMPLEMENTED, "calls are observed one by one here")

    async def Execute(self, request: participant_pb2.ExecuteRequest, context: Context) -> participant_pb2.ExecuteResponse:  # noqa: N802
        call = self._begin(request, is_undo=False, execute_key=request.key)
        if not self._has_sdk and self._observer.is_refused(request.step_id):
            call.outcome, call.error = CallOutcome.REJECTED, str(REFUSED)
            await abort_with(context, REFUSED.to_status())
        response = await self._serve(call, self._inner.Execute(request, cast("Any", context)), context)
        assert isinstance(response, participant_pb2.ExecuteResponse)
        return response

    async def Compensate(self, request: participant_pb2.CompensateRequest, context: Context) -> participant_pb2.CompensateResponse:  # noqa: N802
        call = self._begin(request, is_undo=True, execute_key=request.execute_key)
        response = await self._serve(call, self._inner.Compensate(request, cast("Any", context)), context)
        assert isinstance(response, participant_pb2.CompensateResponse)
        return response

    def _begin(
        self, request: "participant_pb2.ExecuteRequest | participant_pb2.CompensateRequest", *, is_undo: bool, execute_key: str
    ) -> Call:
        call = Call(
            saga_id=request.saga_id,
            step_id=request.step_id,
            action=request.action,
            is_undo=is_undo,
            key=request.key,
            execute_key=execute_key,
            attempt=request.attempt,
            packed_input=request.input,
            arrived_s=asyncio.get_running_loop().time(),
        )
        self._observer.arrived(call)
        return call

    async def _serve(self, call: Call, serving: object, context: Context) -> object:
        token = _current.set(call)
        try:
            response = await _answer_of(serving)
        except asyncio.CancelledError:
            call.outcome = CallOutcome.CUT
            raise
        except BaseException as error:
            code = getattr(context, "code", None)
            call.outcome = CallOutcome.REJECTED if code in _REJECTIONS else CallOutcome.FAILED
            call.error = str(getattr(context, "details", "") or error)
            raise
        else:
            _note_response(call, response)
            return response
        finally:
            _current.reset(token)
            call.ended_s = asyncio.get_running_loop().time()
            if call.outcome is not CallOutcome.CUT:
                self._observer.answered(call)


class ObservedBarrier:
    """A participant's own barrier, seen. Implements `Barrier`."""

    def __init__(self, inner: Barrier, observer: Observer) -> None:
        self._inner = inner
        self._observer = observer

    @property
    def is_effect_once(self) -> bool:
        return self._inner.is_effect_once

    @property
    def retention(self) -> timedelta | None:
        return self._inner.retention

    async def execute(self, call: ExecuteCall, run: RunExecute) -> ExecuteAnswer:
        noted = _current.get()

        async def run_seen(sessions: SessionSource) -> ExecuteOutcome:
            if self._observer.is_refused(call.step.step_id):
                return HandlerRejected(status=REFUSED.to_status())
            outcome = await run(sessions)
            if noted is not None:
                noted.handler_ran = True
                if self._observer.dies(noted):
                    return _died()
            return outcome

        answer = await self._inner.execute(call, run_seen)
        if noted is not None:
            noted.is_guarded = self._inner.is_effect_once and call.effect is Effect.DATABASE
            did = isinstance(answer, participant_pb2.ExecuteResponse) and answer.WhichOneof("outcome") in {"succeeded", "accepted"}
            noted.took_effect = noted.handler_ran and did
        return answer

    async def compensate(self, call: CompensateCall, claimed: PackedAny | None, run: RunCompensate) -> CompensateAnswer:
        noted = _current.get()

        async def run_seen(sessions: SessionSource, output: PackedAny | None) -> CompensateOutcome:
            outcome = await run(sessions, output)
            if noted is not None:
                noted.handler_ran = True
                if self._observer.dies(noted):
                    return _died()
            return outcome

        answer = await self._inner.compensate(call, claimed, run_seen)
        if noted is not None:
            noted.is_guarded = self._inner.is_effect_once and call.effect is Effect.DATABASE
            did = isinstance(answer, participant_pb2.CompensateResponse) and answer.HasField("compensated")
            noted.took_effect = noted.handler_ran and did
        return answer

    def completing(self, call: CompletionCall) -> AbstractAsyncContextManager[OpenCompletion | StoredResult]:
        return self._inner.completing(call)

    async def check(self) -> None:
        await self._inner.check()

    async def delete_expired(self, limit: int) -> int:
        return await self._inner.delete_expired(limit)


def _died() -> HandlerFailed:
    return HandlerFailed(status=status_with(grpc.StatusCode.UNAVAILABLE, "the participant's process died before it committed"))


async def _answer_of(serving: object) -> object:
    """Servicers of gRPC have methods that are coroutines, or plain ones."""
    return await serving if inspect.isawaitable(serving) else serving


def _note_response(call: Call, response: object) -> None:
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
