"""Writes what the core made of the stories of `transcript`."""

from collections.abc import Iterator
from typing import assert_never

from coordinator.core.effects import OwedCall
from coordinator.core.events import (
    AttemptFailed,
    Event,
    Fact,
    IncidentClosed,
    IncidentOpened,
    LateOutcome,
    OutputResolved,
    Reached,
    SagaBegan,
    SagaCompensated,
    SagaCompleted,
    SagaFailed,
    SagaPaused,
    SagaRecovered,
    SagaResumed,
    SagaStarted,
    SagaTerminated,
    SagaTurnedBack,
    StepAccepted,
    StepCompensated,
    StepCompensationFailed,
    StepCompletedEarly,
    StepDue,
    StepHeartbeat,
    StepLeftOut,
    StepPolicyChanged,
    StepRejected,
    StepResolved,
    StepRetried,
    StepSucceeded,
    StepUnfit,
    StepUnknown,
    TurnBackRequested,
)
from coordinator.core.pending import pending
from coordinator.core.record import SagaFact
from coordinator.core.record_persons import PersonFact
from coordinator.core.values import MICROS_PER_SECOND, AttemptKey, Instant, StepId
from tests.builders import Story
from tests.unit.core.transcript_reading import CODES


def write_event(event: Event) -> str:
    said = _write_fact(event.fact)
    reached = "; reached " + ", ".join(map(_write_reached, event.reached)) if event.reached else ""
    return f"{event.sequence} {type(event.fact).__name__}{' ' if said else ''}{said}{reached}"


def _write_reached(reached: Reached) -> str:
    match reached:
        case StepDue(step_id=step_id):
            return step_id
        case StepLeftOut(step_id=step_id):
            return f"{step_id} left out"
        case StepUnfit(step_id=step_id):
            return f"{step_id} unfit"
        case _:
            assert_never(reached)


def _write_fact(fact: Fact) -> str:
    match fact:
        case AttemptFailed(attempt=attempt, outcome=outcome, failure=failure, retry_at=retry_at):
            return f"{_write_attempt(attempt)} {outcome.name} {CODES[failure.code]} retry_at={_write_instant(retry_at)}"
        case StepSucceeded(attempt=attempt):
            return _write_attempt(attempt)
        case StepRejected(attempt=attempt, failure=failure, sealed=sealed):
            return f"{_write_attempt(attempt)} {CODES[failure.code]}{' sealed' if sealed else ''}"
        case StepUnknown(attempt=attempt, failure=failure) | StepCompensationFailed(attempt=attempt, failure=failure):
            return f"{_write_attempt(attempt)} {CODES[failure.code]}"
        case StepAccepted(attempt=attempt, accepted_until=until):
            return f"{_write_attempt(attempt)} until={_write_instant(until)}"
        case StepCompensated(attempt=attempt, handler_ran=handler_ran):
            return f"{_write_attempt(attempt)}{'' if handler_ran else ' nothing to undo'}"
        case StepHeartbeat(step_id=step_id, accepted_until=until, progress=progress):
            return f"{step_id} until={_write_instant(until)}{' with progress' if progress is not None else ''}"
        case StepCompletedEarly(step_id=step_id, result=result):
            return f"{step_id} {type(result).__name__}"
        case LateOutcome(attempt=attempt, outcome=outcome):
            return f"{_write_attempt(attempt)} {'undone' if outcome is None else type(outcome).__name__.lower()}"
        case _:
            return _write_saga_fact(fact)


def _write_saga_fact(fact: SagaFact | PersonFact | SagaRecovered) -> str:
    match fact:
        case SagaStarted(start_at=start_at, deadline=deadline):
            return " ".join(_write_instants(start_at=start_at, deadline=deadline))
        case TurnBackRequested(cause=cause, step_id=step_id, actor=actor):
            return f"{cause.name}{_write_origin(step_id, actor)}"
        case SagaTurnedBack(cause=cause, quiet_at=quiet_at, step_id=step_id, actor=actor):
            return f"{cause.name}{_write_origin(step_id, actor)} quiet_at={_write_instant(quiet_at)}"
        case IncidentOpened(id=number, kind=kind, step_id=step_id):
            return f"#{number} {kind.name} step={step_id}"
        case IncidentClosed(id=number, actor=actor):
            return f"#{number}{_write_origin(None, actor)}"
        case SagaRecovered(in_doubt=in_doubt):
            return "in_doubt: " + ", ".join(_write_attempt(attempt) for attempt in in_doubt)
        case SagaBegan() | SagaCompleted() | SagaCompensated() | SagaFailed():
            return ""
        case _:
            return _write_person_fact(fact)


def _write_person_fact(fact: PersonFact) -> str:
    match fact:
        case StepRetried(step_id=step_id, direction=direction, round=round_, input=given):
            return f"{step_id} {direction.name.lower()} round={round_}{' with another input' if given is not None else ''}"
        case StepResolved(step_id=step_id, resolution=resolution):
            return f"{step_id} {type(resolution).__name__.removeprefix('Resolved').upper()}"
        case StepPolicyChanged(step_id=step_id):
            return step_id
        case SagaPaused(actor=actor) | SagaResumed(actor=actor) | SagaTerminated(actor=actor):
            return f"actor={actor}"
        case OutputResolved():
            return ""
        case _:
            assert_never(fact)


def _write_origin(step_id: StepId | None, actor: str) -> str:
    return f" step={step_id}" if step_id else f" actor={actor}" if actor else ""


def write_owed(story: Story) -> Iterator[str]:
    owed = pending(story.plan, story.state)
    yield from (_write_owed_call(call, story.state.updated_at) for call in owed.calls)
    if owed.wake_at is not None:
        yield f"wakes {_write_instant(owed.wake_at)}"
    if not owed.calls and owed.wake_at is None:
        yield "owes nothing"


def _write_owed_call(call: OwedCall, now: Instant) -> str:
    later = f" not_before={_write_instant(call.not_before)}" if call.not_before > now else ""
    return f"owes {_write_attempt(call.attempt)}{later}"


def _write_attempt(attempt: AttemptKey) -> str:
    round_ = "" if attempt.round == 1 else f" round={attempt.round}"
    return f"{attempt.step_id} {attempt.direction.name.lower()}#{attempt.number}{round_}"


def _write_instants(**instants: Instant | None) -> Iterator[str]:
    return (f"{name}={_write_instant(instant)}" for name, instant in instants.items() if instant is not None)


def _write_instant(instant: Instant) -> str:
    return f"{instant / MICROS_PER_SECOND:.6f}".rstrip("0").rstrip(".") + "s"
