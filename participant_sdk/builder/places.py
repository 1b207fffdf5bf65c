"""Where a problem of a definition is, in the words of whoever wrote the definition."""

import re
from typing import Final

from participant_sdk.definitions.problems import Problem
from saga.v1 import saga_pb2

_STEP: Final = re.compile(r"steps\[(\d+)\](?:\.(.+))?")
_ROOT: Final = "definition"
_HOOKS: Final = ("definition.on_success", "definition.on_failure")


def describe_problem(definition: saga_pb2.SagaDefinition, problem: Problem) -> str:
    """One line. Example: "step charge, input: expected a shop.v1.ChargeCard, …"."""
    return f"{describe_place(definition, problem.field)}: {problem.description}"


def describe_place(definition: saga_pb2.SagaDefinition, field: str) -> str:
    """Names a field by its step, not by a number.

    "definition.steps[2].input" is "step charge, input"; "definition.on_success.action" is "on_success, action";
    "definition.version" is "version". A step whose id is missing or taken twice is named by its place, from 1.
    """
    path = field.removeprefix(_ROOT).removeprefix(".")
    if not path:
        return _ROOT
    in_step = _STEP.fullmatch(path)
    if in_step is None:
        part, _, rest = path.partition(".")
        return f"{part}, {rest}" if rest else part
    index, rest = int(in_step[1]), in_step[2]
    name = _step_name(definition, index)
    return f"{name}, {rest.replace('after.step_ids', 'after')}" if rest else name


def reading_order(problem: Problem) -> tuple[int, int]:
    """Sorts problems as a definition is read: its head, its steps, its hooks."""
    in_step = _STEP.match(problem.field.removeprefix(_ROOT).removeprefix("."))
    if in_step is not None:
        return 1, int(in_step[1])
    return (2, 0) if problem.field.startswith(_HOOKS) else (0, 0)


def _step_name(definition: saga_pb2.SagaDefinition, index: int) -> str:
    ids = [step.id for step in definition.steps]
    step_id = ids[index] if index < len(ids) else ""
    if not step_id:
        return f"step number {index + 1}"
    return f"step {step_id}" if ids.count(step_id) == 1 else f"step number {index + 1} ({step_id})"
