"""A compiled saga definition: what the core follows. Built by the codec, never changed."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Final, Protocol

from coordinator.core.values import DefinitionKey, Payload, StepId, StepKind

CONFIGURATION_FAULTS_MAX: Final = 3
"""Attempts that may end UNIMPLEMENTED, UNAUTHENTICATED or PERMISSION_DENIED before the step gives up (R6)."""
PAYLOAD_BYTES_MAX_PER_SAGA: Final = 8 * 1024 * 1024
"""Input and outputs of one saga together."""


class Values(Protocol):
    """What an expression may read."""

    @property
    def input(self) -> Payload:
        """The input of the saga."""

    def output_of(self, index: int) -> Payload:
        """The output of the step at that place of the definition; it comes before in the graph, so it is there."""


Expression = Callable[[Values], Payload]
"""Pure, on bytes; compiled from the definition."""


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
    kind: StepKind = StepKind.COMPENSATABLE
    execute_retry: RetryPolicy = RetryPolicy()
    compensate_retry: RetryPolicy = RetryPolicy()
    attempt_timeout_us: int = 10_000_000
    execute_time_limit_us: int = 300_000_000
    """For all attempts to execute together, from the moment the step is due."""
    compensate_time_limit_us: int = 86_400_000_000
    """For all attempts to compensate together, from the first failed one."""
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
        order, blocked = topological_order(self.predecessors)
        assert not blocked, "a plan is only built from a graph without cycles"
        return tuple(reversed(order))

    @cached_property
    def index_of(self) -> dict[StepId, int]:
        """Place of each step by its id."""
        return {step.id: index for index, step in enumerate(self.steps)}


def topological_order(predecessors: Sequence[Sequence[int]]) -> tuple[list[int], list[int]]:
    """Steps in an order in which each comes after its predecessors, and the steps on or behind a cycle, which have none."""
    missing = [len(set(before)) for before in predecessors]
    successors: list[list[int]] = [[] for _ in predecessors]
    for index, before in enumerate(predecessors):
        for predecessor in set(before):
            successors[predecessor].append(index)
    order = [index for index, count in enumerate(missing) if count == 0]
    for index in order:
        for successor in successors[index]:
            missing[successor] -= 1
            if missing[successor] == 0:
                order.append(successor)
    return order, [index for index, count in enumerate(missing) if count > 0]
