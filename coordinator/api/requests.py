"""What callers send, checked and turned into what the engine and the journal take: starts and registrations."""

import hashlib
import re
from collections.abc import Iterator
from typing import Final

from coordinator.api.caller import Caller
from coordinator.api.checks import (
    check_payload,
    find_in_duration,
    find_in_person,
    find_in_text,
    find_unreadable,
    given_instant,
    refuse_if_any,
)
from coordinator.codec.definitions import CompiledDefinition
from coordinator.codec.values import INSTANT_MAX, instant_of
from coordinator.core.inputs import Cancel, Start
from coordinator.core.trace import is_sampled, start_trace, trace_id_of
from coordinator.core.values import MICROS_PER_SECOND, Instant, Payload, SagaId
from coordinator.engine.commands import StartCommand
from coordinator.engine.ports import StartKey
from participant_sdk.definitions.durations import micros_of
from participant_sdk.definitions.policies import DURATION_US_MAX
from participant_sdk.definitions.problems import Problem
from participant_sdk.definitions.rules import find_label_problems
from participant_sdk.ids import new_saga_id, parse_saga_id
from saga.v1 import coordinator_pb2, participant_pb2

KEY_CHARS_MAX: Final = 255
KEY_TTL_US_DEFAULT: Final = 7 * 86_400 * MICROS_PER_SECOND
KEY_TTL_US_MAX: Final = 365 * 86_400 * MICROS_PER_SECOND
TARGET_CHARS_MAX: Final = 1_024
REGISTRATION_TTL_US_DEFAULT: Final = 30 * MICROS_PER_SECOND
REGISTRATION_TTL_US_MIN: Final = 1 * MICROS_PER_SECOND
REGISTRATION_TTL_US_MAX: Final = 3_600 * MICROS_PER_SECOND
ACTIONS_MAX: Final = 1_000
RATE_PER_SECOND_MAX: Final = 1_000_000.0
"""Highest rate that a participant can ask for; beyond any that a coordinator reaches."""
START_AT_MAX: Final = Instant(INSTANT_MAX - DURATION_US_MAX)
"""Latest begin of a saga: its deadline must still be an instant that can be written."""
TIME_LIMIT_US_MIN: Final = 1_000
INHERITED_TIME_US_MAX: Final = DURATION_US_MAX
"""Longest time limit that a call can hand down; what it has beyond that bounds nothing that matters."""

_PARTICIPANT_NAME: Final = re.compile(r"[a-z][a-z0-9_-]{0,63}")
_ACTION_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}")


def start_command(
    request: coordinator_pb2.StartSagaRequest,
    compiled: CompiledDefinition,
    *,
    caller: Caller,
    now: Instant,
    payload_bytes_max: int,
    sample_ratio: float,
) -> StartCommand:
    """The start that a request asks for. Refuses it with every problem at once."""
    refuse_if_any(_find_in_start(request, now, caller.time_left_s))
    payload = check_payload(
        request.input,
        "input",
        compiled.canonical_input,
        expected_type=compiled.message.input_type,
        payload_bytes_max=payload_bytes_max,
    )
    saga_id = SagaId(parse_saga_id(request.saga_id) if request.saga_id else new_saga_id())
    sample = sample_ratio > 0.0 and is_sampled(trace_id_of(saga_id), sample_ratio)
    start_at = given_instant(request.start_at, is_given=request.HasField("start_at"))
    start = Start(
        input=payload,
        labels=tuple(sorted(request.labels.items())),
        idempotency_key=request.idempotency_key,
        start_at=start_at,
        time_limit_us=_time_limit_us(request, compiled, now=now, start_at=start_at, call_time_left_s=caller.time_left_s),
        trace=start_trace(saga_id, caller.traceparent, caller.tracestate, sample=sample),
    )
    return StartCommand(
        saga_id=saga_id,
        plan=compiled.plan,
        start=start,
        fingerprint=fingerprint_of(compiled.key.name, payload),
        key=_start_key(request, compiled.key.name, now),
    )


def fingerprint_of(definition_name: str, payload: Payload) -> bytes:
    """What two starts must have in common to ask for the same: definition and input, in the coordinator's serialisation (R3).

    The version is not in it: a start that names none must stay the same start when a higher version is registered in between.
    """
    digest = hashlib.sha256()
    for part in (definition_name.encode(), payload.type_name.encode(), payload.value):
        digest.update(len(part).to_bytes(8))
        digest.update(part)
    return digest.digest()


def registration_ttl_us(request: coordinator_pb2.RegisterParticipantRequest) -> int:
    """How long a registration holds. Refuses the whole request with every problem at once."""
    refuse_if_any(_find_in_registration(request))
    return micros_of(request.ttl) if request.HasField("ttl") else REGISTRATION_TTL_US_DEFAULT


def cancel_command(request: coordinator_pb2.CancelSagaRequest) -> Cancel:
    """The cancellation that a request asks for."""
    refuse_if_any(find_in_person(request.actor, request.reason))
    return Cancel(reason=request.reason, actor=request.actor)


