"""Calls of methods that know nothing of sagas: bytes out, bytes in. No message class is needed for what only passes through."""

from typing import Final

import grpc

from coordinator.codec.outcomes import outcome_of_output, outcome_of_status, outcome_of_undo
from coordinator.codec.participants import find_type_mismatch
from coordinator.codec.services import ActionPlan, ServicePlan, UndoInputError
from coordinator.core.effects import CallParticipant
from coordinator.core.inputs import Mismatched, Outcome
from coordinator.core.values import MICROS_PER_SECOND, Code, Direction, Failure, Payload
from coordinator.dispatcher.caller import trace_metadata
from coordinator.dispatcher.channels import Channels
from participant_sdk.rpc_errors import from_rpc_error

EXECUTE_KEY: Final = "idempotency-execute-key"
"""Metadata of a compensation: the key of what it undoes (R1)."""
SAGA_ID: Final = "saga-id"
STEP_ID: Final = "saga-step-id"
ATTEMPT: Final = "saga-attempt"

_Metadata = tuple[tuple[str, str], ...]


class ServiceCaller:
    """Sends the calls of one service. What is not understood as it was configured is not sent: a method takes any bytes for its message."""

    def __init__(self, *, plan: ServicePlan, key_metadata: str, channels: Channels, payload_bytes_max: int) -> None:
        self._plan = plan
        self._key_metadata = key_metadata
        self._channels = channels
        self._payload_bytes_max = payload_bytes_max

    async def call_by_itself(self, address: str, call: CallParticipant, time_left_us: int) -> Outcome:
        """How it went (R6)."""
        problem = self._find_misfit(call)
        if problem:
            return _mismatched(problem)
        action, timeout_s = self._plan.actions[_name_of(call)], time_left_us / MICROS_PER_SECOND
        if call.attempt.direction is Direction.EXECUTE:
            return await self._execute(action, address, call, timeout_s)
        try:
            request = action.compensate_input(call)
        except UndoInputError as error:
            return _mismatched(f"{call.action} cannot be compensated: {error}; mend compensate_input in the settings")
        return await self._compensate(action, address, call, request, timeout_s)

    async def _execute(self, action: ActionPlan, address: str, call: CallParticipant, timeout_s: float) -> Outcome:
        try:
            reply = await self._send(address, action.execute, action.execute_input(call), self._metadata(call), timeout_s)
        except grpc.aio.AioRpcError as error:
            return outcome_of_status(from_rpc_error(error))
        output = Payload(action.described.output_type, reply)
        return outcome_of_output(call, output, payload_bytes_max=self._payload_bytes_max)

    async def _compensate(self, action: ActionPlan, address: str, call: CallParticipant, request: bytes, timeout_s: float) -> Outcome:
        metadata = ((EXECUTE_KEY, call.execute_key), *self._metadata(call))
        try:
            reply = await self._send(address, action.compensate, request, metadata, timeout_s)
        except grpc.aio.AioRpcError as error:
            return outcome_of_undo(from_rpc_error(error), nothing_to_undo=action.nothing_to_undo, unreadable="")
        return outcome_of_undo(None, nothing_to_undo=(), unreadable=action.find_unreadable(reply))

    async def _send(self, address: str, method: str, request: bytes, metadata: _Metadata, timeout_s: float) -> bytes:
        with self._channels.use(address) as connection:
            send = connection.channel.unary_unary(method, request_serializer=_as_it_is, response_deserializer=_as_it_is)
            return await send(request, timeout=timeout_s, metadata=metadata)

    def _metadata(self, call: CallParticipant) -> _Metadata:
        return (
            (self._key_metadata, call.key),
            (SAGA_ID, call.saga_id),
            (STEP_ID, call.attempt.step_id),
            (ATTEMPT, str(call.attempt.number)),
            *trace_metadata(call),
        )

    def _find_misfit(self, call: CallParticipant) -> str:
        """Why the call is not one that the service takes; empty: it is. Who chose the place has looked too, but it may have been told other
        types since; and nobody else looks at what is undone and how."""
        action = self._plan.actions.get(_name_of(call))
        if action is None:
            return f"{call.action} is not configured any more"
        described = action.described
        output_type = call.output_type or described.output_type
        if call.attempt.direction is Direction.COMPENSATE:
            if not action.compensate:
                return f"{call.action} has no compensation; name one in the settings"
            output_type = described.output_type if call.output is None else call.output.type_name
        return find_type_mismatch(call.action, call.input_type or described.input_type, output_type, self._plan.description)


def _name_of(call: CallParticipant) -> str:
    return call.action.partition(".")[2]


def _mismatched(problem: str) -> Mismatched:
    return Mismatched(failure=Failure(Code.FAILED_PRECONDITION, problem))


def _as_it_is(message: bytes) -> bytes:
    return message
