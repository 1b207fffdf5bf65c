"""What makes a saga definition right. Every problem is found at once, and each says where it is and what was expected."""

import re
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Final, Literal, NamedTuple

from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.protobuf.unknown_fields import UnknownFieldSet

from coordinator.codec.message_types import MessageTypes
from coordinator.codec.values import micros_of
from coordinator.core.plan import topological_order
from coordinator.core.values import StepKind
from saga.v1 import saga_pb2

STEPS_MAX: Final = 256
LABELS_MAX: Final = 64
LABEL_KEY_CHARS_MAX: Final = 63
LABEL_VALUE_CHARS_MAX: Final = 255
MULTIPLIER_MAX: Final = 100.0
DURATION_US_MIN: Final = 1_000
DURATION_US_MAX: Final = 366 * 24 * 3_600 * 1_000_000
CODES: Final = range(1, 17)
PROBLEMS_MAX: Final = 100
"""Problems that are told at once; a definition with more is told the first."""

_DEFINITION_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_STEP_ID: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}")
_ACTION: Final = re.compile(r"[a-z][a-z0-9_-]{0,63}\.[A-Za-z_][A-Za-z0-9_]{0,63}")
_RESERVED_STEP_IDS: Final = frozenset(
    {"input", "ran", "true", "false", "null", "in", "as", "break", "const", "continue", "else", "for", "function", "if", "import", "let"}
    | {"loop", "package", "namespace", "return", "var", "void", "while"}
)
"""`input` and `ran` name other things in expressions; the rest are no identifiers of the Common Expression Language."""
_KINDS: Final = frozenset(int(kind) for kind in StepKind)
_DurationField = Literal["attempt_timeout", "execute_time_limit", "compensate_time_limit"]
_RetryField = Literal["execute_retry", "compensate_retry"]
_STEP_DURATIONS: Final[tuple[_DurationField, ...]] = ("attempt_timeout", "execute_time_limit", "compensate_time_limit")
_STEP_RETRIES: Final[tuple[_RetryField, ...]] = ("execute_retry", "compensate_retry")


class Problem(NamedTuple):
    """One thing that is wrong."""

    field: str
    """Path in the request. Example: "definition.steps[2].input"."""
    description: str
    """What was expected and what was found."""


def predecessors_of(definition: saga_pb2.SagaDefinition) -> list[list[str]]:
    """Per step: the ids of the steps before it. Unset means the step before it in the list."""
    before: list[list[str]] = []
    for index, step in enumerate(definition.steps):
        if step.HasField("after"):
            before.append(list(step.after.step_ids))
        else:
            before.append([definition.steps[index - 1].id] if index else [])
    return before


def find_problems(definition: saga_pb2.SagaDefinition, types: MessageTypes) -> list[Problem]:
    """Everything that is wrong with a definition, up to PROBLEMS_MAX; empty: nothing."""
    return list(islice(_find_all(definition, types), PROBLEMS_MAX))


def _find_all(definition: saga_pb2.SagaDefinition, types: MessageTypes) -> Iterator[Problem]:
    yield from _find_in_head(definition, types)
    if len(definition.steps) > STEPS_MAX:
        return  # what follows costs more than its share for very many steps
    yield from _find_unknown_fields(definition, "definition")
    for index, step in enumerate(definition.steps):
        yield from _find_in_step(step, f"definition.steps[{index}]", types)
        yield from _find_unknown_fields(step, f"definition.steps[{index}]")
    graph_problems = list(islice(_find_in_graph(definition), PROBLEMS_MAX))
    yield from graph_problems
    if not graph_problems:  # what comes before what is only known in a sound graph
        yield from _find_in_flow(definition)


def find_label_problems(labels: dict[str, str], path: str) -> Iterator[Problem]:
    """What is wrong with labels."""
    if len(labels) > LABELS_MAX:
        yield Problem(path, f"expected at most {LABELS_MAX} labels, found {len(labels)}")
    for key, value in labels.items():
        if not 1 <= len(key) <= LABEL_KEY_CHARS_MAX or "\0" in key:
            yield Problem(f"{path}[{key[:80]!r}]", f"expected a key of 1 to {LABEL_KEY_CHARS_MAX} characters without NUL, found {len(key)}")
        if len(value) > LABEL_VALUE_CHARS_MAX or "\0" in value:
            yield Problem(f"{path}[{key[:80]!r}]", f"expected a value of at most {LABEL_VALUE_CHARS_MAX} characters without NUL")


