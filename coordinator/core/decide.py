"""What follows from what happened. The rules themselves stand in the files that this one calls: forward, backward, completion, control and
repair.

A reply or timer that no longer matters (late, duplicate, unknown step) decides nothing and never raises. Only a command that the state of
the saga forbids raises.
"""

from typing import Final, assert_never

from coordinator.core.backward import decide_compensation_reply, decide_turned_back, turn_back
from coordinator.core.completion import decide_completion, decide_heartbeat
from coordinator.core.control import decide_acknowledgement, decide_cancel, decide_pause, decide_resume, decide_terminate
from coordinator.core.events import Event, Fact, IncidentOpened, Reached, SagaBegan, SagaCompleted, SagaFailed, SagaRecovered, SagaStarted
from coordinator.core.forward import decide_execution_reply, decide_expired_acceptances, decide_silence
from coordinator.core.incidents import opened
from coordinator.core.inputs import (
    Acknowledge,
    Cancel,
    ChangePolicy,
    CompleteStep,
    Heartbeat,
    Input,
    Pause,
    Recover,
    Replied,
    ResolveOutput,
    ResolveStep,
    Resume,
    RetryStep,
    Start,
    Terminate,
    Wake,
)
from coordinator.core.pending import NOTHING, next_attempt, owed_calls, pending
from coordinator.core.plan import ExpressionError, SagaPlan
from coordinator.core.point_of_no_return import has_passed
from coordinator.core.reach import find_reached
from coordinator.core.record import apply, apply_reached
from coordinator.core.repair import decide_output, decide_policy_change, decide_resolution, decide_retry
from coordinator.core.state import SagaState, StepState
from coordinator.core.values import (
    Code,
    Direction,
    Failure,
    IncidentKind,
    Instant,
    SagaStatus,
    StepKind,
    StepStatus,
    TurnBackCause,
)

EVENTS_PER_INPUT_MAX: Final = 10_000
"""No input makes nearly as many: a rule that repeats itself must stop its own saga, not the process (P5)."""

_DONE: Final = frozenset({StepStatus.SUCCEEDED, StepStatus.SKIPPED})


def advance(plan: SagaPlan, state: SagaState, happened: Input, now: Instant) -> tuple[Event, ...]:
    """Decides, applies, and goes on until nothing more follows. Returns what must be committed BEFORE anything is released.

    Raises CommandRefusedError for a command that the state forbids; the state is then unchanged. RuntimeError if the rules go round in a
    circle; the state must then not be used any more.
    """
    at = max(now, state.updated_at)  # a clock that steps back does not turn history around
    events: list[Event] = []
    facts = decide(plan, state, happened, at)
    while facts:
        events += [_applied(plan, state, fact, at) for fact in facts]
        if len(events) > EVENTS_PER_INPUT_MAX:
            raise RuntimeError(f"{type(happened).__name__} made more than {EVENTS_PER_INPUT_MAX} events")
        facts = decide_next(plan, state, at)
    return tuple(events)


def _applied(plan: SagaPlan, state: SagaState, fact: Fact, at: Instant) -> Event:
    """Applies a fact, and with it what follows for the steps that the saga reaches by it; returns the event of both."""
    event = Event(state.sequence + 1, at, fact)
    apply(plan, state, event)
    reached: tuple[Reached, ...] = ()
    # Again and again, because a step that is left out may let others be reached. Asking costs more than knowing that nothing can be.
    while (state.ready or state.ended_at is not None) and (further := find_reached(plan, state)):
        apply_reached(plan, state, further, at)
        reached += further
    return Event(event.sequence, at, fact, reached) if reached else event


def decide(plan: SagaPlan, state: SagaState, happened: Input, now: Instant) -> tuple[Fact, ...]:  # noqa: C901, PLR0911, PLR0912 - a table
    """The facts that one input makes; none if it does not matter any more."""
    match happened:
        case Start():
            return _decide_start(plan, state, happened, now)
        case Replied():
            if happened.attempt.direction is Direction.EXECUTE:
                return decide_execution_reply(plan, state, happened, now)
            return decide_compensation_reply(plan, state, happened, now)
        case Wake():
            return _decide_wake(plan, state, now)
        case Recover():
            return _decide_recovery(plan, state)
        case Cancel():
            return decide_cancel(plan, state, happened, now)
        case Pause():
            return decide_pause(state, happened)
        case Resume():
            return _decide_resume(plan, state, happened, now)
        case Terminate():
            return decide_terminate(state, happened)
        case RetryStep():
            return decide_retry(plan, state, happened, now)
        case ResolveStep():
            return decide_resolution(plan, state, happened, now)
        case ChangePolicy():
            return decide_policy_change(plan, state, happened)
        case ResolveOutput():
            return decide_output(plan, state, happened)
        case Acknowledge():
            return decide_acknowledgement(state, happened)
        case CompleteStep():
            return decide_completion(plan, state, happened, now)
        case Heartbeat():
            return decide_heartbeat(plan, state, happened, now)
        case _:
            assert_never(happened)


