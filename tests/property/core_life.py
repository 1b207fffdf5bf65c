"""One saga in the hands of its shell: its story, the world beside it, and which calls are under way.

It does the shell's part as the engine does: what a saga owes and what is due is sent once everything is committed; a crash loses the
memory, and what the last input decided if that was not committed.
"""

from collections.abc import Iterable
from typing import Final, NamedTuple

from coordinator.core.course import SagaCourse
from coordinator.core.effects import OwedCall
from coordinator.core.errors import CommandRefusedError, Refusal
from coordinator.core.events import (
    AttemptFailed,
    Event,
    Fact,
    LateOutcome,
    SagaRecovered,
    StepAccepted,
    StepCompensated,
    StepCompensationFailed,
    StepRejected,
    StepRetried,
    StepSucceeded,
    StepUnknown,
)
from coordinator.core.inputs import (
    Command,
    Compensated,
    CompleteStep,
    Input,
    Mismatched,
    NotSent,
    Outcome,
    Recover,
    Rejected,
    Replied,
    ResolveStep,
    Start,
    Succeeded,
    Unknown,
    Wake,
)
from coordinator.core.pending import call_participant, pending
from coordinator.core.plan import SagaPlan, StepPlan
from coordinator.core.record import apply, replay
from coordinator.core.state import SagaState, StepState
from coordinator.core.values import MICROS_PER_SECOND, AttemptKey, Instant, Payload, StepId, StepKind, StepStatus
from tests.builders import EXECUTE, INPUT, SAGA, TRACE, Story, at, failure, snapshot
from tests.property.core_plans import Choices
from tests.property.core_world import World

BEGINS_AT: Final = 100
"""Seconds since the epoch of the tests."""
DONE: Final = Succeeded(output=Payload("shop.v1.Done", b"x" * 10))
UNDONE: Final = Compensated(handler_ran=True)
_SETTLES: Final = (AttemptFailed, StepSucceeded, StepRejected, StepUnknown, StepAccepted, StepCompensated, StepCompensationFailed)


class Sent(NamedTuple):
    """What stood in a call when it was sent."""

    input: Payload
    first_attempt_at: Instant
    key: str
    at: float
    """Seconds."""
    within_s: float
    """How long the participant may take."""