def _time_limit_us(
    request: coordinator_pb2.StartSagaRequest,
    compiled: CompiledDefinition,
    *,
    now: Instant,
    start_at: Instant | None,
    call_time_left_s: float | None,
) -> int | None:
    """What bounds the forward way, counted from its beginning; None: what the definition says.

    The deadline of the call is an instant, so it leaves a saga that begins later less time (H5).
    """
    asked_us = micros_of(request.time_limit) if request.HasField("time_limit") else None
    if not request.inherit_deadline or call_time_left_s is None:
        return asked_us
    left_us = round(call_time_left_s * MICROS_PER_SECOND)
    wait_us = 0 if start_at is None else max(start_at - now, 0)
    inherited_us = min(max(left_us - wait_us, TIME_LIMIT_US_MIN), INHERITED_TIME_US_MAX)
    planned_us = compiled.plan.time_limit_us if asked_us is None else asked_us
    return inherited_us if planned_us is None else min(inherited_us, planned_us)


def _start_key(request: coordinator_pb2.StartSagaRequest, definition_name: str, now: Instant) -> StartKey | None:
    if not request.idempotency_key:
        return None
    ttl_us = micros_of(request.idempotency_key_ttl) if request.HasField("idempotency_key_ttl") else KEY_TTL_US_DEFAULT
    return StartKey(definition_name=definition_name, key=request.idempotency_key, expires_at=Instant(now + ttl_us))


def _find_in_start(request: coordinator_pb2.StartSagaRequest, now: Instant, call_time_left_s: float | None) -> Iterator[Problem]:
    if request.saga_id:
        yield from find_unreadable(lambda: parse_saga_id(request.saga_id), "saga_id")
    yield from find_in_text(request.idempotency_key, "idempotency_key", KEY_CHARS_MAX)
    yield from find_label_problems(dict(request.labels), "labels")
    call_ends_at = None
    if request.inherit_deadline and call_time_left_s is None:
        yield Problem("inherit_deadline", "expected a call with a deadline, found one without; set one, or use time_limit")
    elif request.inherit_deadline and call_time_left_s is not None:
        call_ends_at = Instant(now + round(call_time_left_s * MICROS_PER_SECOND))
    yield from find_unreadable(lambda: _check_start_at(instant_of(request.start_at), call_ends_at), "start_at")
    if request.HasField("time_limit"):
        yield from find_in_duration(request.time_limit, "time_limit", TIME_LIMIT_US_MIN, DURATION_US_MAX)
    if request.HasField("idempotency_key_ttl"):
        yield from find_in_duration(request.idempotency_key_ttl, "idempotency_key_ttl", MICROS_PER_SECOND, KEY_TTL_US_MAX)


def _check_start_at(instant: Instant, call_ends_at: Instant | None) -> None:
    if instant > START_AT_MAX:
        raise ValueError("expected a begin before the year 9999, so that its deadline can be written too")
    if call_ends_at is not None and instant >= call_ends_at:
        raise ValueError("expected a begin before the deadline of the call, which is to bound the saga; use time_limit instead of it")


def _find_in_registration(request: coordinator_pb2.RegisterParticipantRequest) -> Iterator[Problem]:
    description = request.description
    if not _PARTICIPANT_NAME.fullmatch(description.name):
        expected = "a lower-case letter, then lower-case letters, digits, '-' or '_', at most 64"
        yield Problem("description.name", f"expected {expected}, found {description.name[:80]!r}")
    if not request.target:
        yield Problem("target", 'expected a gRPC target like "127.0.0.1:50051" or "unix:/run/payments.sock", found nothing')
    yield from find_in_text(request.target, "target", TARGET_CHARS_MAX)
    if not 1 <= len(description.actions) <= ACTIONS_MAX:
        yield Problem("description.actions", f"expected 1 to {ACTIONS_MAX} actions, found {len(description.actions)}")
    else:
        yield from _find_in_actions(description)
    if not 0.0 <= description.rate_per_second <= RATE_PER_SECOND_MAX:  # also refuses NaN
        yield Problem("description.rate_per_second", f"expected 0 to {RATE_PER_SECOND_MAX:g}, found {description.rate_per_second:g}")
    if request.HasField("ttl"):
        yield from find_in_duration(request.ttl, "ttl", REGISTRATION_TTL_US_MIN, REGISTRATION_TTL_US_MAX)


def _find_in_actions(description: participant_pb2.ParticipantDescription) -> Iterator[Problem]:
    names = [action.name for action in description.actions]
    for index, name in enumerate(names):
        if not _ACTION_NAME.fullmatch(name):
            yield Problem(f"description.actions[{index}].name", f"expected an identifier of at most 64 characters, found {name[:80]!r}")
        elif name in names[:index]:
            yield Problem(f"description.actions[{index}].name", f"{name!r} is described twice")
