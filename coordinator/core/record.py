"""`apply`, the only place where the state of a saga changes.

It records; it contains no rules. Folding it over the journal gives the live state, so whatever it does must depend on nothing but the plan,
the state and the event.
"""

from collections.abc import Iterable
from typing import assert_never

from coordinator.core import record_persons as persons
from coordinator.core.errors import CorruptJournalError
from coordinator.core.events import (
    AttemptFailed,
    Event,
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
from coordinator.core.plan import SagaPlan
from coordinator.core.point_of_no_return import has_passed
from coordinator.core.reach import find_reached
from coordinator.core.record_steps import (
    come_to_rest,
    end_compensation,
    end_execution,
    let_successors_wait_no_more,
    record_acceptance,
    record_failed_attempt,
    record_recovery,
    release_compensations,
    required_step,
)
from coordinator.core.state import IncidentState, SagaState, StepState
from coordinator.core.transitions import saga_status_after, step_status_after
from coordinator.core.values import Instant, SagaId, SagaStatus, StepStatus

SagaFact = (
    SagaStarted
    | SagaBegan
    | TurnBackRequested
    | SagaTurnedBack
    | IncidentOpened
    | IncidentClosed
    | SagaCompleted
    | SagaCompensated
    | SagaFailed
)


def replay(plan: SagaPlan, saga_id: SagaId, events: Iterable[Event]) -> SagaState:
    """The state after these events. Raises CorruptJournalError if they contradict each other."""
    state = SagaState(plan, saga_id)
    for event in events:
        apply(plan, state, event)
        if state.ready and not event.reached:
            _infer_reached(plan, state, event.occurred_at)
    return state


def _infer_reached(plan: SagaPlan, state: SagaState, at: Instant) -> None:
    """Events of the first release do not tell which steps were reached by them: its definitions had no expressions, so that it follows.

    Whatever is written since says it, or the saga may not reach anything as it stands, and nothing is inferred.
    """
    reached = find_reached(plan, state)
    if all(isinstance(one, StepDue) and one.input is None for one in reached):
        apply_reached(plan, state, reached, at)


def apply(plan: SagaPlan, state: SagaState, event: Event) -> None:
    """Records one event. Raises CorruptJournalError if it cannot follow what is recorded already."""
    if event.sequence != state.sequence + 1:
        raise CorruptJournalError(f"event {event.sequence} follows event {state.sequence} of saga {state.saga_id}")
    state.sequence = event.sequence
    state.updated_at = event.occurred_at
    _record(plan, state, event)
    if event.reached:
        apply_reached(plan, state, event.reached, event.occurred_at)
    if state.turn_back_requested is not None and has_passed(plan, state):
        state.turn_back_requested = None  # R10: the pivot took effect, so the saga goes forward
    if state.status is SagaStatus.COMPENSATING and state.paused is None:
        release_compensations(plan, state, event.occurred_at)


def apply_reached(plan: SagaPlan, state: SagaState, reached: Iterable[Reached], at: Instant) -> None:
    """Records what follows for steps that the saga has reached."""
    for one in reached:
        step = _reach(plan, state, one)
        match one:
            case StepDue(input=given):
                step.status = StepStatus.EXECUTING
                step.begin_execution(step.plan.input(state) if given is None else given, at)
                state.payload_bytes += 0 if given is None else len(given.value)
            case StepLeftOut():
                step.status, step.ended_at = StepStatus.SKIPPED, at
                let_successors_wait_no_more(plan, state, one.step_id)
            case StepUnfit(failure=failure):
                come_to_rest(plan, state, one.step_id, StepStatus.REJECTED, failure, at)
            case _:
                assert_never(one)


def _reach(plan: SagaPlan, state: SagaState, reached: Reached) -> StepState:
    index = plan.index_of.get(reached.step_id)
    if index is None:
        try:
            state.hook = StepState(plan.step_plan(reached.step_id), 0)
        except KeyError as error:
            raise CorruptJournalError(f"saga {state.saga_id} has no step {reached.step_id!r}") from error
        state.hook_id = reached.step_id
        return state.hook
    if index not in state.ready:
        raise CorruptJournalError(f"saga {state.saga_id} cannot have reached step {reached.step_id!r}")
    state.ready.remove(index)
    return state.steps[index]


def _record(plan: SagaPlan, state: SagaState, event: Event) -> None:  # noqa: C901, PLR0912 - one case per fact, closed in `_record_saga`
    fact, at = event.fact, event.occurred_at
    match fact:
        case StepSucceeded():
            end_execution(plan, state, fact, at).output = fact.output
            state.payload_bytes += len(fact.output.value)
            let_successors_wait_no_more(plan, state, fact.attempt.step_id)
        case SagaStarted() | SagaCompleted():  # with the one before, all that most sagas have
            _record_saga(plan, state, fact, at)
        case AttemptFailed():
            record_failed_attempt(plan, state, fact, at)
        case StepRejected() | StepUnknown():
            step = end_execution(plan, state, fact, at)
            if step.execute is not None:
                step.execute.failure = fact.failure
            come_to_rest(plan, state, fact.attempt.step_id, step.status, fact.failure, at)
        case StepAccepted():
            record_acceptance(plan, state, fact, at)
        case StepHeartbeat():
            step = required_step(plan, state, fact.step_id)
            step.status = step_status_after(step.status, fact)
            step.keep_alive(fact.accepted_until, fact.progress, at)
        case StepCompletedEarly():
            step = required_step(plan, state, fact.step_id)
            step.status, step.early = step_status_after(step.status, fact), fact
        case LateOutcome():
            required_step(plan, state, fact.attempt.step_id).late_outcomes += 1
        case StepCompensated():
            end_compensation(plan, state, fact).handler_ran = fact.handler_ran
        case StepCompensationFailed():
            step = end_compensation(plan, state, fact)
            if step.compensate is not None:
                step.compensate.failure = fact.failure
        case SagaRecovered():
            record_recovery(plan, state, fact, at)
        case SagaPaused() | SagaResumed() | SagaTerminated() | StepRetried() | StepResolved() | StepPolicyChanged() | OutputResolved():
            persons.record(plan, state, fact, at)
        case _:
            _record_saga(plan, state, fact, at)


def _record_saga(plan: SagaPlan, state: SagaState, fact: SagaFact, at: Instant) -> None:
    match fact:
        case SagaStarted():
            _record_start(plan, state, fact, at)
        case SagaBegan():
            state.status = saga_status_after(state.status, fact)
            _begin(state, at)
        case TurnBackRequested():
            state.turn_back_requested = fact
        case SagaTurnedBack():
            _record_turn_back(state, fact, at)
        case IncidentOpened():
            if fact.id != len(state.incidents) + 1:
                raise CorruptJournalError(f"incident {fact.id} follows incident {len(state.incidents)} of saga {state.saga_id}")
            state.incidents.append(IncidentState(at, fact))
        case IncidentClosed():
            _record_closed_incident(state, fact, at)
        case SagaCompleted():
            state.status = saga_status_after(state.status, fact)
            state.output, state.ended_at = fact.output, at
        case SagaCompensated():
            state.status = saga_status_after(state.status, fact)
            state.ended_at = at
        case SagaFailed():
            state.status = saga_status_after(state.status, fact)
        case _:
            assert_never(fact)


def _record_start(plan: SagaPlan, state: SagaState, fact: SagaStarted, at: Instant) -> None:
    if fact.definition != plan.key:
        raise CorruptJournalError(f"saga {state.saga_id} follows {fact.definition}, not {plan.key}")
    wanted = SagaStatus.RUNNING if fact.start_at is None else SagaStatus.PENDING
    state.status = saga_status_after(state.status, fact, wanted)
    state.created_at = at
    state.input, state.labels, state.trace = fact.input, fact.labels, fact.trace
    state.idempotency_key, state.start_at, state.deadline = fact.idempotency_key, fact.start_at, fact.deadline
    state.payload_bytes = len(fact.input.value)
    if wanted is SagaStatus.RUNNING:
        _begin(state, at)


def _begin(state: SagaState, at: Instant) -> None:
    state.started_at = at
    state.ready = [index for index, step in enumerate(state.steps) if step.waits_for == 0]


def _record_turn_back(state: SagaState, fact: SagaTurnedBack, at: Instant) -> None:
    was_failed = state.status is SagaStatus.FAILED
    state.status = saga_status_after(state.status, fact)
    if was_failed:
        state.resumed.append((state.sequence, at))
    state.cause, state.failure, state.quiet_at = fact.cause, fact.failure, fact.quiet_at
    state.failed_step, state.turn_back_requested, state.ready = fact.step_id, None, []
    for step in state.steps:
        call = step.execute
        if call is None:
            continue
        if step.status is StepStatus.ACCEPTED:
            step.settle(StepStatus.UNKNOWN, at)  # at rest at once (R12): its compensation says whether there is anything to undo
        elif step.status is StepStatus.EXECUTING and not state.may_be_under_way(step, call, at):
            # In backoff, or from before a pause that was longer than its time: at rest at once (R12). Without an attempt in doubt, and
            # where the one that is owed was never sent, it is known to have had no effect.
            may_have_effect = step.in_doubt or state.may_have_been_sent(call, at)
            step.settle(StepStatus.UNKNOWN if may_have_effect else StepStatus.REJECTED, at)


def _record_closed_incident(state: SagaState, fact: IncidentClosed, at: Instant) -> None:
    if not 1 <= fact.id <= len(state.incidents):
        raise CorruptJournalError(f"saga {state.saga_id} has no incident {fact.id}")
    state.incidents[fact.id - 1].closed_at = at
