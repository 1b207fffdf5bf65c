"""One call on the wire, and what its end means."""

from typing import Final

import grpc

from coordinator.codec.calls import compensate_request, execute_request
from coordinator.codec.completion_tokens import CompletionTokens
from coordinator.codec.outcomes import outcome_of_compensation, outcome_of_execution, outcome_of_status
from coordinator.core.effects import CallParticipant
from coordinator.core.inputs import Outcome
from coordinator.core.trace import attempt_traceparent
from coordinator.core.values import MICROS_PER_SECOND, Direction
from coordinator.dispatcher.channels import Channels
from participant_sdk.rpc_errors import from_rpc_error

_NO_METADATA: Final = ()


class ParticipantCaller:
    """Sends calls and reads the answers."""

    def __init__(self, *, channels: Channels, tokens: CompletionTokens, payload_bytes_max: int) -> None:
        self._channels = channels
        self._tokens = tokens
        self._payload_bytes_max = payload_bytes_max

    async def call(self, address: str, call: CallParticipant, time_left_us: int) -> Outcome:
        """How it went (R6)."""
        timeout, metadata = time_left_us / MICROS_PER_SECOND, _metadata(call)
        try:
            with self._channels.used_for_call(address) as stub:
                if call.attempt.direction is Direction.EXECUTE:
                    token = self._tokens.make(call.saga_id, call.attempt)  # R24
                    executed = await stub.Execute(execute_request(call, time_left_us, token), timeout=timeout, metadata=metadata)
                    return outcome_of_execution(call, executed, payload_bytes_max=self._payload_bytes_max)
                compensated = await stub.Compensate(compensate_request(call, time_left_us), timeout=timeout, metadata=metadata)
                return outcome_of_compensation(compensated)
        except grpc.aio.AioRpcError as error:
            return outcome_of_status(from_rpc_error(error))


def _metadata(call: CallParticipant) -> tuple[tuple[str, str], ...]:
    traceparent = attempt_traceparent(call.trace, call.saga_id, call.attempt)
    if not traceparent:
        return _NO_METADATA
    if call.trace.tracestate:
        return (("traceparent", traceparent), ("tracestate", call.trace.tracestate))
    return (("traceparent", traceparent),)
