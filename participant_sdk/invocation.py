"""Running a handler: its arguments, its thread if it is plain, its deadline, and what its ending means."""

import asyncio
import contextvars
import inspect
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager, nullcontext
from datetime import timedelta
from typing import Any, Final

import grpc
from google.protobuf.any_pb2 import Any as PackedAny

from participant_sdk.accepted import Accepted
from participant_sdk.actions import Action, Handler
from participant_sdk.barrier.barrier import Barrier
from participant_sdk.barrier.outcomes import (
    CompensateOutcome,
    ExecuteOutcome,
    HandlerAccepted,
    HandlerFailed,
    HandlerPostponed,
    HandlerRejected,
    HandlerSucceeded,
    HandlerUndid,
)
from participant_sdk.client.completion import Heartbeat
from participant_sdk.errors import Rejected, RetryLater
from participant_sdk.middleware import Direction, HandlerRun, around, around_plain
from participant_sdk.participant import Participant
from participant_sdk.payloads import PAYLOAD_BYTES_MAX, Payload, PayloadDecodeError, PayloadEncodeError
from participant_sdk.rpc_errors import ErrorReason, error_details, status_with
from participant_sdk.shielding import finish
from participant_sdk.signatures import ActionSignature
from participant_sdk.step_context import Step, SyncStepContext
from participant_sdk.telemetry import log_fields, record_error
from saga.v1 import participant_pb2

logger = logging.getLogger(__name__)

THREADS_MAX: Final = 32
"""Plain handlers that run at the same time in one server; further ones wait for a thread."""


class Cancellation:
    """Whether nobody waits for a call any more; what `StepContext.cancelled` of a plain handler looks at."""

    def __init__(self) -> None:
        self._is_set = False

    def set(self) -> None:
        self._is_set = True

    def __call__(self) -> bool:
        return self._is_set


class Threads:
    """Where plain handlers run. Threads are made when first needed; close it when the server has stopped."""

    def __init__(self, limit: int = THREADS_MAX) -> None:
        self._limit = limit
        self._pool: ThreadPoolExecutor | None = None

    async def run(self, call: Callable[[], object], cancellation: Cancellation) -> object:
        """Runs `call` to its end: a thread cannot be stopped, so a cancelled caller waits and tells it by `cancellation`."""
        if self._pool is None:
            self._pool = ThreadPoolExecutor(self._limit, thread_name_prefix="participant")
        pool, context = self._pool, contextvars.copy_context()

        async def in_thread() -> object:
            return await asyncio.get_running_loop().run_in_executor(pool, context.run, _without_stop_iteration, call)

        return await finish(in_thread(), when_cancelled=cancellation.set)

    def close(self) -> None:
        """Ends the threads; calls still running end by themselves. Safe to call twice."""
        if self._pool is not None:
            self._pool.shutdown(wait=False)