def decide_next(plan: SagaPlan, state: SagaState, now: Instant) -> tuple[Fact, ...]:
    """What follows from the state alone, without anything new from outside. A paused saga comes to rest, and no further."""
    if state.paused is not None:
        return ()
    if state.has_ended:
        return _decide_hook(state)
    if state.status is SagaStatus.COMPENSATING:
        return decide_turned_back(plan, state)
    if state.status is not SagaStatus.RUNNING:
        return ()
    if facts := _decide_failures(plan, state, now):
        return facts
    for step in state.steps:
        if step.status is StepStatus.EXECUTING:
            return ()  # the usual case, and on the hot path: whether anything else can move need not be asked
    if all(_is_done(step) for step in state.steps):
        return _decide_completion(plan, state)
    # Nothing can move without a person (R15): neither a participant nor time will bring anything.
    return (SagaFailed(),) if pending(plan, state) == NOTHING else ()


def _decide_failures(plan: SagaPlan, state: SagaState, now: Instant) -> tuple[Fact, ...]:
    """Turns the saga back where that is possible, and asks for a person where it is not (R9-R11)."""
    failed = _find_unanswered(state)
    if has_passed(plan, state):
        return () if failed is None else (_incident(state, failed),)
    pivot = None if plan.pivot is None else state.steps[plan.pivot]
    if pivot is not None and pivot.status is StepStatus.UNKNOWN and _needs_answer(state, pivot):
        return (_incident(state, pivot, IncidentKind.PIVOT_UNKNOWN),)
    if failed is not None:
        assert failed.failure is not None, "what came to rest without success has a reason"
        return turn_back(plan, state, now, cause=_cause_of(failed), failure=failed.failure, step_id=failed.plan.id)
    if state.payload_bytes > plan.payload_bytes_max:
        words = f"input and outputs of the saga are {state.payload_bytes} bytes together; at most {plan.payload_bytes_max} are allowed"
        return turn_back(plan, state, now, cause=TurnBackCause.PAYLOAD_LIMIT, failure=Failure(Code.RESOURCE_EXHAUSTED, words))
    asked = state.turn_back_requested
    if asked is not None:
        return turn_back(plan, state, now, cause=asked.cause, failure=asked.failure, step_id=asked.step_id, actor=asked.actor)
    return ()


def _find_unanswered(state: SagaState) -> StepState | None:
    for step in state.steps:
        if (step.status is StepStatus.REJECTED or step.status is StepStatus.UNKNOWN) and _needs_answer(state, step):
            return step
    return None


def _needs_answer(state: SagaState, step: StepState) -> bool:
    """Whether a step came to rest without success, which nobody has answered yet: neither by turning back nor by asking a person."""
    return step.is_at_rest and step.plan.kind is not StepKind.BEST_EFFORT and state.find_open_incident(step.plan.id) is None


def _is_done(step: StepState) -> bool:
    return step.status in _DONE or (step.plan.kind is StepKind.BEST_EFFORT and step.is_at_rest)  # R14


def _cause_of(step: StepState) -> TurnBackCause:
    if step.execute is None:
        return TurnBackCause.EXPRESSION_FAILED
    return TurnBackCause.STEP_REJECTED if step.status is StepStatus.REJECTED else TurnBackCause.STEP_UNKNOWN


def _incident(state: SagaState, step: StepState, kind: IncidentKind | None = None) -> IncidentOpened:
    if kind is None and step.execute is None:
        kind = IncidentKind.EXPRESSION_FAILED
    elif kind is None:
        kind = IncidentKind.STEP_REJECTED if step.status is StepStatus.REJECTED else IncidentKind.STEP_EXHAUSTED
    assert step.failure is not None, "what came to rest without success has a reason"
    return opened(state, kind, step.plan.id, step.failure)


