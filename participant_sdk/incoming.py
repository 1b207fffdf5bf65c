"""Reading a call off the wire: which action, for which step, with what input, until when. Bad requests end here."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Final, Generic, TypeVar

import grpc
from google.protobuf.any_pb2 import Any as PackedAny
from google.rpc import error_details_pb2, status_pb2

from participant_sdk.barrier.verdict import CompensateCall, ExecuteCall, Knowledge, StepIdentity
from participant_sdk.client.completion import Heartbeat
from participant_sdk.clock import MICROS_PER_SECOND, Clock, instant_of
from participant_sdk.ids import parse_saga_id
from participant_sdk.invocation import BoundAction, Cancellation
from participant_sdk.payloads import PAYLOAD_BYTES_MAX, Payload, PayloadDecodeError
from participant_sdk.rpc_errors import ErrorReason, error_details, status_with
from participant_sdk.step_context import DefinitionVersion, SessionSource, StepContext, SyncStepContext
from participant_sdk.telemetry import CallRequest
from saga.v1 import participant_pb2

KEY_CHARS_MAX: Final = 255
"""Longest idempotency key."""
COMPLETION_TOKEN_CHARS_MAX: Final = 255
"""Longest completion token."""
STEP_ID_CHARS_MAX: Final = 64
"""Longest step id."""
TIME_LEFT_DEFAULT_S: Final = 10.0
"""Time for an attempt whose caller names none: the default attempt timeout."""
TIME_LEFT_MAX_S: Final = 24 * 3600.0
"""Longest time for an attempt: a lock must end some day."""

CallT = TypeVar("CallT", ExecuteCall, CompensateCall)


@dataclass(slots=True, kw_only=True)
class IncomingCall(Generic[CallT]):
    """One call, read and found good."""

    bound: BoundAction
    """What is to be called."""
    call: CallT
    """The call as the barrier sees it."""
    request: Payload
    """The decoded input."""
    raw: CallRequest
    """The call as it came."""
    execute_key: str
    """Key of the execution that this call is, or undoes."""
    cancellation: Cancellation
    """Set when nobody waits any more."""
    clock: Clock

    def step_with(self, sessions: SessionSource) -> StepContext | SyncStepContext:
        """What the handler is told, with the session that it may use."""
        raw, call, clock = self.raw, self.call, self.clock
        return self.bound.signature.step_type(
            saga_id=call.step.saga_id,
            step_id=raw.step_id,
            definition=DefinitionVersion(name=raw.definition.name, version=raw.definition.version),
            key=raw.key,
            execute_key=self.execute_key,
            attempt=raw.attempt,
            first_attempt_at=instant_of(call.first_attempt_at_us),
            deadline=instant_of(call.deadline_us),
            completion_token=call.completion_token if isinstance(call, ExecuteCall) else "",
            sessions=sessions,
            cancellation=self.cancellation,
            now=lambda: instant_of(clock()),
            send_heartbeat=self._send_heartbeat,
        )

    async def _send_heartbeat(self, token: str, time_limit: timedelta | None, progress: object | None) -> Heartbeat:
        answer = await self.bound.heartbeat(token, time_limit, progress)
        if answer.is_cancelled:
            self.cancellation.set()
        return answer


class CallReader:
    """Reads calls for a fixed set of actions."""

    def __init__(self, actions: Mapping[str, BoundAction], clock: Clock) -> None:
        self._actions = actions
        self._clock = clock

    def read_execute(self, request: participant_pb2.ExecuteRequest, left_s: float) -> IncomingCall[ExecuteCall] | status_pb2.Status:
        """A good call, or the status that refuses it. `left_s`: what is left of its time."""
        found = self._find(request)
        if isinstance(found, status_pb2.Status):
            return found
        bound, message = found
        call = ExecuteCall(
            key=request.key,
            step=StepIdentity(saga_id=request.saga_id.lower(), step_id=request.step_id),
            action=request.action,
            fingerprint=fingerprint_of(request.input),
            effect=bound.action.effect,
            first_attempt_at_us=request.first_attempt_at.ToMicroseconds(),
            deadline_us=self._clock() + int(left_s * MICROS_PER_SECOND),
            completion_token=request.completion_token,
        )
        return self._read(bound, call, message, request, request.key)

    def read_compensate(
        self, request: participant_pb2.CompensateRequest, left_s: float
    ) -> IncomingCall[CompensateCall] | status_pb2.Status:
        """A good call, or the status that refuses it. `left_s`: what is left of its time."""
        found = self._find(request)
        if isinstance(found, status_pb2.Status):
            return found
        bound, message = found
        if not bound.action.is_compensatable:
            advice = f"{request.action} has no compensation; declare one with @{bound.action.name}.compensation"
            return _unknown_action(request.action, advice)
        call = CompensateCall(
            key=request.execute_key,
            step=StepIdentity(saga_id=request.saga_id.lower(), step_id=request.step_id),
            action=request.action,
            fingerprint=fingerprint_of(request.input),
            effect=bound.action.effect,
            first_attempt_at_us=request.first_attempt_at.ToMicroseconds(),
            deadline_us=self._clock() + int(left_s * MICROS_PER_SECOND),
            knowledge=Knowledge.SUCCEEDED if request.HasField("succeeded") else Knowledge.UNKNOWN,
        )
        return self._read(bound, call, message, request, request.execute_key)

    def _find(self, request: CallRequest) -> tuple[BoundAction, Payload] | status_pb2.Status:
        bound = self._actions.get(request.action)
        if bound is None:
            served = ", ".join(sorted(self._actions))
            return _unknown_action(request.action, f"expected one of the actions served here ({served})")
        violations = _violations(request)
        if violations:
            return _invalid(violations)
        message = _input_of(bound, request.input)
        return message if isinstance(message, status_pb2.Status) else (bound, message)

    def _read(self, bound: BoundAction, call: CallT, message: Payload, request: CallRequest, execute_key: str) -> IncomingCall[CallT]:
        return IncomingCall(
            bound=bound,
            call=call,
            request=message,
            raw=request,
            execute_key=execute_key,
            cancellation=Cancellation(),
            clock=self._clock,
        )


def fingerprint_of(packed: PackedAny) -> bytes:
    """What tells inputs apart (R22): a hash of the type's name and the bytes. The prefix of the type URL says nothing."""
    return hashlib.sha256(packed.TypeName().encode() + b"\0" + packed.value).digest()


