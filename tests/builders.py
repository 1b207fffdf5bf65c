"""Plans, states and stories for tests: what is not said has a plain default, so that a test shows only what it is about."""

from collections.abc import Callable, Iterable, Mapping
from itertools import pairwise
from operator import attrgetter
from typing import NamedTuple

from coordinator.core.decide import advance
from coordinator.core.effects import CallParticipant, OwedCall
from coordinator.core.events import Event, Fact
from coordinator.core.inputs import (
    Accepted,
    Cancel,
    Compensated,
    CompleteStep,
    Heartbeat,
    Input,
    KeyExpired,
    Misconfigured,
    Mismatched,
    NotSent,
    Outcome,
    Pause,
    Recover,
    Rejected,
    Replied,
    Resolution,
    ResolveStep,
    Resume,
    RetryLater,
    RetryStep,
    Start,
    Succeeded,
    Terminate,
    Unknown,
    Wake,
)
from coordinator.core.pending import call_participant, pending
from coordinator.core.plan import (
    Condition,
    Expression,
    ExpressionError,
    OutputCheck,
    RetryPolicy,
    SagaPlan,
    StepPlan,
    Values,
    accept_any_output,
)
from coordinator.core.record import replay
from coordinator.core.state import CallState, SagaState, StepState
from coordinator.core.values import (
    MICROS_PER_SECOND,
    AttemptKey,
    Code,
    DefinitionKey,
    Direction,
    Failure,
    Instant,
    Payload,
    SagaId,
    SagaStatus,
    StepId,
    StepKind,
    StepStatus,
    TraceContext,
)

