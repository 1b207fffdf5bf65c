"""What must hold for a saga after whatever has happened to it. Each law is a function; `check` goes through all of them."""

from collections import Counter
from typing import Final

from coordinator.core.events import (
    IncidentClosed,
    IncidentOpened,
    SagaPaused,
    SagaResumed,
    SagaTurnedBack,
    StepRetried,
)
from coordinator.core.inputs import ResolvedSucceeded, Wake
from coordinator.core.pending import call_participant, pending
from coordinator.core.plan import ON_FAILURE, ON_SUCCESS
from coordinator.core.values import (
    UNFINISHED,
    Direction,
    IncidentKind,
    SagaStatus,
    StepId,
    StepKind,
    StepStatus,
)
from tests.builders import COMPENSATE, EXECUTE, at, snapshot
from tests.property.core_life import Life

HOOKS: Final = frozenset({ON_SUCCESS, ON_FAILURE})
MUST_NOT_STAY: Final = (StepKind.COMPENSATABLE, StepKind.PIVOT, StepKind.RETRIABLE)
OWES: Final = {EXECUTE: StepStatus.EXECUTING, COMPENSATE: StepStatus.COMPENSATING}
_DONE: Final = (StepStatus.SUCCEEDED, StepStatus.SKIPPED)
_AT_REST: Final = (StepStatus.REJECTED, StepStatus.UNKNOWN)


def check(life: Life) -> None:
    """Every law."""
    replay_equals_live(life)
    journal_is_gapless_and_time_goes_forward(life)
    course_agrees(life)
    what_is_owed_excludes_nothing_else(life)
    calls_under_way_are_awaited(life)
    nothing_new_is_reached_by_a_saga_that_is_held(life)
    rounds_keep_their_input_and_key(life)
    execution_waits_for_its_predecessors(life)
    compensation_waits_for_what_came_after(life)
    saga_that_can_move_owes_something(life)
    saga_that_failed_asks_for_a_person(life)
    nothing_turns_back_over_a_pivot(life)
    round_rises_only_without_effect(life)
    incidents_open_and_close_once(life)
    timer_that_fires_decides_something(life)
    end_leaves_the_world_as_it_says(life)
    hook_is_reached_at_the_end_and_once(life)


def replay_equals_live(life: Life) -> None:
    """Folding the journal gives the live state, and what it owes, to the byte."""
    state = life.story.state
    replayed = life.replayed
    assert snapshot(replayed) == snapshot(state)
    owed = pending(life.plan, state)
    assert pending(life.plan, replayed) == owed
    for call in owed.calls:
        assert call_participant(life.plan, replayed, call.attempt) == call_participant(life.plan, state, call.attempt)


def journal_is_gapless_and_time_goes_forward(life: Life) -> None:
    journal = life.story.journal
    assert [event.sequence for event in journal] == list(range(1, len(journal) + 1))
    instants = [event.occurred_at for event in journal]
    assert instants == sorted(instants)


def course_agrees(life: Life) -> None:
    """Who follows the events alone sees the same status and the same end."""
    state = life.story.state
    assert life.course.status is state.status
    assert life.course.is_over == (state.has_ended and not state.is_unfinished)


def what_is_owed_excludes_nothing_else(life: Life) -> None:
    """One call for each step at most, of a step in motion; none while paused; the hook alone after the end (R12, R16)."""
    state, owed = life.story.state, pending(life.plan, life.story.state)
    assert len({call.attempt.step_id for call in owed.calls}) == len(owed.calls)
    for call in owed.calls:
        step_id, direction = call.attempt.step_id, call.attempt.direction
        assert life.state_of(step_id).status is OWES[direction]
        assert (step_id in HOOKS) == state.has_ended
        assert direction is (COMPENSATE if state.status is SagaStatus.COMPENSATING and not state.has_ended else EXECUTE)
    if state.paused is not None:
        assert owed == ((), None)
        assert not state.has_ended


def calls_under_way_are_awaited(life: Life) -> None:
    """Nobody decides how a step ended while a call of it is under way, but for a saga that was terminated (R12, R17)."""
    if life.story.state.terminated is not None:
        return
    for attempt in life.under_way:
        step = life.state_of(attempt.step_id)
        call = step.execute if attempt.direction is EXECUTE else step.compensate
        assert step.status is OWES[attempt.direction]
        assert call is not None
        assert (call.round, call.number + 1) == (attempt.round, attempt.number)


