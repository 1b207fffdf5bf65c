"""What callers send, checked and turned into what the engine and the journal take."""

import base64
import binascii
import hashlib
import re
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Final

from google.protobuf.duration_pb2 import Duration
from grpc import StatusCode

from coordinator.api.errors import invalid, refusal
from coordinator.codec.definition_rules import DURATION_US_MAX, Problem, find_label_problems
from coordinator.codec.definitions import CompiledDefinition, InputInvalidError
from coordinator.codec.values import INSTANT_MAX, instant_of, micros_of
from coordinator.core.inputs import Start
from coordinator.core.trace import is_sampled, start_trace, trace_id_of
from coordinator.core.values import MICROS_PER_SECOND, DefinitionKey, Instant, Payload, SagaId, SagaStatus
from coordinator.engine.commands import StartCommand
from coordinator.engine.ports import SagaFilter, StartKey
from participant_sdk.ids import new_saga_id, parse_saga_id
from participant_sdk.rpc_errors import ErrorReason
from saga.v1 import coordinator_pb2, participant_pb2

DEFINITION_NAME_CHARS_MAX: Final = 128
PAGE_SIZE_DEFAULT: Final = 100
PAGE_SIZE_MAX: Final = 1_000
PAGE_BYTES_MAX: Final = 2 * 1024 * 1024
"""Entries of a page together. Events and definitions may be large each: a page cut by number only could exceed what gRPC carries."""
KEY_CHARS_MAX: Final = 255
KEY_TTL_US_DEFAULT: Final = 7 * 86_400 * MICROS_PER_SECOND
KEY_TTL_US_MAX: Final = 365 * 86_400 * MICROS_PER_SECOND
REASON_CHARS_MAX: Final = 1_024
ACTOR_CHARS_MAX: Final = 255
TARGET_CHARS_MAX: Final = 1_024
REGISTRATION_TTL_US_DEFAULT: Final = 30 * MICROS_PER_SECOND
REGISTRATION_TTL_US_MIN: Final = 1 * MICROS_PER_SECOND
REGISTRATION_TTL_US_MAX: Final = 3_600 * MICROS_PER_SECOND
ACTIONS_MAX: Final = 1_000
START_AT_MAX: Final = Instant(INSTANT_MAX - DURATION_US_MAX)
"""Latest begin of a saga: its deadline must still be an instant that can be written."""
SEQUENCE_MAX: Final = 2**63 - 1
"""Largest number that databases take; no saga has more events."""

_PARTICIPANT_NAME: Final = re.compile(r"[a-z][a-z0-9_-]{0,63}")
_ACTION_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}")


def saga_id_of(text: str) -> SagaId:
    """The id of a saga that is asked for."""
    try:
        return SagaId(parse_saga_id(text))
    except ValueError as error:
        raise invalid([Problem("saga_id", str(error))]) from error