SAGA = SagaId("01900000-0000-7000-8000-000000000001")
DEFINITION = DefinitionKey("place-order", 1)
INPUT = Payload("shop.v1.PlaceOrder", b"order-42")
TRACE = TraceContext(traceparent="00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
DEFAULT_RETRY = RetryPolicy()
EXECUTE, COMPENSATE = Direction.EXECUTE, Direction.COMPENSATE

# Codes that participants give and the core does not name.
ALREADY_EXISTS, PERMISSION_DENIED, FAILED_PRECONDITION, UNIMPLEMENTED = 6, 7, 9, 12


def seconds(number: float) -> int:
    """A duration in microseconds."""
    return round(number * MICROS_PER_SECOND)


def at(number: float) -> Instant:
    """An instant: seconds since the epoch of the tests."""
    return Instant(seconds(number))


# ── Plans ────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────


def saga_input(values: Values) -> Payload:
    """The expression `input`."""
    return values.input


def output_of(index: int) -> Expression:
    """The expression that is the whole output of the step at that place; empty if it did not run."""
    return lambda values: values.output_of(index) or Payload("shop.v1.Done", b"")


def fails(values: Values) -> Payload:
    """An expression that cannot be evaluated."""
    raise ExpressionError("division by zero")


def never(values: Values) -> bool:
    """A condition that is false."""
    return False


def hook(hook_id: str) -> StepPlan:
    """A hook that is called with the input of the saga."""
    return StepPlan(id=StepId(hook_id), action=f"{hook_id}.do", input=saga_input, copies_input=True, is_compensated=False)


def step(
    step_id: str,
    *,
    kind: StepKind = StepKind.COMPENSATABLE,
    retry: RetryPolicy = DEFAULT_RETRY,
    undo: RetryPolicy = DEFAULT_RETRY,
    timeout_s: float = 10,
    limit_s: float = 300,
    undo_limit_s: float = 86_400,
    input: Expression = saga_input,  # noqa: A002 - the word of the plan
    copies_input: bool = True,
    when: Condition | None = None,
    is_compensated: bool = True,
    check_output: OutputCheck = accept_any_output,
) -> StepPlan:
    """A step whose action is `<id>.do`."""
    return StepPlan(
        id=StepId(step_id),
        action=f"{step_id}.do",
        input=input,
        copies_input=copies_input,
        when=when,
        kind=kind,
        is_compensated=is_compensated and kind in (StepKind.COMPENSATABLE, StepKind.BEST_EFFORT),
        execute_retry=retry,
        compensate_retry=undo,
        attempt_timeout_us=seconds(timeout_s),
        execute_time_limit_us=seconds(limit_s),
        recovery_time_limit_us=seconds(undo_limit_s),
        check_output=check_output,
    )


def graph(
    steps: Iterable[StepPlan],
    after: Mapping[str, Iterable[str]],
    *,
    limit_s: float | None = None,
    output: Expression | None = None,
    payload_bytes_max: int = 8 * 1024 * 1024,
) -> SagaPlan:
    """A plan whose steps wait for those named in `after`; a step not named there waits for none."""
    placed = tuple(steps)
    place = {plan.id: index for index, plan in enumerate(placed)}
    return SagaPlan(
        key=DEFINITION,
        steps=placed,
        predecessors=tuple(tuple(place[StepId(before)] for before in after.get(plan.id, ())) for plan in placed),
        output=output,
        time_limit_us=None if limit_s is None else seconds(limit_s),
        payload_bytes_max=payload_bytes_max,
    )


def sequence(
    *steps: StepPlan | str,
    limit_s: float | None = None,
    output: Expression | None = None,
    payload_bytes_max: int = 8 * 1024 * 1024,
) -> SagaPlan:
    """A plan whose steps follow one another."""
    placed = [step(one) if isinstance(one, str) else one for one in steps]
    after: dict[str, list[str]] = {later.id: [earlier.id] for earlier, later in pairwise(placed)}
    return graph(placed, after, limit_s=limit_s, output=output, payload_bytes_max=payload_bytes_max)


def parallel(*steps: StepPlan | str, limit_s: float | None = None, output: Expression | None = None) -> SagaPlan:
    """A plan whose steps wait for nothing."""
    return graph([step(one) if isinstance(one, str) else one for one in steps], {}, limit_s=limit_s, output=output)


def diamond(*, limit_s: float | None = None) -> SagaPlan:
    """`a`, then `b` and `c` together, then `d`."""
    return graph([step(name) for name in "abcd"], {"b": ["a"], "c": ["a"], "d": ["b", "c"]}, limit_s=limit_s)


# ── What participants answer ─────────────────────────────────────────────────────────────────────────────────────────────────────


def failure(code: int = Code.UNAVAILABLE, message: str = "said so") -> Failure:
    """A failure without details."""
    return Failure(code, message)


def attempt(step_id: str, number: int, direction: Direction = EXECUTE, round_: int = 1) -> AttemptKey:
    """Names one call."""
    return AttemptKey(StepId(step_id), direction, round_, number)


def succeeded(value: bytes = b"done") -> Succeeded:
    """It took effect."""
    return Succeeded(output=Payload("shop.v1.Done", value))


def rejected(code: int = FAILED_PRECONDITION, *, sealed: bool = False) -> Rejected:
    """It is refused."""
    return Rejected(failure=failure(code), sealed=sealed)


def unknown(code: int = Code.UNAVAILABLE) -> Unknown:
    """Nobody knows."""
    return Unknown(failure=failure(code))


def retry_later(delay_s: float) -> RetryLater:
    """Call again after that time."""
    return RetryLater(failure=failure(Code.UNAVAILABLE), delay_us=seconds(delay_s))


def not_sent() -> NotSent:
    """It never left."""
    return NotSent(failure=failure(Code.UNAVAILABLE))


def misconfigured(code: int = UNIMPLEMENTED) -> Misconfigured:
    """The participant is set up wrongly."""
    return Misconfigured(failure=failure(code))


def key_expired() -> KeyExpired:
    """The participant may have forgotten the key."""
    return KeyExpired(failure=failure(FAILED_PRECONDITION))


def mismatched() -> Mismatched:
    """Other types than the definition says; not sent."""
    return Mismatched(failure=failure(FAILED_PRECONDITION))


def accepted(limit_s: float) -> Accepted:
    """Begun, and finished within that time."""
    return Accepted(time_limit_us=seconds(limit_s))


def compensated(*, handler_ran: bool = True) -> Compensated:
    """It is undone."""
    return Compensated(handler_ran=handler_ran)


# ── Stories ──────────────────────────────────────────────────────────────────────────────────────────────────────────────────────


class Owed(NamedTuple):
    """One call that is owed, in the units of tests."""

    step_id: str
    direction: Direction
    number: int
    not_before: Instant


class Story:
    """One saga that lives through inputs. Keeps its journal, so that it can crash and be rebuilt."""

    def __init__(self, plan: SagaPlan, saga_id: SagaId = SAGA) -> None:
        self.plan = plan
        self.state = SagaState(plan, saga_id)
        self.journal: list[Event] = []

    def feed(self, happened: Input, when: float) -> tuple[Fact, ...]:
        """The facts that one input makes, in order."""
        events = advance(self.plan, self.state, happened, at(when))
        self.journal.extend(events)
        return tuple(event.fact for event in events)

    def start(self, when: float = 0, *, start_at: float | None = None, limit_s: float | None = None) -> tuple[Fact, ...]:
        """Starts the saga."""
        start = Start(
            input=INPUT,
            start_at=None if start_at is None else at(start_at),
            time_limit_us=None if limit_s is None else seconds(limit_s),
            trace=TRACE,
        )
        return self.feed(start, when)

    def reply(
        self, step_id: str, outcome: Outcome, when: float, *, direction: Direction = EXECUTE, number: int | None = None
    ) -> tuple[Fact, ...]:
        """A call ends; without a number it is the one that is owed."""
        round_ = 1
        if number is None:
            call = self.call(step_id, direction)
            number, round_ = call.number + 1, call.round
        sent_at = None if isinstance(outcome, NotSent) else at(when)
        return self.feed(Replied(attempt=attempt(step_id, number, direction, round_), outcome=outcome, sent_at=sent_at), when)

    def undo(self, step_id: str, outcome: Outcome, when: float) -> tuple[Fact, ...]:
        """The compensation that is owed ends."""
        return self.reply(step_id, outcome, when, direction=COMPENSATE)

    def wake(self, when: float) -> tuple[Fact, ...]:
        """A timer fires."""
        return self.feed(Wake(), when)

    def cancel(self, when: float) -> tuple[Fact, ...]:
        """Somebody asks it to turn back."""
        return self.feed(Cancel(reason="changed my mind", actor="alice"), when)

    def pause(self, when: float) -> tuple[Fact, ...]:
        """A person stops it."""
        return self.feed(Pause(actor="alice"), when)

    def resume(self, when: float) -> tuple[Fact, ...]:
        """A person lets it go on."""
        return self.feed(Resume(actor="alice"), when)

    def terminate(self, when: float) -> tuple[Fact, ...]:
        """A person ends it as it stands."""
        return self.feed(Terminate(reason="given up", actor="alice"), when)

    def retry(self, step_id: str, when: float, *, given: Payload | None = None) -> tuple[Fact, ...]:
        """A person has a step tried again."""
        return self.feed(RetryStep(step_id=StepId(step_id), input=given, actor="alice"), when)

    def resolve(self, step_id: str, resolution: Resolution, when: float) -> tuple[Fact, ...]:
        """A person says how a step ended."""
        return self.feed(ResolveStep(step_id=StepId(step_id), resolution=resolution, actor="alice"), when)

    def complete(self, step_id: str, result: Succeeded | Rejected, when: float, *, round_: int = 1) -> tuple[Fact, ...]:
        """A participant finishes a step by its token."""
        return self.feed(CompleteStep(step_id=StepId(step_id), round=round_, result=result), when)

    def beat(self, step_id: str, when: float, *, limit_s: float | None = None, progress: Payload | None = None) -> tuple[Fact, ...]:
        """A participant still works on a step."""
        limit_us = None if limit_s is None else seconds(limit_s)
        return self.feed(Heartbeat(step_id=StepId(step_id), round=1, time_limit_us=limit_us, progress=progress), when)

    def crash(self) -> None:
        """The memory is lost; the state is rebuilt from the journal."""
        self.state = replay(self.plan, self.state.saga_id, self.journal)

    def recover(self, when: float) -> tuple[Fact, ...]:
        """A crash, and somebody takes the saga up again."""
        self.crash()
        return self.feed(Recover(), when)

    def step(self, step_id: str) -> StepState:
        """How one step, or the hook, stands."""
        found = self.state.step(self.plan, StepId(step_id))
        assert found is not None, f"there is no step {step_id}, or the hook was not reached"
        return found

    def call(self, step_id: str, direction: Direction = EXECUTE) -> CallState:
        """How one direction of one step stands."""
        found = self.step(step_id)
        call = found.execute if direction is EXECUTE else found.compensate
        assert call is not None, f"{step_id} never owed {direction.name}"
        return call

    def statuses(self) -> dict[str, StepStatus]:
        """The status of every step."""
        return {plan.id: found.status for plan, found in zip(self.plan.steps, self.state.steps, strict=True)}

    @property
    def status(self) -> SagaStatus | None:
        """The status of the saga."""
        return self.state.status

    def owed_calls(self) -> tuple[OwedCall, ...]:
        """What is owed, as the core names it."""
        return pending(self.plan, self.state).calls

    def owed(self) -> tuple[Owed, ...]:
        """What is owed, in the units of tests."""
        return tuple(Owed(call.attempt.step_id, call.attempt.direction, call.attempt.number, call.not_before) for call in self.owed_calls())

    def owed_steps(self) -> set[tuple[str, Direction]]:
        """The steps that owe a call, and which one."""
        return {(owed.step_id, owed.direction) for owed in self.owed()}

    def wake_at(self) -> Instant | None:
        """When it wants to be woken."""
        return pending(self.plan, self.state).wake_at

    def effect(self, step_id: str, direction: Direction = EXECUTE) -> CallParticipant:
        """The whole effect of the call that is owed."""
        call = self.call(step_id, direction)
        return call_participant(self.plan, self.state, attempt(step_id, call.number + 1, direction, call.round))


def started(plan: SagaPlan, *, when: float = 0, limit_s: float | None = None) -> Story:
    """A story whose saga runs."""
    story = Story(plan)
    story.start(when, limit_s=limit_s)
    return story


def snapshot(state: SagaState) -> dict[str, object]:
    """Every slot of a state, so that two states can be compared as wholes."""
    kept = _slots_of(state, SagaState.__slots__, _SAGA_SLOTS)
    kept["incidents"] = tuple((one.fact, one.opened_at, one.closed_at) for one in state.incidents)
    kept["steps"] = tuple(_step_snapshot(one) for one in state.steps)
    kept["hook"] = None if state.hook is None else _step_snapshot(state.hook)
    kept["ready"] = sorted(state.ready)
    return kept


def _step_snapshot(state: StepState) -> dict[str, object]:
    kept = _slots_of(state, StepState.__slots__, _STEP_SLOTS)
    for direction, call in (("execute", state.execute), ("compensate", state.compensate)):
        kept[direction] = None if call is None else _CALL_SLOTS(call)
    return kept


_SAGA_SLOTS, _STEP_SLOTS, _CALL_SLOTS = (attrgetter(*kind.__slots__) for kind in (SagaState, StepState, CallState))


def _slots_of(state: object, names: Iterable[str], read: Callable[[object], tuple[object, ...]]) -> dict[str, object]:
    return dict(zip(names, read(state), strict=True))
