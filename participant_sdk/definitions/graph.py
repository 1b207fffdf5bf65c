"""The order of the steps of a definition."""

from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from typing import Final

from participant_sdk.definitions.problems import Problem
from saga.v1 import saga_pb2

STEPS_MAX: Final = 256
CYCLE_SHOWN_MAX: Final = 20


def predecessors_of(definition: saga_pb2.SagaDefinition) -> list[list[str]]:
    """Per step: the ids of the steps before it. Unset means the step before it in the list."""
    before: list[list[str]] = []
    for index, step in enumerate(definition.steps):
        if step.HasField("after"):
            before.append(list(step.after.step_ids))
        else:
            before.append([definition.steps[index - 1].id] if index else [])
    return before


def ancestors_of(definition: saga_pb2.SagaDefinition) -> list[frozenset[str]]:
    """Per step: the ids of all steps that come before it, directly or not. Only for a definition without problems in its graph."""
    before = {step.id: names for step, names in zip(definition.steps, predecessors_of(definition), strict=True)}
    found: dict[str, frozenset[str]] = {}
    for step_id in TopologicalSorter(before).static_order():
        direct = before[step_id]
        found[step_id] = frozenset(direct).union(*(found[name] for name in direct))
    return [found[step.id] for step in definition.steps]


def find_graph_problems(definition: saga_pb2.SagaDefinition) -> Iterator[Problem]:
    """What is wrong with the ids and the order of steps."""
    problems = [*_find_repeated_ids(definition), *_find_in_order(definition)]
    yield from problems
    if problems:
        return
    before = zip((step.id for step in definition.steps), predecessors_of(definition), strict=True)
    try:
        TopologicalSorter(dict(before)).prepare()
    except CycleError as error:
        cycle: list[str] = error.args[1]
        shown = " before ".join(cycle[:CYCLE_SHOWN_MAX]) + (" …" if len(cycle) > CYCLE_SHOWN_MAX else "")
        yield Problem("definition.steps", f"expected an order without cycles, found: {shown}; take one of them out of an `after`")


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