def _find_in_head(definition: saga_pb2.SagaDefinition, types: MessageTypes) -> Iterator[Problem]:
    if not _DEFINITION_NAME.fullmatch(definition.name):
        yield Problem("definition.name", f"expected 1 to 128 letters, digits, '.', '-' or '_', found {definition.name[:140]!r}")
    if definition.version < 1:
        yield Problem("definition.version", "expected 1 or more, found 0")
    if definition.version > 2**31 - 1:
        yield Problem("definition.version", f"expected at most {2**31 - 1}, found {definition.version}")
    yield from _find_in_type(definition.input_type, "definition.input_type", types)
    if not 1 <= len(definition.steps) <= STEPS_MAX:
        yield Problem("definition.steps", f"expected 1 to {STEPS_MAX} steps, found {len(definition.steps)}")
    if definition.HasField("time_limit"):
        yield from _find_in_duration(definition.time_limit, "definition.time_limit")
    yield from _find_in_policies(definition.defaults, "definition.defaults")
    yield from find_label_problems(dict(definition.labels), "definition.labels")


def _find_in_step(step: saga_pb2.StepDefinition, path: str, types: MessageTypes) -> Iterator[Problem]:
    if not _STEP_ID.fullmatch(step.id):
        expected = "a letter or '_', then letters, digits or '_', at most 64"
        yield Problem(f"{path}.id", f"expected {expected}, found {step.id[:80]!r}")
    elif step.id in _RESERVED_STEP_IDS:
        yield Problem(f"{path}.id", f"{step.id!r} is reserved; choose another id")
    if not _ACTION.fullmatch(step.action):
        yield Problem(f"{path}.action", f'expected "participant.action" like "inventory.reserve", found {step.action[:140]!r}')
    if step.kind and step.kind not in _KINDS:
        yield Problem(f"{path}.kind", f"expected one of {', '.join(kind.name for kind in StepKind)}, found {step.kind}")
    yield from _find_in_type(step.input_type, f"{path}.input_type", types)
    yield from _find_in_type(step.output_type, f"{path}.output_type", types)
    yield from _find_in_policies(step, path)


def _find_unknown_fields(message: Message, path: str) -> Iterator[Problem]:
    """A field that this version does not know may change what the plan means: it is refused, not ignored."""
    unknown = UnknownFieldSet(message)
    numbers = sorted({unknown[index].field_number for index in range(len(unknown))})
    if numbers:
        shown = ", ".join(str(number) for number in numbers[:10])
        yield Problem(path, f"expected fields that this coordinator knows, found field numbers {shown}; the client is newer than it")


def _find_in_type(name: str, path: str, types: MessageTypes) -> Iterator[Problem]:
    if not name:
        yield Problem(path, 'expected the full name of a message like "shop.v1.PlaceOrder", found nothing')
    elif types.find(name) is None:
        yield Problem(path, f"message {name[:200]!r} is not in the descriptors that came with the definition")


def _find_in_policies(holder: saga_pb2.StepDefinition | saga_pb2.StepDefaults, path: str) -> Iterator[Problem]:
    for field in _STEP_DURATIONS:
        if holder.HasField(field):
            yield from _find_in_duration(getattr(holder, field), f"{path}.{field}")
    for retry in _STEP_RETRIES:
        if holder.HasField(retry):
            yield from _find_in_retry(getattr(holder, retry), f"{path}.{retry}")


