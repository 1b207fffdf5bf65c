"""One call on the wire, and what its end means."""

import asyncio
from typing import Final

import grpc

from coordinator.codec.calls import compensate_request, exchange_call, execute_request
from coordinator.codec.completion_tokens import CompletionTokens
from coordinator.codec.outcomes import outcome_of_compensation, outcome_of_execution, outcome_of_status
from coordinator.core.effects import CallParticipant
from coordinator.core.inputs import Outcome, Unknown
from coordinator.core.trace import attempt_traceparent
from coordinator.core.values import MICROS_PER_SECOND, Code, Direction, Failure
from coordinator.dispatcher.channels import Channels, Connection
from coordinator.dispatcher.exchange import NotExchangedError
from participant_sdk.rpc_errors import from_rpc_error
from saga.v1 import participant_pb2

_NO_METADATA: Final = ()


class ParticipantCaller:
    """Sends calls and reads the answers."""

    def __init__(self, *, channels: Channels, tokens: CompletionTokens, payload_bytes_max: int) -> None:
        self._channels = channels
        self._tokens = tokens
        self._payload_bytes_max = payload_bytes_max

    async def call(self, address: str, call: CallParticipant, time_left_us: int, *, exchanges: bool = False) -> Outcome:
        """How it went (R6). `exchanges`: whether the participant has said that it serves Exchange there."""
        ends_at_s = asyncio.get_running_loop().time() + time_left_us / MICROS_PER_SECOND
        try:
            with self._channels.used_for_call(address) as connection:
                if exchanges and not connection.exchange.is_refused:
                    try:
                        return await self._among_others(connection, call, time_left_us)
                    except NotExchangedError:
                        # It goes by itself, in what is left of its time: nobody reckons with a longer attempt (R12).
                        left_s = ends_at_s - asyncio.get_running_loop().time()
                        time_left_us = max(round(left_s * MICROS_PER_SECOND), 1)
                return await self._by_itself(connection, call, time_left_us)
        except grpc.aio.AioRpcError as error:
            return outcome_of_status(from_rpc_error(error))

    async def _by_itself(self, connection: Connection, call: CallParticipant, time_left_us: int) -> Outcome:
        timeout, metadata = time_left_us / MICROS_PER_SECOND, _metadata(call)
        if call.attempt.direction is Direction.EXECUTE:
            return self._executed(
                call, await connection.stub.Execute(self._execute_request(call, time_left_us), timeout=timeout, metadata=metadata)
            )
        compensated = await connection.stub.Compensate(compensate_request(call, time_left_us), timeout=timeout, metadata=metadata)
        return outcome_of_compensation(compensated)

    async def _among_others(self, connection: Connection, call: CallParticipant, time_left_us: int) -> Outcome:
        is_execution = call.attempt.direction is Direction.EXECUTE
        request = self._execute_request(call, time_left_us) if is_execution else compensate_request(call, time_left_us)
        reply = await connection.exchange.ask(exchange_call(call, request), time_left_us / MICROS_PER_SECOND)
        match reply.WhichOneof("reply"):
            case "executed" if is_execution:
                return self._executed(call, reply.executed)
            case "compensated" if not is_execution:
                return outcome_of_compensation(reply.compensated)
            case "status":
                return outcome_of_status(reply.status)
            case found:
                words = f"expected the reply to what was asked, found {found or 'none'}"
                return Unknown(failure=Failure(Code.INTERNAL, words))

    def _execute_request(self, call: CallParticipant, time_left_us: int) -> participant_pb2.ExecuteRequest:
        return execute_request(call, time_left_us, self._tokens.make(call.saga_id, call.attempt))  # R24

    def _executed(self, call: CallParticipant, executed: participant_pb2.ExecuteResponse) -> Outcome:
        return outcome_of_execution(call, executed, payload_bytes_max=self._payload_bytes_max)


def _metadata(call: CallParticipant) -> tuple[tuple[str, str], ...]:
    traceparent = attempt_traceparent(call.trace, call.saga_id, call.attempt)
    if not traceparent:
        return _NO_METADATA
    if call.trace.tracestate:
        return (("traceparent", traceparent), ("tracestate", call.trace.tracestate))
    return (("traceparent", traceparent),)
