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
from coordinator.core.values import AttemptKey, Direction, Instant, StepId, StepStatus

HEARTBEAT_SHARE: Final = 4
"""A heartbeat without news is journalled only if it extends the time by at least this part (a quarter) of the limit: participants may beat
as often as they like without filling the journal."""


def decide_completion(plan: SagaPlan, state: SagaState, command: CompleteStep, now: Instant) -> tuple[Fact, ...]:
    """What a completion makes of its step; nothing if it is a repetition.

    Raises CommandRefusedError if the step was settled otherwise and that is recorded often enough, or by another round.
    """
    step, call = _step_of(plan, state, command.step_id, command.round)
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
    said = command.result.output if isinstance(command.result, Succeeded) else command.result.failure
    late = record_late(state, step, attempt, None, said, is_refusal=isinstance(command.result, Rejected))
    if not late:
        _refuse_late(state, step, f"it is {step.status.name}")
    return late


def decide_heartbeat(plan: SagaPlan, state: SagaState, beat: Heartbeat, now: Instant) -> tuple[Fact, ...]:
    """More time for an accepted step; nothing if the step is not accepted (yet, or any more) or the beat says nothing new."""
    step, _ = _step_of(plan, state, beat.step_id, beat.round)
    if step.status in (StepStatus.SUCCEEDED, StepStatus.REJECTED, StepStatus.SKIPPED):
        _refuse_late(state, step, f"it is {step.status.name}")
    if step.status is not StepStatus.ACCEPTED or step.accepted_until is None:
        return ()
    limit_us = step.accepted_limit_us if beat.time_limit_us is None else beat.time_limit_us
    until = max(Instant(now + limit_us), step.accepted_until)
    is_news = beat.progress is not None and beat.progress != step.progress
    if not is_news and (until - step.accepted_until) * HEARTBEAT_SHARE < limit_us:
        return ()
    return (StepHeartbeat(step_id=beat.step_id, accepted_until=until, progress=beat.progress),)


def _step_of(plan: SagaPlan, state: SagaState, step_id: StepId, round_: int) -> tuple[StepState, CallState]:
    step = state.step(plan, step_id)
    if step is None:
        refuse(state, Refusal.NO_SUCH_STEP, f"definition {plan.key.name!r} version {plan.key.version} has no step {step_id!r}")
    if step.execute is None or step.execute.round != round_:
        _refuse_late(state, step, "a person had it tried again under another key; the token of that attempt counts")
    return step, step.execute


def _is_repetition(step: StepState, result: Succeeded | Rejected) -> bool:
    if isinstance(result, Succeeded):
        return step.resolved is None and step.output == result.output
    return step.status is StepStatus.REJECTED and step.resolved is None and step.failure == result.failure


def _refuse_late(state: SagaState, step: StepState, why: str) -> NoReturn:
    refuse(state, Refusal.TOO_LATE, f"step {step.plan.id!r} of saga {state.saga_id} cannot be completed by this token: {why}")