class Life:
    """Feeds one saga. Every method leaves it as the shell would: with everything sent that may be sent."""

    def __init__(self, plan: SagaPlan, choices: Choices, *, start_at: float | None = None) -> None:
        self.plan = plan
        self.story = Story(plan)
        self.now: float = BEGINS_AT
        self.world = World()
        self.replayed = SagaState(plan, SAGA)
        """What the journal alone says, folded as it grows."""
        self.course = SagaCourse()
        self.under_way: set[AttemptKey] = set()
        """Calls that participants have."""
        self.ghosts: dict[AttemptKey, float] = {}
        """Calls whose answers nobody hears any more, which participants may still carry out, and until when."""
        self.sent: dict[AttemptKey, Sent] = {}
        """Every call that was ever sent."""
        self.never_left: set[AttemptKey] = set()
        """Those that turned out not to have been handed to the network."""
        self.newly_sent: set[AttemptKey] = set()
        """Those that were sent after the last input."""
        self.last: tuple[Input, tuple[Fact, ...]] = (Wake(), ())
        """The last input and what it made."""
        self._takes_back = False
        self._committed = 0
        self._under_way_before: set[AttemptKey] = set()
        self._word_before: tuple[set[StepId], set[StepId]] = (set(), set())
        self._feed(Start(input=INPUT, trace=TRACE, start_at=None if start_at is None else at(self.now + start_at)), choices)

    # ── What can happen ─────────────────────────────────────────────────────────────────────────────────────────────────────────

    def answer(self, attempt: AttemptKey, outcome: Outcome, choices: Choices) -> None:
        """A call that is under way ends. A participant whose key is sealed says so, whatever was chosen for it."""
        if not self.world.can_answer(attempt, outcome):
            outcome = DONE if attempt.step_id in self.world.effects else SEALED
        self.world.answered(attempt, outcome, choices)
        self.under_way.discard(attempt)
        if isinstance(outcome, NotSent | Mismatched):
            self.never_left.add(attempt)
        self._feed(Replied(attempt=attempt, outcome=outcome, sent_at=Instant(1)), choices)

    def say_again(self, attempt: AttemptKey, outcome: Outcome, choices: Choices) -> None:
        """An answer that nobody waits for."""
        self._feed(Replied(attempt=attempt, outcome=outcome), choices)

    def pass_time(self, by_s: float | None, choices: Choices) -> None:
        """By so much, or until the saga has something to do next."""
        self.now = self._next_instant() if by_s is None else self.now + by_s
        if self.story.state.paused is not None:
            for attempt in sorted(attempt for attempt in self.under_way if self._is_over(attempt)):
                self.answer(attempt, Unknown(failure=failure()), choices)
        self.ghosts = {attempt: until for attempt, until in self.ghosts.items() if until > self.now}
        self._feed(Wake(), choices)

    def command(self, command: Command, choices: Choices) -> Refusal | None:
        """Somebody asks for something; why it is refused, if it is. A refused command changes nothing."""
        before = snapshot(self.story.state)
        try:
            self._feed(command, choices)
        except CommandRefusedError as refused:
            refusal = refused.refusal
        else:
            return None
        assert snapshot(self.story.state) == before
        return refusal

    def complete(self, step_id: StepId, round_: int, result: Succeeded | Rejected, choices: Choices) -> Refusal | None:
        """A participant completes a step by its token. It has done what it says, if its own database let it."""
        if isinstance(result, Succeeded) and (step_id, round_) in self.world.sealed:
            result = SEALED
        elif isinstance(result, Rejected) and result.sealed and step_id in self.world.effects:
            result = DONE
        step = self.story.state.step(self.plan, step_id)
        if step is not None and self._can_finish(step, round_):
            self.world.completed(step_id, round_, result)
            if step.resolved is not None and isinstance(result, Succeeded):
                self.world.disputed.add(step_id)
        return self.command(CompleteStep(step_id=step_id, round=round_, result=result), choices)

    def crash(self, choices: Choices, *, loses_last: bool, clock_steps_s: float) -> None:
        """The memory is gone, and what the last input decided if that was not committed. What participants had may take effect, or may
        still be carried out later.
        """
        if loses_last and self._committed:
            self._lose_last()
        for attempt in sorted(self.under_way):
            self.world.may_take_effect(attempt, choices)
            self._may_haunt(attempt)
        self.under_way.clear()
        self.now += clock_steps_s
        self.ghosts = {attempt: until + clock_steps_s for attempt, until in self.ghosts.items()}
        self.story.crash()
        self.course = _course_of(self.story.journal)
        self.replayed = replay(self.plan, SAGA, self.story.journal)
        self._feed(Recover(), choices)

    def _may_haunt(self, attempt: AttemptKey) -> None:
        """Nobody hears its answer any more, but its participant may carry it out until its time is over."""
        until = self.sent[attempt].at + self.sent[attempt].within_s
        if attempt.direction is EXECUTE and until > self.now:
            self.ghosts[attempt] = until

    def _lose_last(self) -> None:
        if len(self.story.journal) > self._committed:
            for attempt in self.under_way - self._under_way_before:
                del self.sent[attempt]  # what the lost events justified was never sent (R25)
            self.under_way &= self._under_way_before
            if isinstance(self.last[0], ResolveStep):
                self.world.effects, self.world.disputed = self._word_before  # nobody was told that it was taken, so nobody saw to it
        del self.story.journal[self._committed :]

    def let_ghost_act(self, attempt: AttemptKey) -> None:
        """A call of a process that has died is carried out all the same."""
        del self.ghosts[attempt]
        self.world.is_carried_out(attempt)

    def _is_over(self, attempt: AttemptKey) -> bool:
        """Whether the shell has given up waiting for it: only a saga that turned back may be kept waiting longer in these stories."""
        return self.sent[attempt].at + self.sent[attempt].within_s <= self.now

    # ── The shell ───────────────────────────────────────────────────────────────────────────────────────────────────────────────

    def _feed(self, happened: Input, choices: Choices) -> None:
        accepted = {step.plan.id for step in self.story.state.steps if step.status is StepStatus.ACCEPTED}
        self._committed = len(self.story.journal)
        self._under_way_before = set(self.under_way)
        restrained = self._restraints()
        self.last = happened, ()
        facts = self.story.feed(happened, self.now)
        is_tighter = self._restraints() > restrained
        self.last = happened, facts
        self._word_before = set(self.world.effects), set(self.world.disputed)
        self.world.take_word(facts)
        for event in self.story.journal[self._committed :]:
            self.course.follow(event)
            apply(self.plan, self.replayed, event)
        self._give_up_waiting(happened, facts, accepted, choices)
        if is_tighter and not self._takes_back:
            self._take_back(choices)
        self._send()

    def _take_back(self, choices: Choices) -> None:
        """The saga turned back, or shall: what was decided to be sent by the same events is not sent at all."""
        self._takes_back = True
        for step in self.story.state.steps:
            if step.status is StepStatus.EXECUTING and step.execute is not None:
                attempt = AttemptKey(step.plan.id, EXECUTE, step.execute.round, step.execute.number + 1)
                if attempt not in self.under_way:
                    happened, facts = self.last
                    self._feed(Replied(attempt=attempt, outcome=NotSent(failure=failure())), choices)
                    self.last = happened, facts + self.last[1]
        self._takes_back = False

    def _restraints(self) -> tuple[bool, bool]:
        return self.story.state.cause is not None, self.story.state.turn_back_requested is not None

    def _give_up_waiting(self, happened: Input, facts: tuple[Fact, ...], accepted: set[StepId], choices: Choices) -> None:
        """Whoever was silent for too long may have done it all the same."""
        for attempt in sorted(self.under_way & settled_by(facts)):
            self.world.may_take_effect(attempt, choices)
            self.under_way.discard(attempt)
            self._may_haunt(attempt)
        by_token = happened.step_id if isinstance(happened, CompleteStep) else None
        for step_id in sorted(accepted - {by_token}):
            step = self.state_of(step_id)
            if step.status is not StepStatus.ACCEPTED and step.accepted_attempt is not None:
                self.world.may_take_effect(step.accepted_attempt, choices)

    def _send(self) -> None:
        self.newly_sent = set()
        for call in self.owed_calls():
            if call.not_before > at(self.now) or call.attempt in self.under_way:
                continue
            effect = call_participant(self.plan, self.story.state, call.attempt)
            assert not self._was_sent(call.attempt), "attempt numbers never repeat (R1)"
            limit_us = effect.timeout_us if effect.send_before is None else min(effect.timeout_us, effect.send_before - at(self.now))
            self.sent[call.attempt] = Sent(effect.input, effect.first_attempt_at, effect.key, self.now, limit_us / MICROS_PER_SECOND)
            self.under_way.add(call.attempt)
            self.newly_sent.add(call.attempt)

    def is_first_of_round(self, retried: StepRetried) -> bool:
        """Whether that fact began the round that it names."""
        return not any(attempt[:3] == (retried.step_id, EXECUTE, retried.round) for attempt in self.sent if attempt not in self.newly_sent)

    def _was_sent(self, attempt: AttemptKey) -> bool:
        return any(
            (sent.step_id, sent.direction) == (attempt.step_id, attempt.direction) and sent.number >= attempt.number for sent in self.sent
        )

    def _can_finish(self, step: StepState, round_: int) -> bool:
        """Whether the participant's own database would take it: its key is neither used up nor closed by an undo."""
        if step.execute is None or step.execute.round != round_ or (step.plan.id, round_) in self.world.sealed:
            return False
        if step.status is StepStatus.REJECTED and step.resolved is None:
            return False  # it has refused already, and keeps its word
        is_undone = step.compensate is not None or (self.story.state.cause is not None and step.status is not StepStatus.EXECUTING)
        return not is_undone or step is self.story.state.hook

    # ── What it looks like ──────────────────────────────────────────────────────────────────────────────────────────────────────

    def owed_calls(self) -> tuple[OwedCall, ...]:
        """What is owed."""
        return pending(self.plan, self.story.state).calls

    def facts(self) -> list[Fact]:
        """Everything in the journal."""
        return [event.fact for event in self.story.journal]

    def ended(self) -> set[AttemptKey]:
        """The attempts whose end the journal knows, or holds in doubt for ever."""
        facts = self.facts()
        known = {fact.attempt for fact in facts if isinstance(fact, (*_SETTLES, LateOutcome))}
        return known.union(*(fact.in_doubt for fact in facts if isinstance(fact, SagaRecovered)))

    def state_of(self, step_id: StepId) -> StepState:
        """How a step, or the hook, stands."""
        step = self.story.state.step(self.plan, step_id)
        assert step is not None
        return step

    def step_plan(self, step_id: StepId) -> StepPlan:
        """What a step is to the saga."""
        return self.plan.step_plan(step_id)

    def steps(self) -> Iterable[tuple[StepPlan, StepState]]:
        """Every step of the plan and how it stands."""
        return zip(self.plan.steps, self.story.state.steps, strict=True)

    def ids_of(self, *kinds: StepKind) -> list[StepId]:
        """The steps of some kinds."""
        return [step.id for step in self.plan.steps if step.kind in kinds]

    def _next_instant(self) -> float:
        owed = pending(self.plan, self.story.state)
        instants = [call.not_before for call in owed.calls if call.attempt not in self.under_way]
        if owed.wake_at is not None:
            instants.append(owed.wake_at)
        return max(self.now, min(instants, default=0) / MICROS_PER_SECOND)


SEALED: Final = Rejected(failure=failure(), sealed=True)


def settled_by(facts: tuple[Fact, ...]) -> set[AttemptKey]:
    """The attempts that facts bring to an end."""
    return {fact.attempt for fact in facts if isinstance(fact, _SETTLES)}


def _course_of(journal: Iterable[Event]) -> SagaCourse:
    course = SagaCourse()
    for event in journal:
        course.follow(event)
    return course