def _decide_completion(plan: SagaPlan, state: SagaState) -> tuple[Fact, ...]:
    """Every step is done: the saga is complete, unless what it returns cannot be evaluated (R11)."""
    if state.output is not None or plan.output is None:
        return (SagaCompleted(output=state.output),)
    if state.find_open_incident(None, IncidentKind.EXPRESSION_FAILED) is not None:
        return (SagaFailed(),)
    try:
        return (SagaCompleted(output=plan.output(state)),)
    except ExpressionError as error:
        failure = Failure(Code.INVALID_ARGUMENT, str(error))
        return (opened(state, IncidentKind.EXPRESSION_FAILED, None, failure),)


def _decide_hook(state: SagaState) -> tuple[Fact, ...]:
    """A hook that did not succeed is an incident of its own and changes no outcome (R16)."""
    hook = state.hook
    if hook is None or not hook.is_at_rest or state.find_open_incident(state.hook_id) is not None:
        return ()
    assert hook.failure is not None, "what came to rest without success has a reason"
    return (opened(state, IncidentKind.HOOK_FAILED, state.hook_id, hook.failure),)


def _decide_start(plan: SagaPlan, state: SagaState, start: Start, now: Instant) -> tuple[Fact, ...]:
    if state.status is not None:
        return ()
    start_at = start.start_at if start.start_at is not None and start.start_at > now else None
    limit_us = plan.time_limit_us if start.time_limit_us is None else start.time_limit_us
    return (
        SagaStarted(
            definition=plan.key,
            input=start.input,
            labels=start.labels,
            idempotency_key=start.idempotency_key,
            start_at=start_at,
            deadline=None if limit_us is None else Instant((start_at or now) + limit_us),
            trace=start.trace,
        ),
    )


def _decide_wake(plan: SagaPlan, state: SagaState, now: Instant) -> tuple[Fact, ...]:
    if state.paused is not None:
        return ()  # its clocks run on, and are judged when it is resumed
    if expired := decide_expired_acceptances(plan, state, now):
        return expired
    if facts := _decide_deadline(plan, state, now):
        return facts
    if state.status is SagaStatus.PENDING and state.start_at is not None and state.start_at <= now:
        return (SagaBegan(),)
    if state.status is SagaStatus.COMPENSATING and state.quiet_at is not None and state.quiet_at <= now:
        return decide_silence(plan, state)
    return ()


def _decide_deadline(plan: SagaPlan, state: SagaState, now: Instant) -> tuple[Fact, ...]:
    """Turns the saga back if its time is over. Judged BEFORE anything is reached: behind a RETRIABLE step there is no way back."""
    is_on_its_way = state.status is SagaStatus.RUNNING or state.status is SagaStatus.PENDING
    if not is_on_its_way or state.deadline is None or state.deadline > now or has_passed(plan, state):
        return ()
    failure = Failure(Code.DEADLINE_EXCEEDED, "the time limit of the saga was reached")
    return turn_back(plan, state, now, cause=TurnBackCause.TIME_LIMIT, failure=failure)


def _decide_resume(plan: SagaPlan, state: SagaState, resume: Resume, now: Instant) -> tuple[Fact, ...]:
    """What came in during the pause is judged as it stood then, with nothing under way that was not sent before it (R10); and so are the
    clocks, which ran on.
    """
    resumed = decide_resume(state, resume)
    if not resumed:
        return ()
    failures = _decide_failures(plan, state, now) if state.status is SagaStatus.RUNNING else ()
    return (*(failures or _decide_deadline(plan, state, now)), *resumed)


def _decide_recovery(plan: SagaPlan, state: SagaState) -> tuple[Fact, ...]:
    """Every call that was owed may have been sent, those in backoff included: the clock may have stepped in between. So may those of a
    paused saga, from before it was paused (R29).
    """
    in_doubt = [call.attempt for call in owed_calls(state)]
    if state.status is SagaStatus.COMPENSATING:
        # Executions that are still awaited owe nothing more; their calls may be at work all the same, for longer than a clock says that
        # jumped in between.
        in_doubt += [
            next_attempt(step.plan.id, Direction.EXECUTE, step.execute)
            for step in state.steps
            if step.status is StepStatus.EXECUTING and step.execute is not None
        ]
    return (SagaRecovered(in_doubt=tuple(in_doubt)),) if in_doubt else ()
