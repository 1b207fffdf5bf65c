"""What is said about a step that is settled already: recorded, never acted upon (R17, R24)."""

from typing import Final

from coordinator.core.attempts import failed_attempt
from coordinator.core.events import Fact, LateOutcome
from coordinator.core.incidents import opened
from coordinator.core.inputs import Compensated, Rejected, Replied, ResolvedRejected, ResolvedSkipped, ResolvedSucceeded, Succeeded
from coordinator.core.state import SagaState, StepState
from coordinator.core.values import AttemptKey, Code, Direction, Failure, IncidentKind, Instant, Payload

LATE_OUTCOMES_MAX: Final = 8
"""Late outcomes of one step that are recorded: a participant that repeats itself must not fill the journal."""


def late_outcome(state: SagaState, step: StepState, reply: Replied) -> tuple[Fact, ...]:
    """The answer to a call whose step a person has resolved, or whose saga was terminated meanwhile."""
    outcome = reply.outcome
    said: Payload | Failure | None
    if isinstance(outcome, Succeeded):
        said = outcome.output
    elif isinstance(outcome, Compensated):
        said = None
    else:
        said = failed_attempt(outcome).failure
    return record_late(state, step, reply.attempt, reply.sent_at, said, is_refusal=isinstance(outcome, Rejected))


def record_late(
    state: SagaState,
    step: StepState,
    attempt: AttemptKey,
    sent_at: Instant | None,
    said: Payload | Failure | None,
    *,
    is_refusal: bool,
) -> tuple[Fact, ...]:
    """The fact, and an incident if it contradicts what a person said; nothing once enough of them are recorded."""
    if step.late_outcomes >= LATE_OUTCOMES_MAX:
        return ()
    late = LateOutcome(attempt=attempt, sent_at=sent_at, outcome=said)
    is_of_execution = attempt.direction is Direction.EXECUTE  # what is said of undoing contradicts nobody
    contradiction = _find_contradiction(step, attempt, said, is_refusal=is_refusal) if is_of_execution else None
    if contradiction is None:
        return (late,)
    failure = Failure(Code.FAILED_PRECONDITION, contradiction)
    return (late, opened(state, IncidentKind.LATE_OUTCOME, attempt.step_id, failure))


def _find_contradiction(step: StepState, attempt: AttemptKey, said: Payload | Failure | None, *, is_refusal: bool) -> str | None:
    if step.execute is not None and attempt.round < step.execute.round:
        if isinstance(said, Payload):
            return (
                "a person had the step tried again under another key, as if it had had no effect; its participant says that it took effect"
            )
        return None
    match step.resolution:
        case ResolvedSkipped() | ResolvedRejected() if isinstance(said, Payload):
            return "a person said that the step had no effect; its participant says that it took effect"
        case ResolvedSucceeded() if is_refusal:
            return "a person said that the step took effect; its participant says that it refused it"
        case _:
            return None
