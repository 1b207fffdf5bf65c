"""One call on the wire, and what its end means."""

import asyncio
from collections.abc import Callable
from typing import Final, Protocol

import grpc

from coordinator.codec.calls import call_bytes, fill_call, fill_compensate_request, fill_execute_request
from coordinator.codec.completion_tokens import CompletionTokens
from coordinator.codec.outcomes import outcome_of_compensation, outcome_of_execution, outcome_of_status
from coordinator.core.effects import CallParticipant
from coordinator.core.inputs import Outcome, Unknown
from coordinator.core.trace import attempt_traceparent
from coordinator.core.values import MICROS_PER_SECOND, Code, Direction, Failure
from coordinator.dispatcher.channels import Channels, Use
from participant_sdk.framed_calls import OpenCall, Unanswered
from participant_sdk.rpc_errors import from_rpc_error
from saga.v1 import participant_pb2

_NO_METADATA: Final = ()

Answered = Callable[[participant_pb2.ExchangeReply | Unanswered], None]
"""Told once what became of a call among others."""


class Caller(Protocol):
    """Sends one call after the other, each by itself."""

    async def call_by_itself(self, address: str, call: CallParticipant, time_left_us: int) -> Outcome:
        """How it went (R6)."""


class ParticipantCaller:
    """Sends calls to participants and reads the answers."""

    def __init__(self, *, channels: Channels, tokens: CompletionTokens, payload_bytes_max: int) -> None:
        self._channels = channels
        self._loop = asyncio.get_running_loop()
        self._tokens = tokens
        self._payload_bytes_max = payload_bytes_max

    async def call_by_itself(self, address: str, call: CallParticipant, time_left_us: int) -> Outcome:
        """How it went (R6)."""
        timeout, metadata = time_left_us / MICROS_PER_SECOND, trace_metadata(call)
        try:
            with self._channels.use(address) as connection:
                if call.attempt.direction is Direction.EXECUTE:
                    execution = participant_pb2.ExecuteRequest()
                    fill_execute_request(execution, call, time_left_us, self._token_for(call))
                    return self._executed(call, await connection.stub.Execute(execution, timeout=timeout, metadata=metadata))
                compensation = participant_pb2.CompensateRequest()
                fill_compensate_request(compensation, call, time_left_us)
                return outcome_of_compensation(await connection.stub.Compensate(compensation, timeout=timeout, metadata=metadata))
        except grpc.aio.AioRpcError as error:
            return outcome_of_status(from_rpc_error(error))

    def call_among_others(self, address: str, call: CallParticipant, time_left_us: int, answered: Answered) -> OpenCall | None:
        """Sends a call on a stream. None: nobody there takes any now; nothing was done."""
        use = self._channels.use(address)
        exchange = use.connection.exchange
        if exchange.is_refused:
            return None
        use.begin()
        sender = _Sender(call, self._loop.time() + time_left_us / MICROS_PER_SECOND, self, use, answered)
        return exchange.send(sender, call_bytes(call), time_left_us / MICROS_PER_SECOND)

    def fill(self, message: participant_pb2.ExchangeCall, call: CallParticipant, ends_at_s: float) -> None:
        """Writes a call among others as it leaves. It may have waited for room: nobody reckons with more than is left of its time (R12)."""
        left_us = round((ends_at_s - self._loop.time()) * MICROS_PER_SECOND)
        fill_call(message, call, max(left_us, 1), self._token_for(call))

    def outcome_of(self, call: CallParticipant, answer: participant_pb2.ExchangeReply | grpc.aio.AioRpcError) -> Outcome:
        """How a call among others went (R6)."""
        if isinstance(answer, grpc.aio.AioRpcError):
            return outcome_of_status(from_rpc_error(answer))
        is_execution = call.attempt.direction is Direction.EXECUTE
        match answer.WhichOneof("reply"):
            case "executed" if is_execution:
                return self._executed(call, answer.executed)
            case "compensated" if not is_execution:
                return outcome_of_compensation(answer.compensated)
            case "status":
                return outcome_of_status(answer.status)
            case found:
                words = f"expected the reply to what was asked, found {found or 'none'}"
                return Unknown(failure=Failure(Code.INTERNAL, words))

    def _token_for(self, call: CallParticipant) -> str:
        """R24; to undo is never accepted."""
        return self._tokens.make(call.saga_id, call.attempt) if call.attempt.direction is Direction.EXECUTE else ""

    def _executed(self, call: CallParticipant, executed: participant_pb2.ExecuteResponse) -> Outcome:
        return outcome_of_execution(call, executed, payload_bytes_max=self._payload_bytes_max)


class _Sender:
    """A call among others, for the stream that carries it: writes it when it leaves, and hears what became of it."""

    __slots__ = ("_answered", "_call", "_caller", "_ends_at_s", "_use")

    def __init__(self, call: CallParticipant, ends_at_s: float, caller: ParticipantCaller, use: Use, answered: Answered) -> None:
        self._call = call
        self._ends_at_s = ends_at_s
        self._caller = caller
        self._use = use
        self._answered = answered

    def write(self, message: participant_pb2.ExchangeCall) -> None:
        """Fills its message."""
        self._caller.fill(message, self._call, self._ends_at_s)

    def end(self, answer: participant_pb2.ExchangeReply | Unanswered) -> None:
        """It has ended."""
        self._use.end(answer if isinstance(answer, Exception) else None)
        self._answered(answer)


def trace_metadata(call: CallParticipant) -> tuple[tuple[str, str], ...]:
    """Where the span of whoever is called stands."""
    traceparent = attempt_traceparent(call.trace, call.saga_id, call.attempt)
    if not traceparent:
        return _NO_METADATA
    if call.trace.tracestate:
        return (("traceparent", traceparent), ("tracestate", call.trace.tracestate))
    return (("traceparent", traceparent),)
