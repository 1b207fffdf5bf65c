"""What makes a saga definition right. Every problem is found at once, and each says where it is and what was expected."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Final

from google.protobuf.message import Message
from google.protobuf.unknown_fields import UnknownFieldSet

from participant_sdk.definitions.flow import RESERVED_STEP_IDS, STEP_ID, Flow, check_flow
from participant_sdk.definitions.graph import STEPS_MAX, ancestors_of, find_graph_problems, predecessors_of
from participant_sdk.definitions.kinds import find_kind_problems
from participant_sdk.definitions.message_types import MessageTypes
from participant_sdk.definitions.policies import (
    DURATION_US_MAX,
    DURATION_US_MIN,
    HOOK_DURATIONS,
    HOOK_RETRIES,
    MULTIPLIER_MAX,
    STEP_DURATIONS,
    STEP_RETRIES,
    find_duration_problems,
    find_policy_problems,
)
from participant_sdk.definitions.problems import PROBLEMS_MAX, Problem
from saga.v1 import saga_pb2

__all__ = [
    "DURATION_US_MAX",
    "DURATION_US_MIN",
    "LABELS_MAX",
    "LABEL_KEY_CHARS_MAX",
    "LABEL_VALUE_CHARS_MAX",
    "MULTIPLIER_MAX",
    "STEPS_MAX",
    "Judgement",
    "ancestors_of",
    "find_label_problems",
    "find_problems",
    "judge_definition",
    "predecessors_of",
]

LABELS_MAX: Final = 64
LABEL_KEY_CHARS_MAX: Final = 63
LABEL_VALUE_CHARS_MAX: Final = 255

_DEFINITION_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_ACTION: Final = re.compile(r"[a-z][a-z0-9_-]{0,63}\.[A-Za-z_][A-Za-z0-9_]{0,63}")
_KINDS: Final = {number: name.removeprefix("STEP_KIND_") for name, number in saga_pb2.StepKind.items() if number}
_HOOKS: Final = ("on_success", "on_failure")


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """What was found out about a definition."""

    problems: tuple[Problem, ...]
    """Everything that is wrong, up to PROBLEMS_MAX; empty: nothing."""
    flow: Flow | None
    """Its expressions, compiled; None if it has problems."""


def find_problems(definition: saga_pb2.SagaDefinition, types: MessageTypes) -> list[Problem]:
    """Everything that is wrong with a definition, up to PROBLEMS_MAX; empty: nothing."""
    return list(judge_definition(definition, types).problems)


def judge_definition(definition: saga_pb2.SagaDefinition, types: MessageTypes) -> Judgement:
    """Checks a definition and compiles its expressions, which is the larger part of checking."""
    problems = list(islice(_find_in_shape(definition, types), PROBLEMS_MAX))
    if len(definition.steps) > STEPS_MAX:  # what follows costs more than its share for very many steps
        return Judgement(problems=tuple(problems), flow=None)
    graph_problems = list(islice(find_graph_problems(definition), PROBLEMS_MAX))
    problems += graph_problems
    ancestors = None
    if not graph_problems:  # what comes before what is only known in a sound graph
        ancestors = ancestors_of(definition)
        problems += find_kind_problems(definition, ancestors)
    flow, flow_problems = check_flow(definition, types, ancestors)
    problems += flow_problems
    return Judgement(problems=tuple(problems[:PROBLEMS_MAX]), flow=None if problems else flow)


def find_label_problems(labels: dict[str, str], path: str) -> Iterator[Problem]:
    """What is wrong with labels."""
    if len(labels) > LABELS_MAX:
        yield Problem(path, f"expected at most {LABELS_MAX} labels, found {len(labels)}")
    for key, value in labels.items():
        if not 1 <= len(key) <= LABEL_KEY_CHARS_MAX or "\0" in key:
            yield Problem(f"{path}[{key[:80]!r}]", f"expected a key of 1 to {LABEL_KEY_CHARS_MAX} characters without NUL, found {len(key)}")
        if len(value) > LABEL_VALUE_CHARS_MAX or "\0" in value:
            yield Problem(f"{path}[{key[:80]!r}]", f"expected a value of at most {LABEL_VALUE_CHARS_MAX} characters without NUL")


def _find_in_shape(definition: saga_pb2.SagaDefinition, types: MessageTypes) -> Iterator[Problem]:
    yield from _find_in_head(definition, types)
    if len(definition.steps) > STEPS_MAX:
        return
    yield from _find_unknown_fields(definition, "definition")
    for index, step in enumerate(definition.steps):
        yield from _find_in_step(step, f"definition.steps[{index}]", types)
    for name in _HOOKS:
        if definition.HasField(name):
            yield from _find_in_hook(getattr(definition, name), f"definition.{name}", types)


def _find_in_head(definition: saga_pb2.SagaDefinition, types: MessageTypes) -> Iterator[Problem]:
    if not _DEFINITION_NAME.fullmatch(definition.name):
        yield Problem("definition.name", f"expected 1 to 128 letters, digits, '.', '-' or '_', found {definition.name[:140]!r}")
    if definition.version < 1:
        yield Problem("definition.version", "expected 1 or more, found 0")
    if definition.version > 2**31 - 1:
        yield Problem("definition.version", f"expected at most {2**31 - 1}, found {definition.version}")
    yield from _find_in_type(definition.input_type, "definition.input_type", types)
    if definition.output_type:
        yield from _find_in_type(definition.output_type, "definition.output_type", types)
    if not 1 <= len(definition.steps) <= STEPS_MAX:
        yield Problem("definition.steps", f"expected 1 to {STEPS_MAX} steps, found {len(definition.steps)}")
    if definition.HasField("time_limit"):
        yield from find_duration_problems(definition.time_limit, "definition.time_limit")
    yield from _find_unknown_fields(definition.defaults, "definition.defaults")
    yield from find_policy_problems(definition.defaults, "definition.defaults", durations=STEP_DURATIONS, retries=STEP_RETRIES)
    yield from find_label_problems(dict(definition.labels), "definition.labels")


def _find_in_step(step: saga_pb2.StepDefinition, path: str, types: MessageTypes) -> Iterator[Problem]:
    if not STEP_ID.fullmatch(step.id):
        expected = "a letter or '_', then letters, digits or '_', at most 64"
        yield Problem(f"{path}.id", f"expected {expected}, found {step.id[:80]!r}")
    elif step.id in RESERVED_STEP_IDS:
        yield Problem(f"{path}.id", f"{step.id!r} is reserved; choose another id")
    if step.kind and step.kind not in _KINDS:
        yield Problem(f"{path}.kind", f"expected one of {', '.join(_KINDS.values())}, found {step.kind}")
    if step.without_compensation and step.kind != saga_pb2.STEP_KIND_BEST_EFFORT:
        kind = _KINDS.get(step.kind, "COMPENSATABLE")
        told = f"only a BEST_EFFORT step may say so, this one is {kind}; leave it out, or change the kind"
        yield Problem(f"{path}.without_compensation", told)
    yield from _find_in_call(step, path, types)
    yield from find_policy_problems(step, path, durations=STEP_DURATIONS, retries=STEP_RETRIES)


def _find_in_hook(hook: saga_pb2.HookDefinition, path: str, types: MessageTypes) -> Iterator[Problem]:
    yield from _find_in_call(hook, path, types)
    yield from find_policy_problems(hook, path, durations=HOOK_DURATIONS, retries=HOOK_RETRIES)


def _find_in_call(call: saga_pb2.StepDefinition | saga_pb2.HookDefinition, path: str, types: MessageTypes) -> Iterator[Problem]:
    if not _ACTION.fullmatch(call.action):
        yield Problem(f"{path}.action", f'expected "participant.action" like "inventory.reserve", found {call.action[:140]!r}')
    yield from _find_in_type(call.input_type, f"{path}.input_type", types)
    yield from _find_in_type(call.output_type, f"{path}.output_type", types)
    yield from _find_unknown_fields(call, path)


def _find_unknown_fields(message: Message, path: str) -> Iterator[Problem]:
    """A field that this version does not know may change what the plan means: it is refused, not ignored."""
    unknown = UnknownFieldSet(message)
    numbers = sorted({unknown[index].field_number for index in range(len(unknown))})
    if numbers:
        shown = ", ".join(str(number) for number in numbers[:10])
        yield Problem(path, f"expected fields that this version knows, found field numbers {shown}; who wrote it is newer")


def _find_in_type(name: str, path: str, types: MessageTypes) -> Iterator[Problem]:
    if not name:
        yield Problem(path, 'expected the full name of a message like "shop.v1.PlaceOrder", found nothing')
    elif types.find(name) is None:
        yield Problem(path, f"message {name[:200]!r} is not in the descriptors that came with the definition")
