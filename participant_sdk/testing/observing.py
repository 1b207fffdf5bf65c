"""Looking over the shoulder of a participant: what arrives, whether a handler ran, what was answered, and what took effect."""

import asyncio
import inspect
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from datetime import timedelta
from typing import Any, TypeAlias, cast

import grpc
from google.protobuf.any_pb2 import Any as PackedAny

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
from participant_sdk.rpc_errors import abort_with, status_with
from participant_sdk.step_context import SessionSource
from participant_sdk.testing.ledger import Call, CallOutcome
from participant_sdk.testing.observed_calls import (
    REFUSED,
    Observer,
    current_call,
    note_end,
    note_response,
    note_status,
    noted_arrival,
)
from participant_sdk.testing.observed_stream import ObservedStream
from saga.v1 import participant_pb2, participant_pb2_grpc

Context: TypeAlias = "grpc.aio.ServicerContext[object, object]"


class ObservedServicer(participant_pb2_grpc.ParticipantServiceServicer):
    """Any participant, seen."""

    def __init__(self, inner: participant_pb2_grpc.ParticipantServiceServicer, observer: Observer, *, has_sdk: bool) -> None:
        """`has_sdk`: whether its barriers are observed ones, which see more."""
        self._inner = inner
        self._observer = observer
        self._has_sdk = has_sdk

    async def Describe(self, request: participant_pb2.DescribeRequest, context: Context) -> participant_pb2.DescribeResponse:  # noqa: N802
        return cast("participant_pb2.DescribeResponse", await _answer_of(self._inner.Describe(request, cast("Any", context))))

    async def Exchange(  # noqa: N802 - named by gRPC
        self, request_iterator: AsyncIterator[participant_pb2.ExchangeRequest], context: Context
    ) -> AsyncIterator[participant_pb2.ExchangeResponse]:
        stream = ObservedStream(self._observer, has_sdk=self._has_sdk)
        async for response in stream.run(request_iterator, lambda seen: self._inner.Exchange(cast("Any", seen), cast("Any", context))):
            yield response

    async def Execute(self, request: participant_pb2.ExecuteRequest, context: Context) -> participant_pb2.ExecuteResponse:  # noqa: N802
        call = noted_arrival(request, self._observer)
        if not self._has_sdk and self._observer.is_refused(request.step_id):
            call.outcome, call.error = CallOutcome.REJECTED, str(REFUSED)
            await abort_with(context, REFUSED.to_status())
        response = await self._serve(call, self._inner.Execute(request, cast("Any", context)), context)
        assert isinstance(response, participant_pb2.ExecuteResponse)
        return response

    async def Compensate(self, request: participant_pb2.CompensateRequest, context: Context) -> participant_pb2.CompensateResponse:  # noqa: N802
        call = noted_arrival(request, self._observer)
        response = await self._serve(call, self._inner.Compensate(request, cast("Any", context)), context)
        assert isinstance(response, participant_pb2.CompensateResponse)
        return response

    async def _serve(self, call: Call, serving: object, context: Context) -> object:
        token = current_call.set(call)
        try:
            response = await _answer_of(serving)
        except asyncio.CancelledError:
            call.outcome = CallOutcome.CUT
            raise
        except BaseException as error:
            code = getattr(context, "code", None) or grpc.StatusCode.UNKNOWN
            note_status(call, code.value[0], str(getattr(context, "details", "") or error))
            raise
        else:
            note_response(call, response)
            return response
        finally:
            current_call.reset(token)
            note_end(call, self._observer)


class ObservedBarrier:
    """A participant's own barrier, seen. Implements `Barrier`."""

    def __init__(self, inner: Barrier, observer: Observer) -> None:
        self._inner = inner
        self._observer = observer

    @property
    def is_effect_once(self) -> bool:
        return self._inner.is_effect_once

    @property
    def is_blocking(self) -> bool:
        return self._inner.is_blocking

    @property
    def retention(self) -> timedelta | None:
        return self._inner.retention

    async def execute(self, call: ExecuteCall, run: RunExecute) -> ExecuteAnswer:
        noted = current_call.get()

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
        noted = current_call.get()

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
