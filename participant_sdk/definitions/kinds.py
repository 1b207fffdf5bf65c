"""Whether the kinds of the steps fit their order: no saga may come to a point where it can go neither forward nor back (R9)."""

from collections.abc import Iterator, Sequence
from typing import Final

from participant_sdk.definitions.problems import Problem
from saga.v1 import saga_pb2

NAMES_SHOWN_MAX: Final = 10


def kind_of(step: saga_pb2.StepDefinition) -> saga_pb2.StepKind.ValueType:
    """The kind, the default filled in."""
    return step.kind or saga_pb2.STEP_KIND_COMPENSATABLE


def find_kind_problems(definition: saga_pb2.SagaDefinition, ancestors: Sequence[frozenset[str]]) -> Iterator[Problem]:  # R9
    """What is wrong with the kinds of a definition whose graph is sound. `ancestors`: per step."""
    pivots = [index for index, step in enumerate(definition.steps) if step.kind == saga_pb2.STEP_KIND_PIVOT]
    if len(pivots) > 1:
        first = definition.steps[pivots[0]].id
        for index in pivots[1:]:
            yield _problem(
                index,
                f'"{definition.steps[index].id}" is a PIVOT, but "{first}" is one already, and a saga has one point of no return at most; '
                "make what comes before it COMPENSATABLE, and what comes after it RETRIABLE",
            )
    elif pivots:
        yield from _find_around_pivot(definition, ancestors, pivots[0])
    else:
        yield from _find_without_pivot(definition, ancestors)


def _find_around_pivot(definition: saga_pb2.SagaDefinition, ancestors: Sequence[frozenset[str]], pivot: int) -> Iterator[Problem]:
    name = definition.steps[pivot].id
    for index, step in enumerate(definition.steps):
        is_before, is_after = step.id in ancestors[pivot], name in ancestors[index]
        where = "after" if is_after else "before" if is_before else "beside"
        if kind_of(step) == saga_pb2.STEP_KIND_COMPENSATABLE and not is_before:
            change = f'move it before "{name}"' if is_after else f'add "{step.id}" to the `after` of "{name}"'
            yield _problem(
                index,
                f'"{step.id}" is COMPENSATABLE and comes {where} the pivot "{name}", where nothing can be undone any more; {change}, '
                "or make it RETRIABLE, which must succeed in the end, or BEST_EFFORT, which need not",
            )
        elif step.kind == saga_pb2.STEP_KIND_RETRIABLE and not is_after:
            yield _problem(
                index,
                f'"{step.id}" is RETRIABLE, must succeed in the end, and comes {where} the pivot "{name}", after which alone that is sure; '
                f'add "{name}" to its `after`, or make it COMPENSATABLE'
                + (f' and add "{step.id}" to the `after` of "{name}"' if where == "beside" else ""),
            )


def _find_without_pivot(definition: saga_pb2.SagaDefinition, ancestors: Sequence[frozenset[str]]) -> Iterator[Problem]:
    """The first RETRIABLE step that is due is the point of no return: all that may have to be undone must be done then."""
    compensatable = [step.id for step in definition.steps if kind_of(step) == saga_pb2.STEP_KIND_COMPENSATABLE]
    for index, step in enumerate(definition.steps):
        if step.kind != saga_pb2.STEP_KIND_RETRIABLE:
            continue
        late = [name for name in compensatable if name not in ancestors[index]]
        if late:
            shown = ", ".join(f'"{name}"' for name in late[:NAMES_SHOWN_MAX]) + (", …" if len(late) > NAMES_SHOWN_MAX else "")
            yield _problem(
                index,
                f'"{step.id}" is RETRIABLE, so nothing can be undone once it is due, but these COMPENSATABLE steps do not come before it: '
                f"{shown}; add them to its `after`, or make them RETRIABLE",
            )


def _problem(index: int, description: str) -> Problem:
    return Problem(f"definition.steps[{index}].kind", description)
