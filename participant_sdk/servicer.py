"""The gRPC face of participants: `saga.v1.ParticipantService` for grpc.aio servers."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from operator import attrgetter
from types import TracebackType
from typing import TypeVar

import grpc
from google.protobuf.any_pb2 import Any as PackedAny
from google.rpc import status_pb2
from opentelemetry.trace import TracerProvider

from participant_sdk.barrier.barrier import Barrier
from participant_sdk.barrier.outcomes import CompensateAnswer, CompensateOutcome, ExecuteAnswer, ExecuteOutcome
from participant_sdk.clock import Clock, wall_clock_us
from participant_sdk.describe import describe
from participant_sdk.errors import ParticipantSetupError
from participant_sdk.exchange import ExchangeSession
from participant_sdk.incoming import CallReader, time_left_s
from participant_sdk.invocation import THREADS_MAX, BoundAction, Threads
from participant_sdk.participant import Participant
from participant_sdk.rpc_errors import ErrorReason, abort_with, error_details, status_with
from participant_sdk.step_context import NoSession, SessionSource
from participant_sdk.telemetry import CallAnswer, CallRequest, ServerSpans, logger
from saga.v1 import participant_pb2, participant_pb2_grpc

RequestT = TypeVar("RequestT", bound=CallRequest)
AnswerT = TypeVar("AnswerT", bound=CallAnswer)

_NO_SESSION_IN_THREADS = NoSession(
    "step.session belongs to the event loop, and plain `def` handlers run in threads: write `async def` to use it"
)


class ParticipantServicer(participant_pb2_grpc.ParticipantServiceServicer):
    """Serves one or several participants, told apart by the part of an action before the dot.

    Add it to a grpc.aio server of your own, or let `ParticipantServer` do that. Close it after the server has stopped.
    """

    def __init__(
        self,
        *participants: Participant,
        clock: Clock = wall_clock_us,
        threads_max: int = THREADS_MAX,
        tracer_provider: TracerProvider | None = None,
        barrier_of: Callable[[Participant], Barrier] = attrgetter("barrier"),
    ) -> None:
        """`threads_max`: plain handlers at the same time. `tracer_provider`: None for the global one of OpenTelemetry.

        `barrier_of`: what guards the calls of a participant; its own, unless a test looks on.
        """
        if not participants:
            raise ParticipantSetupError("expected at least one participant to serve, found none")
        self._threads = Threads(threads_max)
        self._participants: dict[str, Participant] = {}
        bound: dict[str, BoundAction] = {}
        for participant in participants:
            name = participant.participant_name
            if name in self._participants:
                raise ParticipantSetupError(f"two participants are named {name!r}; serve one of them elsewhere")
            self._participants[name] = participant
            for action in participant.actions.values():
                bound[action.qualified_name] = BoundAction(participant, action, barrier_of(participant), self._threads)
        self._descriptions = {name: describe(participant) for name, participant in self._participants.items()}
        self._reader = CallReader(bound, clock)
        self._in_flight = _InFlight()
        self._spans = ServerSpans(tracer_provider)
        self._sessions: dict[ExchangeSession, None] = {}
        self._is_closed = False

    @property
    def descriptions(self) -> tuple[participant_pb2.ParticipantDescription, ...]:
        """What the coordinator is told at registration."""
        return tuple(self._descriptions.values())

    @property
    def participants(self) -> tuple[Participant, ...]:
        """Those that it serves."""
        return tuple(self._participants.values())

    async def wait_idle(self) -> None:
        """Waits until no call is under way, those cut short by the end of the server included."""
        await self._in_flight.none.wait()

    def close(self) -> None:
        """Gives its threads back; calls that still come are told that nobody is here. Safe to call twice."""
        self._is_closed = True
        self._threads.close()

    async def Describe(  # noqa: N802 - named by gRPC
        self,
        request: participant_pb2.DescribeRequest,
        context: grpc.aio.ServicerContext[participant_pb2.DescribeRequest, participant_pb2.DescribeResponse],
    ) -> participant_pb2.DescribeResponse:
        if not request.participant and len(self._descriptions) == 1:
            return participant_pb2.DescribeResponse(description=self.descriptions[0])
        description = self._descriptions.get(request.participant)
        if description is None:
            names = ", ".join(sorted(self._descriptions))
            message = f"expected one of the participants served here ({names}), found {request.participant!r}"
            details = error_details(ErrorReason.REQUEST_INVALID, participant=request.participant)
            await abort_with(context, status_with(grpc.StatusCode.NOT_FOUND, message, details))
        return participant_pb2.DescribeResponse(description=description)

    async def Execute(  # noqa: N802 - named by gRPC
        self,
        request: participant_pb2.ExecuteRequest,
        context: grpc.aio.ServicerContext[participant_pb2.ExecuteRequest, participant_pb2.ExecuteResponse],
    ) -> participant_pb2.ExecuteResponse:
        headers, time_remaining_s = context.invocation_metadata() or (), context.time_remaining()
        answer = await self._answered("execute", request, headers, time_remaining_s, self._execute)
        if isinstance(answer, status_pb2.Status):
            await abort_with(context, answer)
        return answer

    async def Compensate(  # noqa: N802 - named by gRPC
        self,
        request: participant_pb2.CompensateRequest,
        context: grpc.aio.ServicerContext[participant_pb2.CompensateRequest, participant_pb2.CompensateResponse],
    ) -> participant_pb2.CompensateResponse:
        headers, time_remaining_s = context.invocation_metadata() or (), context.time_remaining()
        answer = await self._answered("compensate", request, headers, time_remaining_s, self._compensate)
        if isinstance(answer, status_pb2.Status):
            await abort_with(context, answer)
        return answer

    async def Exchange(  # noqa: N802 - named by gRPC
        self,
        request_iterator: AsyncIterator[participant_pb2.ExchangeRequest],
        context: grpc.aio.ServicerContext[participant_pb2.ExchangeRequest, participant_pb2.ExchangeResponse],
    ) -> AsyncIterator[participant_pb2.ExchangeResponse]:
        session = ExchangeSession(self._answer)
        self._sessions[session] = None
        try:
            async for frame in session.run(request_iterator):
                yield frame
        finally:
            del self._sessions[session]

    def drain(self) -> None:
        """Asks whoever has an open stream to send no more calls on it, so that the server can be stopped in peace."""
        for session in self._sessions:
            session.drain()

    async def _answer(self, call: participant_pb2.ExchangeCall) -> participant_pb2.ExchangeReply:
        """As the call would be answered by itself."""
        headers = [(name, value) for name, value in (("traceparent", call.traceparent), ("tracestate", call.tracestate)) if value]
        answer: CallAnswer
        if call.WhichOneof("call") == "execute":
            answer = await self._answered("execute", call.execute, headers, None, self._execute)
            if isinstance(answer, participant_pb2.ExecuteResponse):
                return participant_pb2.ExchangeReply(id=call.id, executed=answer)
        else:
            answer = await self._answered("compensate", call.compensate, headers, None, self._compensate)
            if isinstance(answer, participant_pb2.CompensateResponse):
                return participant_pb2.ExchangeReply(id=call.id, compensated=answer)
        return participant_pb2.ExchangeReply(id=call.id, status=answer)

    async def _answered(
        self,
        direction: str,
        request: RequestT,
        headers: Iterable[tuple[str, str | bytes]],
        time_remaining_s: float | None,
        answer: Callable[[RequestT, float], Awaitable[AnswerT]],
    ) -> AnswerT | status_pb2.Status:
        """What is answered, also when the time of the call ends first, and when something fails that nobody foresaw."""
        if self._is_closed:
            return status_with(grpc.StatusCode.UNAVAILABLE, f"{request.action} is not served here any more")
        left_s = time_left_s(request, time_remaining_s)
        with self._in_flight, self._spans.of(direction, request, headers) as span:
            answered: AnswerT | status_pb2.Status
            try:
                async with asyncio.timeout(left_s) as limit:
                    answered = await answer(request, left_s)
            except Exception as error:
                code, message = grpc.StatusCode.UNKNOWN, f"unexpected {type(error).__name__}"
                if limit.expired():
                    code, message = grpc.StatusCode.DEADLINE_EXCEEDED, f"{request.action} did not end within its deadline"
                else:
                    logger.exception("call failed in an unforeseen way", extra={"saga.id": request.saga_id, "saga.step": request.step_id})
                answered = status_with(code, message)
            span.conclude(answered)
            return answered

    async def _execute(self, request: participant_pb2.ExecuteRequest, left_s: float) -> ExecuteAnswer:
        incoming = self._reader.read_execute(request, left_s)
        if isinstance(incoming, status_pb2.Status):
            return incoming

        async def run(sessions: SessionSource) -> ExecuteOutcome:
            step = incoming.step_with(_sessions_for(sessions, incoming.bound, is_async=incoming.bound.signature.is_async))
            return await incoming.bound.execute(incoming.request, step, incoming.cancellation)

        return await incoming.bound.barrier.execute(incoming.call, run)

    async def _compensate(self, request: participant_pb2.CompensateRequest, left_s: float) -> CompensateAnswer:
        incoming = self._reader.read_compensate(request, left_s)
        if isinstance(incoming, status_pb2.Status):
            return incoming

        async def run(sessions: SessionSource, output: PackedAny | None) -> CompensateOutcome:
            is_async = incoming.bound.signature.is_compensation_async
            step = incoming.step_with(_sessions_for(sessions, incoming.bound, is_async=is_async))
            return await incoming.bound.compensate(incoming.request, output, step, incoming.cancellation)

        claimed = request.succeeded.output if request.HasField("succeeded") else None
        return await incoming.bound.barrier.compensate(incoming.call, claimed, run)


class _InFlight:
    """Counts the calls under way."""

    def __init__(self) -> None:
        self._count = 0
        self.none = asyncio.Event()
        self.none.set()

    def __enter__(self) -> None:
        self._count += 1
        self.none.clear()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._count -= 1
        if self._count == 0:
            self.none.set()


def _sessions_for(sessions: SessionSource, bound: BoundAction, *, is_async: bool) -> SessionSource:
    return sessions if is_async or bound.takes_part else _NO_SESSION_IN_THREADS