def time_left_s(request: CallRequest, time_remaining_s: float | None) -> float:
    """The shorter of the gRPC deadline and what the request says; clocks differ, so both are durations."""
    said_s = request.time_left.ToNanoseconds() / 1e9 if request.HasField("time_left") else None
    given = [each for each in (time_remaining_s, said_s) if each is not None]
    return min(max(min(given, default=TIME_LEFT_DEFAULT_S), 0.0), TIME_LEFT_MAX_S)


def _violations(request: CallRequest) -> dict[str, str]:
    """What is wrong, by field."""
    found: dict[str, str] = {}
    try:
        parse_saga_id(request.saga_id)
    except ValueError as error:
        found["saga_id"] = str(error)
    if not _is_text(request.step_id, STEP_ID_CHARS_MAX):
        found["step_id"] = f"expected 1 to {STEP_ID_CHARS_MAX} printable characters"
    keys = {"key": request.key}
    if isinstance(request, participant_pb2.CompensateRequest):
        keys["execute_key"] = request.execute_key
    elif request.completion_token and not _is_text(request.completion_token, COMPLETION_TOKEN_CHARS_MAX):
        found["completion_token"] = f"expected at most {COMPLETION_TOKEN_CHARS_MAX} printable characters"
    for field, key in keys.items():
        if not _is_text(key, KEY_CHARS_MAX):
            found[field] = f"expected 1 to {KEY_CHARS_MAX} printable characters"
    if request.attempt < 1:
        found["attempt"] = "expected a number from 1"
    if not request.HasField("first_attempt_at"):
        found["first_attempt_at"] = "expected the instant at which the first attempt was due"  # R21
    if not request.HasField("input"):
        found["input"] = "expected a payload"
    return found


def _input_of(bound: BoundAction, packed: PackedAny) -> Payload | status_pb2.Status:
    expected = bound.signature.request
    name = bound.action.qualified_name
    if not expected.is_in(packed):
        message = f"{name} takes {expected.name}, found {packed.type_url!r}"
        details = error_details(ErrorReason.INPUT_TYPE_MISMATCH, expected=expected.name, found=packed.type_url)
        return status_with(grpc.StatusCode.INVALID_ARGUMENT, message, details)
    if len(packed.value) > PAYLOAD_BYTES_MAX:
        message = f"{name}: the input has {len(packed.value)} bytes, {PAYLOAD_BYTES_MAX} are allowed"
        return status_with(grpc.StatusCode.INVALID_ARGUMENT, message, error_details(ErrorReason.PAYLOAD_TOO_LARGE))
    try:
        value: Payload = expected.unpack(packed)
    except PayloadDecodeError as error:
        return status_with(grpc.StatusCode.INVALID_ARGUMENT, f"{name}: {error}", error_details(ErrorReason.INPUT_INVALID))
    return value


def _invalid(violations: Mapping[str, str]) -> status_pb2.Status:
    listed = [error_details_pb2.BadRequest.FieldViolation(field=field, description=text) for field, text in violations.items()]
    return status_with(
        grpc.StatusCode.INVALID_ARGUMENT,
        "; ".join(f"{field}: {text}" for field, text in violations.items()),
        error_details(ErrorReason.REQUEST_INVALID),
        error_details_pb2.BadRequest(field_violations=listed),
    )


def _unknown_action(action: str, message: str) -> status_pb2.Status:
    details = error_details(ErrorReason.UNKNOWN_ACTION, action=action)
    return status_with(grpc.StatusCode.UNIMPLEMENTED, f"{action!r} cannot be called: {message}", details)


def _is_text(value: str, chars_max: int) -> bool:
    return 0 < len(value) <= chars_max and value.isprintable()