def start_command(
    request: coordinator_pb2.StartSagaRequest,
    compiled: CompiledDefinition,
    *,
    now: Instant,
    payload_bytes_max: int,
    traceparent: str,
    tracestate: str,
    sample_ratio: float,
) -> StartCommand:
    """The start that a request asks for. Refuses it with every problem at once."""
    problems = list(_find_in_start(request))
    if problems:
        raise invalid(problems)
    payload = _checked_input(request, compiled, payload_bytes_max)
    saga_id = SagaId(parse_saga_id(request.saga_id) if request.saga_id else new_saga_id())
    sample = sample_ratio > 0.0 and is_sampled(trace_id_of(saga_id), sample_ratio)
    start = Start(
        input=payload,
        labels=tuple(sorted(request.labels.items())),
        idempotency_key=request.idempotency_key,
        start_at=instant_of(request.start_at) if request.HasField("start_at") else None,
        time_limit_us=micros_of(request.time_limit) if request.HasField("time_limit") else None,
        trace=start_trace(saga_id, traceparent, tracestate, sample=sample),
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


def page_size_of(size: int) -> int:
    """Entries of a page; refuses more than PAGE_SIZE_MAX."""
    if size > PAGE_SIZE_MAX:
        raise invalid([Problem("page_size", f"expected 1 to {PAGE_SIZE_MAX}, found {size}")])
    return size or PAGE_SIZE_DEFAULT


def page_length(sizes: Iterable[int], page_size: int) -> int:
    """How many of the first entries, given the bytes of each, make a page that gRPC carries; at least one if there is any."""
    length = bytes_sum = 0
    for size in islice(sizes, page_size):
        bytes_sum += size
        if length and bytes_sum > PAGE_BYTES_MAX:
            break
        length += 1
    return length


def saga_filter(request: coordinator_pb2.ListSagasRequest) -> SagaFilter:
    """Which sagas are asked for."""
    known = {int(status) for status in SagaStatus}
    unknown = [status for status in request.statuses if status not in known]
    problems = [Problem("statuses", f"there is no status {status}") for status in unknown]
    problems.extend(find_label_problems(dict(request.labels), "labels"))
    problems.extend(_find_in_text(request.definition_name, "definition_name", DEFINITION_NAME_CHARS_MAX))
    problems.extend(_find_unreadable(lambda: instant_of(request.created_from), "created_from"))
    problems.extend(_find_unreadable(lambda: instant_of(request.created_before), "created_before"))
    if problems:
        raise invalid(problems)
    return SagaFilter(
        statuses=frozenset(SagaStatus(status) for status in request.statuses),
        definition_name=request.definition_name,
        labels=tuple(sorted(request.labels.items())),
        created_from=instant_of(request.created_from) if request.HasField("created_from") else None,
        created_before=instant_of(request.created_before) if request.HasField("created_before") else None,
    )


def saga_page_token(created_at: Instant, saga_id: SagaId) -> str:
    """Where the next page of sagas begins."""
    return base64.urlsafe_b64encode(f"{created_at}/{saga_id}".encode()).decode()


def parse_saga_page_token(token: str) -> tuple[Instant, SagaId] | None:
    """The place a page begins at; None for the first."""
    if not token:
        return None
    created_at, _, saga_id = _decoded(token).partition("/")
    try:
        return Instant(_storable(int(created_at))), SagaId(parse_saga_id(saga_id))
    except ValueError as error:
        raise _bad_token() from error


def definition_page_token(key: DefinitionKey) -> str:
    """Where the next page of definitions begins."""
    return base64.urlsafe_b64encode(f"{key.version}/{key.name}".encode()).decode()


def parse_definition_page_token(token: str) -> DefinitionKey | None:
    """The place a page begins at; None for the first."""
    if not token:
        return None
    version, _, name = _decoded(token).partition("/")
    try:
        return DefinitionKey(name, _storable(int(version)))
    except ValueError as error:
        raise _bad_token() from error


def registration_ttl_us(request: coordinator_pb2.RegisterParticipantRequest) -> int:
    """How long a registration holds. Refuses the whole request with every problem at once."""
    problems = list(_find_in_registration(request))
    if problems:
        raise invalid(problems)
    return micros_of(request.ttl) if request.HasField("ttl") else REGISTRATION_TTL_US_DEFAULT


def check_cancel(request: coordinator_pb2.CancelSagaRequest) -> None:
    """Refuses a request whose texts are too long."""
    problems = [*_find_in_text(request.reason, "reason", REASON_CHARS_MAX), *_find_in_text(request.actor, "actor", ACTOR_CHARS_MAX)]
    if problems:
        raise invalid(problems)


def definition_name_of(text: str, field: str) -> str:
    """The name of a definition that is asked for."""
    problems = list(_find_in_text(text, field, DEFINITION_NAME_CHARS_MAX))
    if problems:
        raise invalid(problems)
    return text


def sequence_of(number: int) -> int:
    """Where to read on from. Beyond what any saga has there is nothing to read."""
    return min(number, SEQUENCE_MAX)


def _checked_input(request: coordinator_pb2.StartSagaRequest, compiled: CompiledDefinition, payload_bytes_max: int) -> Payload:
    _check_size(len(request.input.value), payload_bytes_max)
    try:
        payload = compiled.canonical_input(request.input)
    except InputInvalidError as error:
        mismatch = request.input.TypeName() != compiled.message.input_type
        reason = ErrorReason.INPUT_TYPE_MISMATCH if mismatch else ErrorReason.INPUT_INVALID
        raise invalid([Problem("input", str(error))], reason) from error
    _check_size(len(payload.value), payload_bytes_max)  # numbers that were packed may need a tag each in their canonical form
    return payload


def _check_size(size: int, payload_bytes_max: int) -> None:
    if size > payload_bytes_max:
        raise refusal(
            StatusCode.INVALID_ARGUMENT,
            ErrorReason.PAYLOAD_TOO_LARGE,
            f"input: expected at most {payload_bytes_max} bytes, found {size}; store large content elsewhere and pass its address",
            bytes=str(size),
            bytes_max=str(payload_bytes_max),
        )


def _start_key(request: coordinator_pb2.StartSagaRequest, definition_name: str, now: Instant) -> StartKey | None:
    if not request.idempotency_key:
        return None
    ttl_us = micros_of(request.idempotency_key_ttl) if request.HasField("idempotency_key_ttl") else KEY_TTL_US_DEFAULT
    return StartKey(definition_name=definition_name, key=request.idempotency_key, expires_at=Instant(now + ttl_us))


def _find_in_start(request: coordinator_pb2.StartSagaRequest) -> Iterator[Problem]:
    if request.saga_id:
        yield from _find_unreadable(lambda: parse_saga_id(request.saga_id), "saga_id")
    yield from _find_in_text(request.idempotency_key, "idempotency_key", KEY_CHARS_MAX)
    yield from find_label_problems(dict(request.labels), "labels")
    yield from _find_unreadable(lambda: _check_start_at(instant_of(request.start_at)), "start_at")
    if request.HasField("time_limit"):
        yield from _find_in_duration(request.time_limit, "time_limit", 1_000, DURATION_US_MAX)
    if request.HasField("idempotency_key_ttl"):
        yield from _find_in_duration(request.idempotency_key_ttl, "idempotency_key_ttl", MICROS_PER_SECOND, KEY_TTL_US_MAX)


def _check_start_at(instant: Instant) -> None:
    if instant > START_AT_MAX:
        raise ValueError("expected a begin before the year 9999, so that its deadline can be written too")


def _find_in_registration(request: coordinator_pb2.RegisterParticipantRequest) -> Iterator[Problem]:
    description = request.description
    if not _PARTICIPANT_NAME.fullmatch(description.name):
        expected = "a lower-case letter, then lower-case letters, digits, '-' or '_', at most 64"
        yield Problem("description.name", f"expected {expected}, found {description.name[:80]!r}")
    if not request.target:
        yield Problem("target", 'expected a gRPC target like "127.0.0.1:50051" or "unix:/run/payments.sock", found nothing')
    yield from _find_in_text(request.target, "target", TARGET_CHARS_MAX)
    if not 1 <= len(description.actions) <= ACTIONS_MAX:
        yield Problem("description.actions", f"expected 1 to {ACTIONS_MAX} actions, found {len(description.actions)}")
    else:
        yield from _find_in_actions(description)
    if request.HasField("ttl"):
        yield from _find_in_duration(request.ttl, "ttl", REGISTRATION_TTL_US_MIN, REGISTRATION_TTL_US_MAX)


def _find_in_actions(description: participant_pb2.ParticipantDescription) -> Iterator[Problem]:
    names = [action.name for action in description.actions]
    for index, name in enumerate(names):
        if not _ACTION_NAME.fullmatch(name):
            yield Problem(f"description.actions[{index}].name", f"expected an identifier of at most 64 characters, found {name[:80]!r}")
        elif name in names[:index]:
            yield Problem(f"description.actions[{index}].name", f"{name!r} is described twice")


def _find_in_text(text: str, field: str, chars_max: int) -> Iterator[Problem]:
    if len(text) > chars_max:
        yield Problem(field, f"expected at most {chars_max} characters, found {len(text)}")
    if "\0" in text:  # databases refuse NUL in text (R28)
        yield Problem(field, "expected text without NUL characters")


def _find_in_duration(duration: Duration, field: str, least_us: int, most_us: int) -> Iterator[Problem]:
    try:
        found_us = micros_of(duration)
    except ValueError as error:
        yield Problem(field, str(error))
        return
    if not least_us <= found_us <= most_us:
        expected = f"{least_us / MICROS_PER_SECOND:g} to {most_us / MICROS_PER_SECOND:g} s"
        yield Problem(field, f"expected {expected}, found {found_us / MICROS_PER_SECOND:g} s")


def _find_unreadable(read: Callable[[], object], field: str) -> Iterator[Problem]:
    try:
        read()
    except ValueError as error:
        yield Problem(field, str(error))


def _decoded(token: str) -> str:
    try:
        return base64.urlsafe_b64decode(token.encode()).decode()
    except (binascii.Error, UnicodeError, ValueError) as error:
        raise _bad_token() from error


def _storable(number: int) -> int:
    if abs(number) > SEQUENCE_MAX:
        raise ValueError(f"expected at most {SEQUENCE_MAX}, found {number}")
    return number


def _bad_token() -> Exception:
    return invalid([Problem("page_token", "expected the next_page_token of an earlier answer; leave it empty for the first page")])
