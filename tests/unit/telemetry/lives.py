"""Sagas that live through stories of any shape, with persons and crashes anywhere in them."""

from dataclasses import replace
from typing import NamedTuple

from hypothesis import strategies as st

from coordinator.core.errors import CommandRefusedError
from coordinator.core.events import (
    LateOutcome,
)
from coordinator.core.inputs import (
    Accepted,
    Cancel,
    Command,
    CompleteStep,
    Outcome,
    Pause,
    Replied,
    Resolution,
    ResolvedCompensated,
    ResolvedSkipped,
    ResolvedSucceeded,
    ResolveOutput,
    ResolveStep,
    Resume,
    RetryStep,
    Terminate,
    Wake,
)
from coordinator.core.plan import ON_FAILURE, ON_SUCCESS, ExpressionError, RetryPolicy, SagaPlan, Values
from coordinator.core.trace import attempt_traceparent, parse_traceparent
from coordinator.core.values import AttemptKey, Payload, StepKind
from coordinator.engine.ports import Observer
from tests.builders import (
    EXECUTE,
    SAGA,
    at,
    compensated,
    diamond,
    not_sent,
    parallel,
    rejected,
    retry_later,
    seconds,
    sequence,
    step,
    succeeded,
    unknown,
)
from tests.unit.telemetry.observed import Observed

ONE, FEW = RetryPolicy(attempts_max=1), RetryPolicy(attempts_max=2)


def _fails(_: Values) -> Payload:
    raise ExpressionError("it cannot be evaluated")


def _forward_and_back() -> SagaPlan:
    """Every kind of step, a condition that is false, an expression that fails, and hooks."""
    plan = sequence(
        step("a", retry=FEW, undo=ONE),
        step("b", kind=StepKind.BEST_EFFORT, when=lambda _: False),
        step("c", kind=StepKind.PIVOT, retry=ONE),
        step("d", kind=StepKind.RETRIABLE, retry=ONE),
        step("e", kind=StepKind.BEST_EFFORT, input=_fails, copies_input=False),
        output=_fails,
    )
    return replace(plan, on_success=step(ON_SUCCESS, retry=ONE), on_failure=step(ON_FAILURE, retry=FEW))


PLANS: list[SagaPlan] = [
    sequence("a", "b"),
    diamond(),
    parallel(step("a", retry=FEW, undo=ONE), step("b", retry=ONE, undo=ONE), limit_s=40),
    _forward_and_back(),
]
REPLIES: list[Outcome] = [
    rejected(),
    rejected(sealed=True),
    unknown(),
    unknown(),
    retry_later(1),
    not_sent(),
    Accepted(time_limit_us=seconds(60)),
    compensated(handler_ran=False),
]
RESOLUTIONS = [ResolvedSucceeded(succeeded().output), ResolvedSkipped(), ResolvedCompensated()]
COMMANDS: list[Command] = [Cancel(), Pause(actor="bob"), *[Resume(actor="bob")] * 4, Terminate(reason="enough", actor="bob")]


class Reply(NamedTuple):
    """One of the calls under way ends."""

    which: int
    outcome: Outcome | None
    """None: it does what it was asked."""


class Repair(NamedTuple):
    """A person acts upon the open incident that was opened last."""

    resolution: Resolution | None
    """None: the step is tried again."""


Happening = Reply | Repair | Command | str
places = st.integers(0, 3)
well = st.builds(Reply, which=places, outcome=st.none())
badly = st.builds(Reply, which=places, outcome=st.sampled_from(REPLIES))
repairs = st.builds(Repair, resolution=st.none() | st.sampled_from(RESOLUTIONS))
others = st.sampled_from(["crash", "recover", "wake", "repeat", "complete"])
# Weighted by hand: stories must get far, past the pivot and back and forth over FAILED.
happenings: st.SearchStrategy[list[Happening]] = st.lists(
    st.one_of(well, well, badly, badly, badly, repairs, repairs, others, st.sampled_from(COMMANDS)), min_size=15, max_size=40
)


class Life:
    """A saga with its participants: calls travel with span ids, and each ends at most once."""

    def __init__(self, plan: SagaPlan, *observers: Observer) -> None:
        self.saga = Observed(plan, *observers)
        self.saga.start()
        self.sent: dict[int, AttemptKey] = {}
        self._under_way: list[AttemptKey] = []
        self._last: Replied | None = None

    def happen(self, happened: Happening, now: float) -> None:
        """One thing happens. What does not fit the saga as it stands changes nothing."""
        self._send(now)
        match happened:
            case Reply():
                self._reply(happened, now)
            case "crash":
                self._under_way.clear()  # the answers go to a process that is no more
                self.saga.crash()
            case "recover":
                self._under_way.clear()
                self.saga.recover(now)
            case "repeat":
                if self._last is not None:
                    self.saga.feed(self._last, now)
            case Repair():
                self._command(self._repair(happened), now)
            case "complete":
                self._command(self._completion(), now)
            case str():
                self.saga.feed(Wake(), now)
            case command:
                self._command(command, now)

    def _command(self, command: Command | None, now: float) -> None:
        if command is None:
            return
        try:
            self.saga.feed(command, now)
        except CommandRefusedError:
            return

    def _repair(self, repair: Repair) -> Command | None:
        state = self.saga.story.state
        known = next((incident.fact for incident in reversed(state.incidents) if incident.closed_at is None), None)
        if known is None:
            return None
        if known.step_id is None:
            return ResolveOutput(output=succeeded().output)
        if repair.resolution is None:
            return RetryStep(step_id=known.step_id)
        return ResolveStep(step_id=known.step_id, resolution=repair.resolution)

    def _completion(self) -> Command | None:
        accepted = next((one.accepted_attempt for one in self.saga.story.state.steps if one.accepted_attempt is not None), None)
        return None if accepted is None else CompleteStep(step_id=accepted.step_id, round=accepted.round, result=succeeded())

    def _send(self, now: float) -> None:
        for call in self.saga.story.owed_calls():
            if call.not_before > at(now) or call.attempt in self._under_way:
                continue
            self._under_way.append(call.attempt)
            carried = parse_traceparent(attempt_traceparent(self.saga.story.state.trace, SAGA, call.attempt))
            assert carried is not None
            assert self.sent.setdefault(carried.span_id, call.attempt) == call.attempt, "two attempts travelled with one span id"

    def _reply(self, reply: Reply, now: float) -> None:
        if not self._under_way:
            return
        attempt = self._under_way.pop(reply.which % len(self._under_way))
        outcome = reply.outcome or (succeeded() if attempt.direction is EXECUTE else compensated())
        replied = Replied(attempt=attempt, outcome=outcome, sent_at=None if outcome == not_sent() else at(now - 1))
        facts = self.saga.feed(replied, now)
        self._last = None if any(isinstance(fact, LateOutcome) for fact in facts) else replied


def live_through(plan: SagaPlan, story: list[Happening], *observers: Observer) -> Life:
    """A saga after all of that, five seconds between one happening and the next."""
    life = Life(plan, *observers)
    for number, happened in enumerate(story):
        life.happen(happened, 1.0 + number * 5)
    return life
