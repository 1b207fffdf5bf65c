"""Plans of every shape that R9 allows, made from choices: whoever chooses may be Hypothesis, or chance."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Final, Protocol, TypeVar

from coordinator.core.plan import ON_FAILURE, ON_SUCCESS, Condition, Expression, ExpressionError, RetryPolicy, SagaPlan, StepPlan, Values
from coordinator.core.values import Payload, StepId, StepKind
from tests.builders import fails, graph, hook, never, output_of, saga_input, seconds, step

STEPS: Final = (3, 2, 1, 3, 4, 4, 5, 6)
BEFORE: Final = (StepKind.COMPENSATABLE, StepKind.COMPENSATABLE, StepKind.READ_ONLY, StepKind.BEST_EFFORT)
"""Kinds that may stand before the point of no return."""
AFTER: Final = (StepKind.RETRIABLE, StepKind.RETRIABLE, StepKind.READ_ONLY, StepKind.BEST_EFFORT)
"""Kinds that may stand after it."""
SMALL_PAYLOAD_LIMIT: Final = 60
"""Bytes that a few outputs exceed."""

Option = TypeVar("Option")


class Choices(Protocol):
    """Who decides what happens."""

    def one_of(self, options: Sequence[Option], what: str) -> Option:
        """One of them; `what` names the choice for whoever reads how it came about."""

    def chance(self, what: str) -> bool:
        """Yes or no."""


def make_plan(choices: Choices) -> SagaPlan:
    """A plan that a definition could have."""
    names = [f"s{number}" for number in range(choices.one_of(STEPS, "steps"))]
    kinds = _make_kinds(names, choices)
    after = _make_order(names, kinds, choices)
    plan = graph(
        [_make_step(name, kinds[name], [names.index(before) for before in after[name]], choices) for name in names],
        after,
        limit_s=choices.one_of((None, None, None, None, 60, 3), "limit of the saga"),
        output=choices.one_of((None, None, saga_input, fails), "output of the saga"),
        payload_bytes_max=choices.one_of((1_000_000,) * 6 + (SMALL_PAYLOAD_LIMIT,), "payload limit"),
    )
    on_success, on_failure = _make_hook(ON_SUCCESS, choices), _make_hook(ON_FAILURE, choices)
    return replace(plan, on_success=on_success, on_failure=on_failure)


def _make_kinds(names: list[str], choices: Choices) -> dict[str, StepKind]:
    """Kinds in the order of the graph: what can be undone, then the point of no return, then what must succeed (R9)."""
    turn = choices.one_of(range(len(names) + 1), "steps before the point of no return")
    kinds = {name: choices.one_of(BEFORE if place < turn else AFTER, "kind") for place, name in enumerate(names)}
    if turn < len(names) and choices.one_of((True, True, True, False), "a pivot"):
        kinds[names[turn]] = StepKind.PIVOT
    return kinds


def _make_order(names: list[str], kinds: dict[str, StepKind], choices: Choices) -> dict[str, list[str]]:
    """Any order that keeps what can be undone before the point of no return, and what must succeed behind it (R9)."""
    pivot = next((name for name in names if kinds[name] is StepKind.PIVOT), None)
    compensatable = [name for name in names if kinds[name] is StepKind.COMPENSATABLE]
    after: dict[str, list[str]] = {}
    for place, name in enumerate(names):
        before = {choices.one_of(names[:place], "before") for _ in range(choices.one_of((0, 1, 2), "edges"))} if place else set()
        if kinds[name] is StepKind.PIVOT or (kinds[name] is StepKind.RETRIABLE and pivot is None):
            before.update(compensatable)
        elif kinds[name] is StepKind.RETRIABLE and pivot is not None:
            before.add(pivot)
        after[name] = sorted(before)
    return after


def _make_step(name: str, kind: StepKind, before: list[int], choices: Choices) -> StepPlan:
    given, copies_input = _make_input(before, choices)
    return step(
        name,
        kind=kind,
        input=given,
        copies_input=copies_input,
        when=_make_condition(before, choices),
        is_compensated=kind is StepKind.COMPENSATABLE or choices.chance("can be undone"),
        retry=_make_policy(choices),
        undo=_make_policy(choices),
        timeout_s=choices.one_of((1, 10), "timeout"),
        limit_s=choices.one_of((5, 300), "limit"),
        undo_limit_s=choices.one_of((30, 86_400), "undo limit"),
    )


def _make_policy(choices: Choices) -> RetryPolicy:
    return RetryPolicy(
        attempts_max=choices.one_of((0, 1, 1, 2, 3), "attempts"),
        initial_backoff_us=choices.one_of((200_000, 1, 5_000_000), "backoff"),
        non_retryable_codes=choices.one_of((frozenset[int](), frozenset[int](), frozenset({13})), "codes"),
    )


def _make_input(before: list[int], choices: Choices) -> tuple[Expression, bool]:
    """An expression, and whether what it returns is in the journal already."""
    match choices.one_of(("copied",) * 8 + ("computed",) * 6 + ("unfit",), "input"):
        case "unfit":
            return fails, False
        case "computed":
            return _joined(before), False
        case _:
            return (output_of(before[0]) if before and choices.chance("of the step before") else saga_input), True


def _joined(before: list[int]) -> Expression:
    """What all the steps before it returned, one after the other."""

    def join(values: Values) -> Payload:
        outputs = [values.output_of(index) for index in before]
        return Payload("shop.v1.Joined", b"+".join(output.value if output is not None else b"-" for output in outputs))

    return join


def _make_condition(before: list[int], choices: Choices) -> Condition | None:
    match choices.one_of(("always",) * 16 + ("never", "ran", "unfit"), "when"):
        case "never":
            return never
        case "ran":
            return (lambda values: values.output_of(before[0]) is not None) if before else None
        case "unfit":
            return condition_fails
        case _:
            return None


def condition_fails(values: Values) -> bool:
    """A condition that cannot be evaluated."""
    raise ExpressionError("no such key")


def _make_hook(hook_id: StepId, choices: Choices) -> StepPlan | None:
    match choices.one_of(("none", "none", "plain", "plain", "plain", "plain", "once", "unfit"), hook_id):
        case "none":
            return None
        case "once":
            return replace(hook(hook_id), execute_retry=RetryPolicy(attempts_max=1), recovery_time_limit_us=seconds(30))
        case "unfit":
            return replace(hook(hook_id), input=fails, copies_input=False)
        case _:
            return hook(hook_id)
