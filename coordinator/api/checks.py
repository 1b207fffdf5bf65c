"""What is wrong with the small parts of requests: texts, durations, sizes, ids."""

from collections.abc import Callable, Iterable, Iterator
from typing import Final

from google.protobuf.any_pb2 import Any
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp
from grpc import StatusCode

from coordinator.api.errors import invalid, not_found, refusal
from coordinator.codec.definitions import CompiledDefinition, InputInvalidError
from coordinator.codec.values import instant_of
from coordinator.core.plan import StepPlan
from coordinator.core.values import MICROS_PER_SECOND, Instant, Payload, SagaId, StepId
from participant_sdk.definitions.durations import micros_of
from participant_sdk.definitions.problems import Problem
from participant_sdk.ids import parse_saga_id
from participant_sdk.rpc_errors import ErrorReason

DEFINITION_NAME_CHARS_MAX: Final = 128
STEP_ID_CHARS_MAX: Final = 64
REASON_CHARS_MAX: Final = 1_024
ACTOR_CHARS_MAX: Final = 255


def saga_id_of(text: str) -> SagaId:
    """The id of a saga that is asked for."""
    refuse_if_any(find_in_saga_id(text, "saga_id"))
    return SagaId(parse_saga_id(text))


def find_in_saga_id(text: str, field: str) -> Iterator[Problem]:
    """Says what is wrong with the id of a saga."""
    try:
        parse_saga_id(text)
    except ValueError as error:
        yield Problem(field, str(error))


def definition_name_of(text: str, field: str) -> str:
    """The name of a definition that is asked for."""
    refuse_if_any(find_in_text(text, field, DEFINITION_NAME_CHARS_MAX))
    return text


def step_of(compiled: CompiledDefinition, step_id: str) -> StepPlan:
    """The step, or hook, of that id; refuses with NOT_FOUND if the definition has none."""
    try:
        return compiled.plan.step_plan(StepId(step_id))
    except KeyError as error:
        name, version = compiled.key
        known = ", ".join(step.id for step in compiled.plan.steps)
        message = f"definition {name!r} version {version} has no step {step_id!r}; it has: {known}"
        raise not_found(ErrorReason.STEP_NOT_FOUND, "saga.v1.StepDefinition", step_id, message) from error


def refuse_if_any(problems: Iterable[Problem]) -> None:
    """Refuses a request that has problems, with all of them at once."""
    found = list(problems)
    if found:
        raise invalid(found)


def check_payload(
    given: Any, field: str, canonical: Callable[[Any], Payload], *, expected_type: str | None = None, payload_bytes_max: int
) -> Payload:
    """A payload in the coordinator's own serialisation (R3). Refuses one that is too large, or of another type than `expected_type`."""
    check_size(len(given.value), field, payload_bytes_max)
    try:
        payload = canonical(given)
    except InputInvalidError as error:
        is_other_type = expected_type is not None and given.TypeName() != expected_type
        reason = ErrorReason.INPUT_TYPE_MISMATCH if is_other_type else ErrorReason.INPUT_INVALID
        raise invalid([Problem(field, str(error))], reason) from error
    check_size(len(payload.value), field, payload_bytes_max)  # numbers that were packed may need a tag each in their canonical form
    return payload


def check_size(size: int, field: str, payload_bytes_max: int) -> None:
    """Refuses a payload that is too large."""
    if size > payload_bytes_max:
        raise refusal(
            StatusCode.INVALID_ARGUMENT,
            ErrorReason.PAYLOAD_TOO_LARGE,
            f"{field}: expected at most {payload_bytes_max} bytes, found {size}; store large content elsewhere and pass its address",
            bytes=str(size),
            bytes_max=str(payload_bytes_max),
        )


def find_in_text(text: str, field: str, chars_max: int) -> Iterator[Problem]:
    """What keeps a text from being stored."""
    if len(text) > chars_max:
        yield Problem(field, f"expected at most {chars_max} characters, found {len(text)}")
    if "\0" in text:  # databases refuse NUL in text (R28)
        yield Problem(field, "expected text without NUL characters")


def find_in_person(actor: str, reason: str, *, is_reason_required: bool = False) -> Iterator[Problem]:
    """What is wrong with who does something, and why."""
    if is_reason_required and not reason.strip():
        yield Problem("reason", "expected why this is done: it is kept in the history for those who ask later")
    yield from find_in_text(reason, "reason", REASON_CHARS_MAX)
    yield from find_in_text(actor, "actor", ACTOR_CHARS_MAX)


def find_in_duration(duration: Duration, field: str, least_us: int, most_us: int) -> Iterator[Problem]:
    """What is wrong with a duration."""
    try:
        found_us = micros_of(duration)
    except ValueError as error:
        yield Problem(field, str(error))
        return
    if not least_us <= found_us <= most_us:
        expected = f"{least_us / MICROS_PER_SECOND:g} to {most_us / MICROS_PER_SECOND:g} s"
        yield Problem(field, f"expected {expected}, found {found_us / MICROS_PER_SECOND:g} s")


def find_unreadable(read: Callable[[], object], field: str) -> Iterator[Problem]:
    """Why a value cannot be read; `read` raises ValueError then."""
    try:
        read()
    except ValueError as error:
        yield Problem(field, str(error))


def find_in_numbers(numbers: Iterable[int], known: Iterable[int], field: str, noun: str) -> Iterator[Problem]:
    """Which numbers of an enum do not exist, each told once."""
    for number in sorted(set(numbers) - set(known)):
        yield Problem(field, f"there is no {noun} {number}")


def given_instant(message: Timestamp, *, is_given: bool) -> Instant | None:
    """The instant; None if the field is not set."""
    return instant_of(message) if is_given else None