class BoundAction:
    """One action of one participant, ready to be called."""

    def __init__(self, participant: Participant, action: Action[Any, Any], barrier: Barrier, threads: Threads) -> None:
        self.action = action
        self.barrier = barrier
        self.signature: ActionSignature = action.signature
        self.takes_part: bool = action.signature.step_type is SyncStepContext and barrier.is_blocking
        """Whether its handlers are run where they are called: in the barrier's thread, within its database transaction."""
        self._participant = participant
        self._threads = threads

    async def execute(self, request: Payload, step: Step, cancellation: Cancellation) -> ExecuteOutcome:
        """Runs the handler. Raises CancelledError only."""
        run = HandlerRun(action=self.action, direction=Direction.EXECUTE, request=request, output=None, step=step)
        ended = await self._call(self.action.handler, (request, step), run, cancellation, is_async=self.signature.is_async)
        match ended:
            case HandlerFailed(error=Rejected() as rejected):
                return HandlerRejected(status=rejected.to_status())
            case HandlerFailed() | HandlerPostponed():
                return ended
            case Accepted() if self.signature.accepts:
                return self._accepted(ended, step)
            case _:
                return self._checked(ended)

    async def compensate(self, request: Payload, output: PackedAny | None, step: Step, cancellation: Cancellation) -> CompensateOutcome:
        """Runs the compensation handler. Raises CancelledError only."""
        handler = self.action.compensation_handler
        if handler is None:
            raise ValueError(f"{self.action.qualified_name} has no compensation")
        undone = self._output(output)
        if isinstance(undone, HandlerFailed):
            return undone
        is_async = self.signature.is_compensation_async
        run = HandlerRun(action=self.action, direction=Direction.COMPENSATE, request=request, output=undone, step=step)
        ended = await self._call(handler, (request, undone, step), run, cancellation, is_async=is_async)
        if isinstance(ended, (HandlerFailed, HandlerPostponed)):
            return ended  # R8: a rejection among them is a failed attempt, and is not stored.
        return HandlerUndid()

    async def heartbeat(self, token: str, time_limit: timedelta | None, progress: object | None) -> Heartbeat:
        """Sends one through what the participant's server has lent. Raises RuntimeError if that is nothing."""
        voice = self._participant.voice
        if voice is None:
            raise RuntimeError(
                f"{self._participant.participant_name} knows no coordinator to send heartbeats to: serve it with "
                "ParticipantServer(…, coordinator=…)"
            )
        return await voice.heartbeat(token, time_limit=time_limit, progress=progress)

    async def _call(
        self, handler: Handler, arguments: tuple[object, ...], run: HandlerRun, cancellation: Cancellation, *, is_async: bool
    ) -> object:
        """What the handler returned, or what it raised as HandlerFailed or HandlerPostponed."""
        step = run.step
        # Where calls share a commit the handler outlives its call, which nobody could end then but this.
        limit = asyncio.timeout(step.time_left().total_seconds()) if is_async else None
        try:
            if self.takes_part:
                return self._plain(handler, arguments, run)
            if limit is None:
                returned = await self._threads.run(lambda: self._plain(handler, arguments, run), cancellation)
                return await returned if inspect.isawaitable(returned) else returned
            async with limit, self._around(run):
                returned = handler(self._participant, *arguments)
                return await returned if inspect.isawaitable(returned) else returned
        except RetryLater as error:
            return HandlerPostponed(after=error.after, status=status_with(grpc.StatusCode.UNAVAILABLE, error.message))
        except Rejected as error:
            logger.info("%s refused: %s", self.action.qualified_name, error.reason, extra=log_fields(step))
            return HandlerFailed(status=status_with(grpc.StatusCode.UNKNOWN, _described(error)), error=error)
        except asyncio.CancelledError:
            if not step.time_left():
                logger.warning("%s did not end within its deadline", self.action.qualified_name, extra=log_fields(step), exc_info=True)
            raise
        except Exception as error:
            record_error(error)
            logger.exception("%s failed", self.action.qualified_name, extra=log_fields(step))
            if limit is not None and limit.expired():
                message = f"{self.action.qualified_name} did not end within its deadline"
                return HandlerFailed(status=status_with(grpc.StatusCode.DEADLINE_EXCEEDED, message), error=error)
            return HandlerFailed(status=status_with(grpc.StatusCode.UNKNOWN, _described(error)), error=error)

    def _plain(self, handler: Handler, arguments: tuple[object, ...], run: HandlerRun) -> object:
        middleware = self._participant.middleware
        with around_plain(middleware, run) if middleware else nullcontext():
            return handler(self._participant, *arguments)

    def _around(self, run: HandlerRun) -> AbstractAsyncContextManager[None]:
        middleware = self._participant.middleware
        return around(middleware, run) if middleware else nullcontext()

    def _accepted(self, accepted: Accepted, step: Step) -> HandlerAccepted | HandlerFailed:
        """What could never be completed is refused before anything is committed."""
        name, retention = self.action.qualified_name, self.barrier.retention
        if not step.completion_token:
            return _unfit(ErrorReason.ACCEPTANCE_INVALID, f"{name} returned Accepted, but was called without a completion token")
        if retention is not None and accepted.time_limit > retention:
            return _unfit(
                ErrorReason.ACCEPTANCE_INVALID,
                f"{name} was accepted for {accepted.time_limit}, but its barrier forgets keys after {retention}; give it a longer one",
            )
        response = participant_pb2.ExecuteResponse()
        response.accepted.time_limit.FromTimedelta(accepted.time_limit)
        return HandlerAccepted(response=response)

    def _checked(self, returned: object) -> HandlerSucceeded | HandlerFailed:
        """R6: type and size are checked before anything is committed."""
        expected = self.signature.response
        if type(returned) is not expected.python_type:
            return _unfit(
                ErrorReason.REPLY_TYPE_MISMATCH,
                f"{self.action.qualified_name} must return {expected.name}, found {type(returned).__qualname__}{_advice(returned)}",
            )
        try:
            output = expected.pack(returned)
        except PayloadEncodeError as error:
            return _unfit(ErrorReason.REPLY_TYPE_MISMATCH, f"{self.action.qualified_name} returned what cannot be encoded: {error}")
        if len(output.value) > PAYLOAD_BYTES_MAX:
            return _unfit(
                ErrorReason.REPLY_TOO_LARGE,
                f"{self.action.qualified_name} returned {len(output.value)} bytes, {PAYLOAD_BYTES_MAX} are allowed; "
                "store large content elsewhere and return a reference",
            )
        return HandlerSucceeded(response=participant_pb2.ExecuteResponse(succeeded=participant_pb2.Succeeded(output=output)))

    def _output(self, packed: PackedAny | None) -> Payload | HandlerFailed | None:
        """The output to undo as the compensation wants it."""
        expected = self.signature.response
        if packed is not None:
            if not expected.is_in(packed):
                return _unfit(ErrorReason.REPLY_TYPE_MISMATCH, f"expected a {expected.name} to undo, found {packed.type_url!r}")
            try:
                output: Payload = expected.unpack(packed)
            except PayloadDecodeError as error:
                return _unfit(ErrorReason.REPLY_TYPE_MISMATCH, str(error))
            return output
        if self.signature.may_output_be_missing:
            return None
        unknown: Payload | None = None if self.barrier.is_effect_once else expected.empty()
        if unknown is not None:
            return unknown
        return _unfit(
            ErrorReason.REPLY_TYPE_MISMATCH,
            f"nobody knows the output of {self.action.qualified_name}, and its compensation does not accept None: annotate it as "
            f"{expected.python_type.__name__} | None",
        )


def _advice(returned: object) -> str:
    return "; annotate it as `-> … | Accepted` to finish it later" if isinstance(returned, Accepted) else ""


def _unfit(reason: ErrorReason, message: str) -> HandlerFailed:
    logger.error("%s", message)
    return HandlerFailed(status=status_with(grpc.StatusCode.INTERNAL, message, error_details(reason)))


def _described(error: BaseException) -> str:
    try:
        return f"{type(error).__qualname__}: {error}"
    except Exception as unprintable:  # The text of an exception is the service's own code.
        return f"{type(error).__qualname__}: its text cannot be shown ({type(unprintable).__qualname__})"


def _without_stop_iteration(call: Callable[[], object]) -> object:
    try:
        return call()
    except StopIteration as error:
        # A future refuses to hold a StopIteration, and whoever waits for it would wait for ever.
        raise RuntimeError("a handler raised StopIteration") from error
