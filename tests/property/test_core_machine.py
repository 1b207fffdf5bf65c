"""One saga, any plan, anything that can happen to it, and beside it a world that knows which effects were really taken.

The world is the oracle: it decides nothing, it only remembers what participants did, and the core never sees it. Whatever the core
believes, money is lost only if an effect stays in the world when the saga says COMPENSATED, or is missing when it says COMPLETED.
"""

from typing import Final

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from coordinator.core.effects import OwedCall
from coordinator.core.errors import CommandRefusedError
from coordinator.core.events import (
    AttemptFailed,
    Fact,
    IncidentOpened,
    SagaRecovered,
    SagaTurnedBack,
    StepCompensated,
    StepCompensationFailed,
    StepRejected,
    StepSucceeded,
    StepUnknown,
)
from coordinator.core.inputs import (
    Cancel,
    Compensated,
    Input,
    KeyExpired,
    Misconfigured,
    NotSent,
    Outcome,
    Recover,
    Rejected,
    Replied,
    RetryLater,
    Succeeded,
    Unknown,
    Wake,
)
from coordinator.core.pending import call_participant, pending
from coordinator.core.plan import RetryPolicy, SagaPlan, StepPlan
from coordinator.core.state import replay
from coordinator.core.values import UNFINISHED, AttemptKey, Direction, Failure, Payload, SagaStatus, StepId, StepKind
from tests.builders import COMPENSATE, EXECUTE, SAGA, Story, graph, snapshot, step

STEPS_MAX: Final = 7
INPUTS_TO_THE_END_MAX: Final = 400
"""Answers and timers after which a saga that is answered well must have come to its end."""
LATE_ANSWERS_MAX: Final = 3
"""Per saga: they change nothing, and would crowd out what does."""
CANCELS_AFTER: Final = 2
"""Events before somebody cancels, so that most stories have begun. That a PENDING saga is cancelled is told in the scenarios."""

ENDS_AN_ATTEMPT: Final = (AttemptFailed, StepSucceeded, StepRejected, StepUnknown, StepCompensated, StepCompensationFailed)

DONE: Final = Succeeded(output=Payload("shop.v1.Done", b"x" * 10))
UNDONE: Final = Compensated(handler_ran=True)

codes = st.sampled_from([4, 5, 6, 7, 9, 13, 14])
failures = st.builds(Failure, codes, st.just("said so"))
policies = st.builds(
    RetryPolicy,
    attempts_max=st.sampled_from([0, 0, 1, 2, 3]),
    initial_backoff_us=st.sampled_from([1, 200_000, 5_000_000]),
    non_retryable_codes=st.sampled_from([frozenset[int](), frozenset[int](), frozenset({13})]),
)


@st.composite
def steps(draw: st.DrawFn, name: str) -> StepPlan:
    return step(
        name,
        kind=draw(st.sampled_from([StepKind.COMPENSATABLE, StepKind.COMPENSATABLE, StepKind.READ_ONLY])),
        retry=draw(policies),
        undo=draw(policies),
        timeout_s=draw(st.sampled_from([1, 10])),
        limit_s=draw(st.sampled_from([5, 300])),
        undo_limit_s=draw(st.sampled_from([30, 86_400])),
    )


@st.composite
def plans(draw: st.DrawFn) -> SagaPlan:
    names = [f"s{number}" for number in range(draw(st.sampled_from([1, 1, 2, 2, 3, 3, *range(4, STEPS_MAX + 1)])))]
    after = {name: draw(st.lists(st.sampled_from(names[:place]), unique=True)) for place, name in enumerate(names) if place}
    return graph(
        [draw(steps(name)) for name in draw(st.permutations(names))],
        after,
        limit_s=draw(st.none() | st.sampled_from([3, 60])),
        payload_bytes_max=draw(st.sampled_from([40, 1_000_000])),
    )


