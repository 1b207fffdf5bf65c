"""A compiled saga definition: what the core follows. Built by the codec, never changed."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from graphlib import TopologicalSorter
from typing import Final, Protocol

from coordinator.core.values import DefinitionKey, Failure, Payload, StepId, StepKind

CONFIGURATION_FAULTS_MAX: Final = 3
"""Attempts that may end UNIMPLEMENTED, UNAUTHENTICATED or PERMISSION_DENIED before the step gives up (R6)."""
PAYLOAD_BYTES_MAX_PER_SAGA: Final = 8 * 1024 * 1024
"""Input of the saga, and inputs and outputs of its steps, together."""
ON_SUCCESS: Final = StepId("on_success")
"""Reserved id of the hook that is called when a saga is COMPLETED."""
ON_FAILURE: Final = StepId("on_failure")
"""Reserved id of the hook that is called when a saga is COMPENSATED or terminated."""


class Values(Protocol):
    """What an expression may read."""

    @property
    def input(self) -> Payload:
        """The input of the saga."""

    def output_of(self, index: int) -> Payload | None:
        """The output of the step at that place of the definition; None if it did not run, or did not succeed."""

    @property
    def output(self) -> Payload | None:
        """What the saga returned; None until it is COMPLETED, or if it returns nothing."""

    @property
    def failure(self) -> Failure | None:
        """Why the saga turned back or was terminated; None while it goes forward."""


class ExpressionError(Exception):
    """An expression cannot be evaluated with these values. The message names the expression and what went wrong, for people."""


Expression = Callable[[Values], Payload]
"""Pure, on bytes; compiled from the definition. Raises ExpressionError, and nothing else."""
Condition = Callable[[Values], bool]
"""Pure, on bytes; compiled from the definition. Raises ExpressionError, and nothing else."""


OutputCheck = Callable[[Payload], str]
"""What is wrong with an output, for people; empty: nothing. Pure, on bytes."""


def accept_any_output(_: Payload) -> str:
    """Finds nothing wrong."""
    return ""


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """How often and how fast an attempt is repeated. It decides whether to retry, never whether an outcome is unknown (R7)."""

    attempts_max: int = 0
    """Attempts at most, the first included; 0: no limit but time."""
    initial_backoff_us: int = 200_000
    multiplier: float = 2.0
    backoff_max_us: int = 30_000_000
    non_retryable_codes: frozenset[int] = frozenset()
    """gRPC codes after which the attempt is not repeated."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StepPlan:
    """One step, with every default filled in."""

    id: StepId
    action: str
    """Example: "inventory.reserve"."""
    input: Expression
    copies_input: bool = False
    """Whether `input` returns a payload that is in the journal already, unchanged: then it need not be written a second time (R3)."""
    when: Condition | None = None
    """Whether the step is executed; None: always."""
    kind: StepKind = StepKind.COMPENSATABLE
    is_compensated: bool = True
    """Whether there is something to call when the saga turns back after this step may have taken effect."""
    input_type: str = ""
    """Full name of the message that the action takes."""
    output_type: str = ""
    """Full name of the message that the action returns."""
    execute_retry: RetryPolicy = RetryPolicy()
    compensate_retry: RetryPolicy = RetryPolicy()
    attempt_timeout_us: int = 10_000_000
    execute_time_limit_us: int = 300_000_000
    """For all attempts to execute together, from the moment the step is due; bounds nothing past the point of no return (R13)."""
    recovery_time_limit_us: int = 86_400_000_000
    """For all attempts of recovery together, from the first failed one, until a person is asked: to compensate, or to execute where
    nothing can be turned back."""
    check_output: OutputCheck = accept_any_output

    @property
    def participant(self) -> str:
        """The part of the action before the dot."""
        return self.action.partition(".")[0]


@dataclass(frozen=True, kw_only=True)
class SagaPlan:
    """The whole plan; steps are named by their place in it."""

    key: DefinitionKey
    steps: tuple[StepPlan, ...]
    predecessors: tuple[tuple[int, ...], ...]
    """Per step: the steps that must be done before it."""
    output: Expression | None = None
    """What the saga returns; None: nothing."""
    check_saga_output: OutputCheck = accept_any_output
    """What the saga may return, if a person says what that is."""
    on_success: StepPlan | None = None
    """Called once when the saga is COMPLETED; its id is ON_SUCCESS. None: nothing is."""
    on_failure: StepPlan | None = None
    """Called once when the saga is COMPENSATED or terminated; its id is ON_FAILURE. None: nothing is."""
    time_limit_us: int | None = None
    """For the forward way; None: no limit."""
    payload_bytes_max: int = PAYLOAD_BYTES_MAX_PER_SAGA

    @cached_property
    def successors(self) -> tuple[tuple[int, ...], ...]:
        """Per step: the steps that wait for it."""
        found: list[list[int]] = [[] for _ in self.steps]
        for index, before in enumerate(self.predecessors):
            for predecessor in before:
                found[predecessor].append(index)
        return tuple(tuple(after) for after in found)

    @cached_property
    def backward_order(self) -> tuple[int, ...]:
        """Every step after all of its successors: the order in which effects are undone."""
        return tuple(reversed(list(TopologicalSorter(dict(enumerate(self.predecessors))).static_order())))

    @cached_property
    def pivot(self) -> int | None:
        """Place of the pivot; None without one."""
        return next((index for index, step in enumerate(self.steps) if step.kind is StepKind.PIVOT), None)

    @cached_property
    def retriables(self) -> tuple[int, ...]:
        """Places of the steps that must succeed in the end."""
        return tuple(index for index, step in enumerate(self.steps) if step.kind is StepKind.RETRIABLE)

    def step_plan(self, step_id: StepId) -> StepPlan:
        """The step, or hook, of that id. Raises KeyError if there is none."""
        for hook in (self.on_success, self.on_failure):
            if hook is not None and hook.id == step_id:
                return hook
        return self.steps[self.index_of[step_id]]

    @cached_property
    def index_of(self) -> dict[StepId, int]:
        """Place of each step by its id."""
        return {step.id: index for index, step in enumerate(self.steps)}
