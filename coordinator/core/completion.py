"""Steps that their participants finish later: CompleteStep and heartbeats (R24)."""

from typing import Final, NoReturn

from coordinator.core.errors import Refusal
from coordinator.core.events import Fact, StepCompletedEarly, StepHeartbeat
from coordinator.core.forward import completion_facts
from coordinator.core.inputs import CompleteStep, Heartbeat, Rejected, Succeeded
from coordinator.core.late import record_late
from coordinator.core.plan import SagaPlan
from coordinator.core.refusals import refuse
from coordinator.core.state import CallState, SagaState, StepState
from coordinator.core.values import MICROS_PER_SECOND, AttemptKey, Direction, Instant, StepId, StepStatus

ANOTHER_ROUND: Final = "a person had it tried again under another key; the token of that attempt counts"
HEARTBEAT_SHARE: Final = 4
"""A heartbeat without news is journalled only if it extends the time by at least this part (a quarter) of the limit: participants may beat
as often as they like without filling the journal."""
PROGRESS_SHARE: Final = 100
"""Progress is journalled at most so often within the limit, for the same reason,"""
PROGRESS_GAP_US: Final = MICROS_PER_SECOND
"""and never more often than this."""


def decide_completion(plan: SagaPlan, state: SagaState, command: CompleteStep, now: Instant) -> tuple[Fact, ...]:
    """What a completion makes of its step; nothing if it is a repetition.

    Raises CommandRefusedError if the step was settled otherwise and that is recorded often enough.
    """
    step, call = _step_of(plan, state, command.step_id)
    if command.round != call.round:
        return _completed_by_another_round(state, step, call, command)
    attempt = AttemptKey(command.step_id, Direction.EXECUTE, call.round, max(call.number, 1))
    is_settled = step.resolved is not None or (state.terminated is not None and step is not state.hook)
    if not is_settled and step.status is StepStatus.ACCEPTED:
        return completion_facts(attempt, None, command.result)
    if not is_settled and step.status is StepStatus.EXECUTING:
        is_at_work = state.may_be_under_way(step, call, now) or call.may_be_unheard(now)
        if call.number and not is_at_work:
            return completion_facts(attempt, None, command.result)  # in backoff: no call is under way that could contradict
        if step.early is None:
            return (StepCompletedEarly(step_id=command.step_id, round=command.round, result=command.result),)
        if step.early.result == command.result:
            return ()
        _refuse_late(state, step, "it was completed with another result already")
    if _is_repetition(step, command.result):
        return ()
    return _late(state, step, attempt, command.result, f"it is {step.status.name}")


def decide_heartbeat(plan: SagaPlan, state: SagaState, beat: Heartbeat, now: Instant) -> tuple[Fact, ...]:
    """More time for an accepted step; nothing if the step is not accepted (yet, or any more) or the beat says nothing new."""
    step, call = _step_of(plan, state, beat.step_id)
    if beat.round != call.round:
        _refuse_late(state, step, ANOTHER_ROUND)
    if step.status in (StepStatus.SUCCEEDED, StepStatus.REJECTED, StepStatus.SKIPPED):
        _refuse_late(state, step, f"it is {step.status.name}")
    if step.status is not StepStatus.ACCEPTED or step.accepted_until is None:
        return ()
    limit_us = step.accepted_limit_us if beat.time_limit_us is None else beat.time_limit_us
    until = max(Instant(now + limit_us), step.accepted_until)
    is_news = beat.progress is not None and beat.progress != step.progress
    if is_news and step.progress_at is not None:
        is_news = now - step.progress_at >= max(limit_us // PROGRESS_SHARE, PROGRESS_GAP_US)
    if not is_news and (until - step.accepted_until) * HEARTBEAT_SHARE < limit_us:
        return ()
    return (StepHeartbeat(step_id=beat.step_id, accepted_until=until, progress=beat.progress),)


def _step_of(plan: SagaPlan, state: SagaState, step_id: StepId) -> tuple[StepState, CallState]:
    step = state.step(plan, step_id)
    if step is None:
        refuse(state, Refusal.NO_SUCH_STEP, f"definition {plan.key.name!r} version {plan.key.version} has no step {step_id!r}")
    if step.execute is None:
        _refuse_late(state, step, "it was never executed")
    return step, step.execute


def _completed_by_another_round(state: SagaState, step: StepState, call: CallState, command: CompleteStep) -> tuple[Fact, ...]:
    """What became of a round that was given up, because it was taken to have had no effect (R1): never what becomes of the step."""
    if command.round > call.round:
        _refuse_late(state, step, ANOTHER_ROUND)
    attempt = step.accepted_attempt
    if attempt is None or attempt.round != command.round:
        attempt = AttemptKey(command.step_id, Direction.EXECUTE, command.round, 1)
    return _late(state, step, attempt, command.result, ANOTHER_ROUND)


def _late(state: SagaState, step: StepState, attempt: AttemptKey, result: Succeeded | Rejected, why: str) -> tuple[Fact, ...]:
    said = result.output if isinstance(result, Succeeded) else result.failure
    late = record_late(state, step, attempt, None, said, is_refusal=isinstance(result, Rejected))
    if not late:
        _refuse_late(state, step, why)
    return late


def _is_repetition(step: StepState, result: Succeeded | Rejected) -> bool:
    if step.resolved is not None:
        return False
    if isinstance(result, Succeeded):
        return step.output == result.output
    # A refusal that is not sealed left the step UNKNOWN (R5), from where its undo may have led it on.
    is_as_clean = step.status is StepStatus.REJECTED or not result.sealed
    return is_as_clean and step.output is None and step.failure == result.failure


def _refuse_late(state: SagaState, step: StepState, why: str) -> NoReturn:
    refuse(state, Refusal.TOO_LATE, f"step {step.plan.id!r} of saga {state.saga_id} cannot be completed by this token: {why}")