class SagaMachine(RuleBasedStateMachine):
    """Feeds a saga; after every input all invariants are checked."""

    @initialize(plan=plans(), delay_s=st.sampled_from([None, None, None, 5]))
    def begin(self, plan: SagaPlan, delay_s: int | None) -> None:
        self.plan = plan
        self.story = Story(plan)
        self.now: float = 100
        self.late_answers = 0
        self.committed = 0  # events of the journal before the last input
        self.in_flight: set[AttemptKey] = set()
        self.in_flight_before: set[AttemptKey] = set()  # before the last input
        self.effects: dict[StepId, bool] = {one.id: False for one in plan.steps}  # the world
        self._took_in(self.story.start(self.now, start_at=None if delay_s is None else self.now + delay_s))

    # ── What can happen ─────────────────────────────────────────────────────────────────────────────────────────────────────────

    @precondition(lambda self: self.in_flight)
    @rule(draws=st.data())
    def participant_does_it(self, draws: st.DataObject) -> None:
        attempt = self._some_call(draws)
        self._answer(attempt, DONE if attempt.direction is EXECUTE else UNDONE, draws)

    @precondition(lambda self: self.in_flight)
    @rule(draws=st.data(), failure=failures)
    def answer_is_lost(self, draws: st.DataObject, failure: Failure) -> None:
        self._answer(self._some_call(draws), Unknown(failure=failure), draws)

    @precondition(lambda self: self.in_flight)
    @rule(draws=st.data(), failure=failures)
    def participant_refuses(self, draws: st.DataObject, failure: Failure) -> None:
        """Whoever took effect does not seal its key as rejected; nothing else is forbidden to it."""
        attempt = self._some_call(draws)
        sealed = not self.effects[attempt.step_id] and draws.draw(st.booleans(), "sealed")
        self._answer(attempt, Rejected(failure=failure, sealed=sealed), draws)

    @precondition(lambda self: self.in_flight)
    @rule(draws=st.data(), failure=failures)
    def participant_answers_anything(self, draws: st.DataObject, failure: Failure) -> None:
        self._answer(self._some_call(draws), draws.draw(outcomes(failure), "outcome"), draws)

    @precondition(lambda self: self.story.status in UNFINISHED)
    @rule(by_s=st.none() | st.sampled_from([0, 0.1, 1]), draws=st.data())
    def time_passes(self, by_s: float | None, draws: st.DataObject) -> None:
        """By so much, or until the saga has something to do next."""
        self.now = self._next_instant() if by_s is None else self.now + by_s
        facts = self._feed(Wake())
        for attempt in sorted(self.in_flight):  # whoever was silent for too long may have done it all the same
            if attempt in settled_by(facts):
                self._may_take_effect(attempt, draws)
                self.in_flight.discard(attempt)
        self._took_in(facts)

    @precondition(lambda self: len(self.story.journal) > CANCELS_AFTER)
    @rule()
    def somebody_cancels(self) -> None:
        before, status = snapshot(self.story.state), self.story.status
        try:
            self._took_in(self._feed(Cancel(actor="alice")))
        except CommandRefusedError:
            assert status in (SagaStatus.COMPLETED, SagaStatus.COMPENSATED, SagaStatus.FAILED)
            assert snapshot(self.story.state) == before

    @precondition(lambda self: self.story.status in UNFINISHED and (self.in_flight or not self._owed()))
    @rule(lose_last=st.booleans(), clock_steps_back_s=st.sampled_from([0, 0, 5]), draws=st.data())
    def coordinator_crashes(self, lose_last: bool, clock_steps_back_s: int, draws: st.DataObject) -> None:
        """The memory is gone, and what the last input decided if that was not committed; calls in flight may take effect or not."""
        if lose_last and self.committed:
            if len(self.story.journal) > self.committed:
                self.in_flight &= self.in_flight_before  # what the lost events justified was never released (R25)
            del self.story.journal[self.committed :]
        for attempt in sorted(self.in_flight):
            self._may_take_effect(attempt, draws)
        self.in_flight.clear()
        self.now -= clock_steps_back_s
        self.story.crash()
        self._took_in(self._feed(Recover()))

    @precondition(lambda self: self.late_answers < LATE_ANSWERS_MAX)
    @rule(draws=st.data(), failure=failures)
    def late_duplicate_or_unknown_answer(self, draws: st.DataObject, failure: Failure) -> None:
        self.late_answers += 1
        owed_next = [call.attempt._replace(number=call.attempt.number + 1) for call in self._owed()]
        nobody = [AttemptKey(StepId("nobody"), direction, 1, 1) for direction in Direction]
        other_round = [attempt._replace(round=2) for attempt in self.in_flight]
        attempt = draws.draw(st.sampled_from(sorted({*self._ended(), *owed_next, *nobody, *other_round})), "attempt")
        outcome = draws.draw(outcomes(failure), "outcome")
        before = snapshot(self.story.state)
        assert self.story.feed(Replied(attempt=attempt, outcome=outcome), self.now) == ()
        assert snapshot(self.story.state) == before

    # ── The world ───────────────────────────────────────────────────────────────────────────────────────────────────────────────

    def _some_call(self, draws: st.DataObject) -> AttemptKey:
        return draws.draw(st.sampled_from(sorted(self.in_flight)), "attempt")

    def _answer(self, attempt: AttemptKey, outcome: Outcome, draws: st.DataObject) -> None:
        self._in_the_world(attempt, outcome, draws)
        self.in_flight.discard(attempt)
        self._took_in(self._feed(Replied(attempt=attempt, outcome=outcome)))

    def _in_the_world(self, attempt: AttemptKey, outcome: Outcome, draws: st.DataObject) -> None:
        match outcome:
            case Succeeded() if attempt.direction is EXECUTE:
                self.effects[attempt.step_id] = True
            case Compensated() if attempt.direction is COMPENSATE:
                self.effects[attempt.step_id] = False
            case Unknown() | Succeeded() | Compensated():
                self._may_take_effect(attempt, draws)
            case Rejected() | RetryLater() | Misconfigured() | NotSent() | KeyExpired():
                pass  # this attempt had no effect; an earlier one may have had

    def _may_take_effect(self, attempt: AttemptKey, draws: st.DataObject) -> None:
        if draws.draw(st.booleans(), f"{attempt.step_id} took effect"):
            self.effects[attempt.step_id] = attempt.direction is EXECUTE

    def _feed(self, happened: Input) -> tuple[Fact, ...]:
        self.committed = len(self.story.journal)
        self.in_flight_before = set(self.in_flight)
        return self.story.feed(happened, self.now)

    def _took_in(self, facts: tuple[Fact, ...]) -> None:
        """Does the shell's part: releases what is owed and due, once everything is committed."""
        if any(isinstance(fact, SagaTurnedBack) for fact in facts):
            assert all(attempt.direction is EXECUTE for attempt in self.in_flight)
        for call in self._owed():
            if call.not_before <= round(self.now * 1_000_000):
                self.in_flight.add(call.attempt)

    def _next_instant(self) -> float:
        owed = pending(self.plan, self.story.state)
        instants = [call.not_before for call in owed.calls if call.attempt not in self.in_flight]
        if owed.wake_at is not None:
            instants.append(owed.wake_at)
        return max(self.now, min(instants, default=0) / 1_000_000)

    def _owed(self) -> tuple[OwedCall, ...]:
        return pending(self.plan, self.story.state).calls

    # ── Laws ────────────────────────────────────────────────────────────────────────────────────────────────────────────────────

    @invariant()
    def replay_equals_live(self) -> None:
        replayed = replay(self.plan, SAGA, self.story.journal)
        assert snapshot(replayed) == snapshot(self.story.state)
        assert pending(self.plan, replayed) == pending(self.plan, self.story.state)
        for call in self._owed():
            assert call_participant(self.plan, replayed, call.attempt) == call_participant(self.plan, self.story.state, call.attempt)

    @invariant()
    def keys_are_those_of_step_direction_and_round(self) -> None:  # R1
        for call in self._owed():
            effect = call_participant(self.plan, self.story.state, call.attempt)
            direction = "execute" if call.attempt.direction is EXECUTE else "compensate"
            assert effect.key == f"{SAGA}/{call.attempt.step_id}/{direction}/1"
            assert effect.execute_key == f"{SAGA}/{call.attempt.step_id}/execute/1"

    @invariant()
    def journal_is_gapless_and_time_goes_forward(self) -> None:
        journal = self.story.journal
        assert [event.sequence for event in journal] == list(range(1, len(journal) + 1))
        instants = [event.occurred_at for event in journal]
        assert instants == sorted(instants)

    @invariant()
    def attempt_numbers_never_repeat(self) -> None:  # R1
        ended = self._ended()
        for call in self._owed():
            same_call = [other.number for other in ended if other[:3] == call.attempt[:3]]
            assert call.attempt.number == max(same_call, default=0) + 1

    @invariant()
    def one_direction_is_owed_at_a_time(self) -> None:  # R12
        directions = {call.attempt.direction for call in self._owed()}
        assert directions <= ({COMPENSATE} if self._turned_back() else {EXECUTE})

    @invariant()
    def execution_waits_for_its_predecessors(self) -> None:  # R14
        assert all(self._was_due(call.attempt.step_id) for call in self._owed() if call.attempt.direction is EXECUTE)

    @invariant()
    def compensation_waits_for_what_came_after(self) -> None:  # R12
        compensating = [call.attempt.step_id for call in self._owed() if call.attempt.direction is COMPENSATE]
        for step_id in compensating:
            assert self._was_due(step_id)
            assert not any(self._has_effect(later) for later in self._descendants(step_id))
        if compensating:
            assert not any(attempt.direction is EXECUTE for attempt in self.in_flight)

    @invariant()
    def saga_that_can_move_owes_something(self) -> None:  # P1
        owed = pending(self.plan, self.story.state)
        if self.story.status in (SagaStatus.PENDING, SagaStatus.RUNNING, SagaStatus.COMPENSATING):
            assert owed.calls or owed.wake_at is not None
        else:
            assert owed == ((), None)

    @invariant()
    def compensated_leaves_no_effect(self) -> None:  # P4
        if self.story.status is SagaStatus.COMPENSATED:
            assert self._turned_back()
            assert not any(self._has_effect(one.id) for one in self.plan.steps)

    @invariant()
    def completed_means_every_step_took_effect(self) -> None:
        if self.story.status is SagaStatus.COMPLETED:
            assert not self._turned_back()
            assert all(self.effects.values())
            succeeded = [fact.attempt.step_id for fact in self._facts() if isinstance(fact, StepSucceeded)]
            assert sorted(succeeded) == sorted(one.id for one in self.plan.steps)

    @invariant()
    def failed_has_an_incident_for_each_effect_that_stays(self) -> None:  # R15
        if self.story.status is not SagaStatus.FAILED:
            return
        stuck = {fact.attempt.step_id for fact in self._facts() if isinstance(fact, StepCompensationFailed)}
        incidents = {fact.step_id for fact in self._facts() if isinstance(fact, IncidentOpened)}
        assert stuck
        assert incidents == stuck
        for one in self.plan.steps:
            if self._has_effect(one.id):
                assert stuck.intersection({one.id, *self._descendants(one.id)})

    def teardown(self) -> None:
        """From wherever it is: answered well from now on, the saga comes to its end by itself."""
        if not hasattr(self, "story"):
            return
        for _ in range(INPUTS_TO_THE_END_MAX):
            owed = pending(self.plan, self.story.state)
            if not owed.calls and owed.wake_at is None:
                break
            if owed.calls:
                attempt, not_before = owed.calls[0]
                self.now = max(self.now, not_before / 1_000_000)
                well: Outcome = UNDONE if attempt.direction is COMPENSATE else DONE
                self.effects[attempt.step_id] = attempt.direction is EXECUTE
                self.story.feed(Replied(attempt=attempt, outcome=well), self.now)
            elif owed.wake_at is not None:
                self.now = max(self.now, owed.wake_at / 1_000_000)
                self.story.wake(self.now)
        assert self.story.status in (SagaStatus.COMPLETED, SagaStatus.COMPENSATED, SagaStatus.FAILED)
        self.compensated_leaves_no_effect()
        self.completed_means_every_step_took_effect()
        self.failed_has_an_incident_for_each_effect_that_stays()

    def _facts(self) -> list[Fact]:
        return [event.fact for event in self.story.journal]

    def _ended(self) -> set[AttemptKey]:
        """The attempts whose end the journal knows, or holds in doubt for ever."""
        known = {fact.attempt for fact in self._facts() if isinstance(fact, ENDS_AN_ATTEMPT)}
        return known.union(*(fact.in_doubt for fact in self._facts() if isinstance(fact, SagaRecovered)))

    def _turned_back(self) -> bool:
        return any(isinstance(fact, SagaTurnedBack) for fact in self._facts())

    def _was_due(self, step_id: StepId) -> bool:
        """Whether all of its predecessors succeeded, so that it may have been executed."""
        done = {fact.attempt.step_id for fact in self._facts() if isinstance(fact, StepSucceeded)}
        return {self.plan.steps[index].id for index in self.plan.predecessors[self.plan.index_of[step_id]]} <= done

    def _has_effect(self, step_id: StepId) -> bool:
        """Whether there is something in the world that has to be undone."""
        return self.effects[step_id] and self.plan.steps[self.plan.index_of[step_id]].kind is StepKind.COMPENSATABLE

    def _descendants(self, step_id: StepId) -> set[StepId]:
        found: set[StepId] = set()
        waiting = [self.plan.index_of[step_id]]
        while waiting:
            before = waiting.pop()
            later = [index for index, needs in enumerate(self.plan.predecessors) if before in needs]
            waiting.extend(later)
            found.update(self.plan.steps[index].id for index in later)
        return found


def outcomes(failure: Failure) -> st.SearchStrategy[Outcome]:
    """Whatever the shell can make of an answer, to either kind of call."""
    return st.sampled_from(
        [
            DONE,
            UNDONE,
            Rejected(failure=failure),
            Unknown(failure=failure),
            RetryLater(failure=failure, delay_us=2_000_000),
            NotSent(failure=failure),
            Misconfigured(failure=failure),
            KeyExpired(failure=failure),
        ]
    )


def settled_by(facts: tuple[Fact, ...]) -> set[AttemptKey]:
    """The attempts that facts bring to an end."""
    return {fact.attempt for fact in facts if isinstance(fact, ENDS_AN_ATTEMPT)}


TestSaga = pytest.mark.timeout(900)(SagaMachine.TestCase)