def _find_in_retry(policy: saga_pb2.RetryPolicy, path: str) -> Iterator[Problem]:
    if policy.HasField("initial_backoff"):
        yield from _find_in_duration(policy.initial_backoff, f"{path}.initial_backoff")
    if policy.HasField("max_backoff"):
        yield from _find_in_duration(policy.max_backoff, f"{path}.max_backoff")
    if policy.multiplier and not 1.0 <= policy.multiplier <= MULTIPLIER_MAX:  # also refuses NaN
        yield Problem(f"{path}.multiplier", f"expected 1 to {MULTIPLIER_MAX:g}, found {policy.multiplier:g}")
    if len(policy.non_retryable_codes) > len(CODES):
        yield Problem(f"{path}.non_retryable_codes", f"expected at most {len(CODES)} codes, found {len(policy.non_retryable_codes)}")
        return
    for index, code in enumerate(policy.non_retryable_codes):
        if code not in CODES:
            yield Problem(f"{path}.non_retryable_codes[{index}]", f"expected a gRPC status code from 1 to 16, found {code}")


def _find_in_duration(duration: Duration, path: str) -> Iterator[Problem]:
    try:
        found_us = micros_of(duration)
    except ValueError as error:
        yield Problem(path, str(error))
        return
    if not DURATION_US_MIN <= found_us <= DURATION_US_MAX:
        yield Problem(path, f"expected 1 ms to 366 days, found {found_us / 1_000_000:g} s")


def _find_in_graph(definition: saga_pb2.SagaDefinition) -> Iterator[Problem]:
    problems = [*_find_repeated_ids(definition), *_find_in_order(definition)]
    yield from problems
    if problems:
        return
    index_of = {step.id: index for index, step in enumerate(definition.steps)}
    _, blocked = topological_order([[index_of[name] for name in names] for names in predecessors_of(definition)])
    if blocked:
        cycle = ", ".join(definition.steps[index].id for index in blocked)
        yield Problem("definition.steps", f"expected an order without cycles; these steps wait for each other or behind such: {cycle}")


def _find_repeated_ids(definition: saga_pb2.SagaDefinition) -> Iterator[Problem]:
    seen: set[str] = set()
    for index, step in enumerate(definition.steps):
        if step.id in seen:
            yield Problem(f"definition.steps[{index}].id", f"{step.id[:80]!r} is the id of an earlier step too; ids must be unique")
        seen.add(step.id)


def _find_in_order(definition: saga_pb2.SagaDefinition) -> Iterator[Problem]:
    ids = {step.id for step in definition.steps}
    for index, names in enumerate(predecessors_of(definition)):
        path = f"definition.steps[{index}].after.step_ids"
        if len(names) > STEPS_MAX:
            yield Problem(path, f"expected at most {STEPS_MAX} ids, found {len(names)}")
            continue
        seen: set[str] = set()
        for place, name in enumerate(names):
            if name not in ids:
                yield Problem(f"{path}[{place}]", f"there is no step {name[:80]!r}")
            elif name in seen:
                yield Problem(f"{path}[{place}]", f"{name[:80]!r} is named twice")
            seen.add(name)


def _find_in_flow(definition: saga_pb2.SagaDefinition) -> Iterator[Problem]:
    """Whether what a step takes is there before it, and of the type that it takes."""
    output_types = {step.id: step.output_type for step in definition.steps}
    ancestors = _ancestors(definition)
    for index, step in enumerate(definition.steps):
        source, path = step.input or "input", f"definition.steps[{index}].input"
        if source == "input":
            found = definition.input_type
        elif source in ancestors[index]:
            found = output_types[source]
        else:
            known = ", ".join(sorted(["input", *ancestors[index]]))
            yield Problem(path, f"expected one of {known} (the saga's input, or a step before this one), found {source[:80]!r}")
            continue
        if step.input_type and found and found != step.input_type:
            yield Problem(path, f"{step.action} takes a {step.input_type}, but {source!r} is a {found}")
    if definition.output and definition.output != "input" and definition.output not in output_types:
        yield Problem("definition.output", f'expected "input" or the id of a step, found {definition.output[:80]!r}')


def _ancestors(definition: saga_pb2.SagaDefinition) -> Sequence[frozenset[str]]:
    index_of = {step.id: index for index, step in enumerate(definition.steps)}
    before = predecessors_of(definition)
    order, _ = topological_order([[index_of[name] for name in names] for names in before])
    found: list[frozenset[str]] = [frozenset()] * len(before)
    for index in order:
        direct = before[index]
        found[index] = frozenset(direct).union(*(found[index_of[name]] for name in direct))
    return found