def nothing_new_is_reached_by_a_saga_that_is_held(life: Life) -> None:
    """Neither while it is paused nor after it has turned back (R12)."""
    held = False
    for event in life.story.journal:
        held = (held or isinstance(event.fact, SagaPaused | SagaTurnedBack)) and not isinstance(event.fact, SagaResumed)
        assert not held or all(one.step_id in HOOKS for one in event.reached)


def rounds_keep_their_input_and_key(life: Life) -> None:
    """All attempts of a round carry the same bytes (R1, R3); an undo has the input of the last round that was done."""
    rounds: dict[tuple[StepId, int], object] = {}
    keys: dict[str, tuple[StepId, Direction, int]] = {}
    for attempt, sent in life.sent.items():
        assert keys.setdefault(sent.key, attempt[:3]) == attempt[:3]
        if attempt.direction is EXECUTE:
            content = sent.input, sent.first_attempt_at
            assert rounds.setdefault((attempt.step_id, attempt.round), content) == content
    for attempt in life.under_way:
        execute = life.state_of(attempt.step_id).execute
        if attempt.direction is COMPENSATE and execute is not None and (attempt.step_id, execute.round) in rounds:
            assert (life.sent[attempt].input, life.sent[attempt].first_attempt_at) == rounds[attempt.step_id, execute.round]


def execution_waits_for_its_predecessors(life: Life) -> None:  # R14
    for attempt in life.under_way:
        if attempt.direction is EXECUTE and attempt.step_id not in HOOKS:
            for index in life.plan.predecessors[life.plan.index_of[attempt.step_id]]:
                kind, status = life.plan.steps[index].kind, life.story.state.steps[index].status
                assert status in _DONE or (kind is StepKind.BEST_EFFORT and status in _AT_REST) or life.story.state.cause is not None


def compensation_waits_for_what_came_after(life: Life) -> None:  # R12
    undoing = [call.attempt.step_id for call in life.owed_calls() if call.attempt.direction is COMPENSATE]
    for step_id in undoing:
        assert life.step_plan(step_id).is_compensated
        assert not any(_has_something_to_undo(life, later) for later in _descendants(life, step_id))
    if undoing:
        assert not any(attempt.direction is EXECUTE for attempt in life.under_way)


def saga_that_can_move_owes_something(life: Life) -> None:  # P1
    state, owed = life.story.state, pending(life.plan, life.story.state)
    if state.status in UNFINISHED and state.paused is None:
        assert owed.calls or owed.wake_at is not None
    if state.has_ended:
        moves = state.hook is not None and state.hook.status in (StepStatus.EXECUTING, StepStatus.ACCEPTED)
        assert moves == bool(owed.calls or owed.wake_at is not None)


def saga_that_failed_asks_for_a_person(life: Life) -> None:  # R15
    state = life.story.state
    if state.status is SagaStatus.FAILED and state.terminated is None:
        assert pending(life.plan, state) == ((), None)
        assert any(incident.closed_at is None and incident.fact.kind is not IncidentKind.LATE_OUTCOME for incident in state.incidents)


def nothing_turns_back_over_a_pivot(life: Life) -> None:  # R9, R10
    """When a saga turns back nothing that cannot be undone has taken effect, nor can it any more; and once it shall turn back, a pivot that
    is known to have had no effect is not sent again.
    """
    facts = life.last[1]
    pivot = None if life.plan.pivot is None else life.plan.steps[life.plan.pivot].id
    if any(isinstance(fact, SagaTurnedBack) for fact in facts):
        for step_id in life.ids_of(StepKind.PIVOT, StepKind.RETRIABLE):
            assert step_id not in life.world.effects or step_id in life.world.disputed, f"{step_id} took effect"
            assert not _may_still_be_done(life, step_id), f"{step_id} may still take effect"
    if life.story.state.turn_back_requested is not None:
        for attempt in life.newly_sent:
            assert attempt.step_id != pivot or life.state_of(attempt.step_id).in_doubt, "the pivot is executed although it need not be"


def _may_still_be_done(life: Life, step_id: StepId) -> bool:
    return any(attempt.step_id == step_id and life.world.can_take_effect(attempt) for attempt in (*life.under_way, *life.ghosts))


