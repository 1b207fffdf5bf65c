"""What the rules work with: steps that nobody has called yet, and what is expected of answers."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Final, TypeAlias

from google.protobuf.any_pb2 import Any as PackedAny

from participant_sdk.testing.conformance.calls import Line, Step
from participant_sdk.testing.conformance.replies import Kind, Reply
from participant_sdk.testing.conformance.ways import Way
from saga.v1 import participant_pb2, participant_pb2_grpc

CONCURRENT: Final = 8
"""Duplicates that arrive at once."""
GRACE_S: Final = 0.5
"""So long after the end of an attempt a coordinator may begin to undo it (R12)."""


class RuleBrokenError(Exception):
    """What was expected, and what was found instead."""


@dataclass(slots=True)
class Trial:
    """What checks work with."""

    way: Way
    line: Line
    stub: "participant_pb2_grpc.ParticipantServiceAsyncStub"
    """For what is no call of a step."""
    description: participant_pb2.ParticipantDescription | None
    """None: it does not describe itself, which it need not."""
    is_compensatable: bool
    deadline_s: float
    restart: Callable[[], Awaitable[None]] | None
    steps: list[Step] = field(default_factory=list)
    """All that were made since they were undone last."""

    @property
    def serves_exchange(self) -> bool:
        """Whether it says that it can be called in frames."""
        return self.description is not None and self.description.exchange

    def new_step(self, input: PackedAny | None = None) -> Step:  # noqa: A002 - as the contract calls it
        """A step that nobody has called yet."""
        step = Step(self.line, self.line.input if input is None else input)
        self.steps.append(step)
        return step

    async def executed(self, step: Step | None = None) -> tuple[Step, Reply]:
        """A step that has taken effect. Raises RuleBrokenError if it does not."""
        step = self.new_step() if step is None else step
        reply = await step.execute_to_the_end()
        expect(reply.took_effect, "a new step to take effect", reply)
        return step, reply


Check: TypeAlias = Callable[[Trial], Awaitable[str]]
"""Returns what was seen; raises RuleBrokenError."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """One rule."""

    name: str
    title: str
    cites: tuple[str, ...]
    """Rules of docs/rules.md that stand on it."""
    check: Check
    ways: tuple[Way, ...] = (Way.ONE_BY_ONE, Way.IN_FRAMES)
    """In which it says something."""
    needs_compensation: bool = False
    needs_restart: bool = False


def expect(is_so: bool, what: str, found: Reply) -> None:
    """Raises RuleBrokenError if it is not so."""
    if not is_so:
        raise RuleBrokenError(f"expected {what}, found {found}")


def expect_same(first: Reply, again: Reply) -> None:
    """Of a repeated call."""
    expect(first.is_same_as(again), f"the same answer as before, {first}", again)


def expect_compensated(reply: Reply, which: str) -> None:
    """Of an undo of a step that is described."""
    expect(reply.kind is Kind.COMPENSATED, f"COMPENSATED for a step {which}", reply)


def expect_refused(reply: Reply, which: str) -> None:
    """Of an execution of a step that is described."""
    expect(reply.kind is Kind.REJECTED, f"a refusal of a step {which}", reply)


def handler_ran(reply: Reply) -> bool:
    """Whether there was something to undo."""
    return isinstance(reply.response, participant_pb2.CompensateResponse) and reply.response.compensated.handler_ran
