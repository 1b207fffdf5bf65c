"""Calls as participants receive them."""

from coordinator.codec.values import to_any, to_duration, to_timestamp
from coordinator.core.effects import CallParticipant
from coordinator.core.trace import attempt_traceparent
from saga.v1 import participant_pb2, saga_pb2

_UNKNOWN = participant_pb2.Unknown()


def execute_request(call: CallParticipant, time_left_us: int, completion_token: str) -> participant_pb2.ExecuteRequest:
    """The message that asks a participant to do a step."""
    return participant_pb2.ExecuteRequest(
        saga_id=call.saga_id,
        definition=saga_pb2.DefinitionReference(name=call.definition.name, version=call.definition.version),
        step_id=call.attempt.step_id,
        action=call.action,
        key=call.key,
        attempt=call.attempt.number,
        first_attempt_at=to_timestamp(call.first_attempt_at),
        input=to_any(call.input),
        time_left=to_duration(time_left_us),
        completion_token=completion_token,
    )


def compensate_request(call: CallParticipant, time_left_us: int) -> participant_pb2.CompensateRequest:
    """The message that asks a participant to undo a step; says what is known of its execution (R20)."""
    request = participant_pb2.CompensateRequest(
        saga_id=call.saga_id,
        definition=saga_pb2.DefinitionReference(name=call.definition.name, version=call.definition.version),
        step_id=call.attempt.step_id,
        action=call.action,
        key=call.key,
        execute_key=call.execute_key,
        attempt=call.attempt.number,
        first_attempt_at=to_timestamp(call.first_attempt_at),
        input=to_any(call.input),
        time_left=to_duration(time_left_us),
    )
    if call.output is None:
        request.unknown.CopyFrom(_UNKNOWN)
    else:
        request.succeeded.output.CopyFrom(to_any(call.output))
    return request


def exchange_call(
    call: CallParticipant, request: participant_pb2.ExecuteRequest | participant_pb2.CompensateRequest
) -> participant_pb2.ExchangeCall:
    """The same call among many on one stream, still without its id there."""
    made = participant_pb2.ExchangeCall(traceparent=attempt_traceparent(call.trace, call.saga_id, call.attempt))
    if made.traceparent:
        made.tracestate = call.trace.tracestate
    if isinstance(request, participant_pb2.ExecuteRequest):
        made.execute.CopyFrom(request)
    else:
        made.compensate.CopyFrom(request)
    return made