def round_rises_only_without_effect(life: Life) -> None:  # R1
    known: dict[StepId, int] = {}
    for fact in life.facts():
        if isinstance(fact, StepRetried) and fact.direction is EXECUTE:
            assert fact.round in (known.get(fact.step_id, 1), known.get(fact.step_id, 1) + 1, 1)
            known[fact.step_id] = fact.round
    for fact in life.last[1]:
        if isinstance(fact, StepRetried) and fact.direction is EXECUTE and fact.round > 1 and life.is_first_of_round(fact):
            assert fact.step_id not in life.world.effects or fact.step_id in life.world.disputed, f"{fact.step_id} would be done twice"


def incidents_open_and_close_once(life: Life) -> None:
    facts = life.facts()
    opened = [fact.id for fact in facts if isinstance(fact, IncidentOpened)]
    closed = Counter(fact.id for fact in facts if isinstance(fact, IncidentClosed))
    assert opened == list(range(1, len(opened) + 1))
    assert set(closed) <= set(opened)
    assert set(closed.values()) <= {1}
    state = life.story.state
    still_open = [incident.fact for incident in state.incidents if incident.closed_at is None]
    assert len({(fact.step_id, fact.kind) for fact in still_open if fact.kind is not IncidentKind.LATE_OUTCOME}) == sum(
        fact.kind is not IncidentKind.LATE_OUTCOME for fact in still_open
    )
    if state.has_ended:
        assert all(fact.kind is IncidentKind.LATE_OUTCOME or fact.step_id in HOOKS for fact in still_open)


def timer_that_fires_decides_something(life: Life) -> None:
    """Else the shell would be woken for ever."""
    happened, facts = life.last
    wake_at = pending(life.plan, life.story.state).wake_at
    if isinstance(happened, Wake) and not facts and wake_at is not None:
        assert wake_at > at(life.now)


def end_leaves_the_world_as_it_says(life: Life) -> None:  # P1, P4
    state, effects = life.story.state, life.world.effects
    if state.terminated is not None:
        return
    if state.status is SagaStatus.COMPENSATED:
        assert state.cause is not None
        for plan, _ in life.steps():
            if plan.kind in MUST_NOT_STAY or (plan.kind is StepKind.BEST_EFFORT and plan.is_compensated):
                assert plan.id not in effects or plan.id in life.world.disputed, f"the effect of {plan.id} stays"
    if state.status is SagaStatus.COMPLETED:
        assert state.cause is None
        for plan, step in life.steps():
            _step_of_a_completed_saga_is_done(life, plan.id, step.status, plan.kind)


def _step_of_a_completed_saga_is_done(life: Life, step_id: StepId, status: StepStatus, kind: StepKind) -> None:
    if status is StepStatus.SUCCEEDED:
        assert step_id in life.world.effects, f"{step_id} never took effect"
    elif status is StepStatus.SKIPPED:
        assert step_id not in life.world.effects or step_id in life.world.disputed, f"{step_id} was left out, and took effect"
    else:
        assert kind is StepKind.BEST_EFFORT, f"{step_id} is {status.name}"
        assert status in _AT_REST


def hook_is_reached_at_the_end_and_once(life: Life) -> None:  # R16
    state = life.story.state
    if state.has_ended:
        hook = life.plan.on_success if state.status is SagaStatus.COMPLETED else life.plan.on_failure
        assert state.hook_id == (None if hook is None else hook.id)
        if (
            state.hook is not None
            and state.hook.status is StepStatus.SUCCEEDED
            and not isinstance(state.hook.resolution, ResolvedSucceeded)
        ):
            assert state.hook_id in life.world.effects
    reached = [one.step_id for event in life.story.journal for one in event.reached]
    assert len(reached) == len(set(reached))
    assert sum(step_id in HOOKS for step_id in reached) == (state.hook is not None)


def _has_something_to_undo(life: Life, step_id: StepId) -> bool:
    """Whether an effect is there that compensation is responsible for."""
    if step_id not in life.world.effects or step_id in life.world.disputed:
        return False
    return life.step_plan(step_id).is_compensated


def _descendants(life: Life, step_id: StepId) -> set[StepId]:
    found: set[StepId] = set()
    ahead = [life.plan.index_of[step_id]]
    while ahead:
        later = life.plan.successors[ahead.pop()]
        ahead.extend(later)
        found.update(life.plan.steps[index].id for index in later)
    return found
