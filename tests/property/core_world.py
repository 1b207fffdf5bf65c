"""What participants really did: the oracle beside a saga.

It decides nothing, it only remembers, and the core never sees it. Whatever the core believes, money is lost only if an effect stays in the
world when the saga says COMPENSATED, is missing when it says COMPLETED, or is there when a step gets another key.

Persons are believed because they see to it: who says that a step took effect has done it by hand, who says that it had none has undone it.
"""

from dataclasses import dataclass, field

from coordinator.core.events import Fact, StepResolved
from coordinator.core.inputs import (
    Accepted,
    Compensated,
    KeyExpired,
    Misconfigured,
    Mismatched,
    NotSent,
    Outcome,
    Rejected,
    ResolvedSucceeded,
    RetryLater,
    Succeeded,
    Unknown,
)
from coordinator.core.values import AttemptKey, Direction, StepId
from tests.property.core_plans import Choices


@dataclass
class World:
    """The effects of one saga, its hook included."""

    effects: set[StepId] = field(default_factory=set)
    """Steps whose effect is there."""
    sealed: set[tuple[StepId, int]] = field(default_factory=set)
    """Steps and rounds of which no call can take effect any more."""
    done: set[tuple[StepId, int]] = field(default_factory=set)
    """Steps and rounds that took effect once: the same key does nothing a second time, also when it is undone by then."""
    disputed: set[StepId] = field(default_factory=set)
    """Steps that took effect after a person had said that they would not."""

    def can_answer(self, attempt: AttemptKey, outcome: Outcome) -> bool:
        """Whether a participant that keeps its word can say so."""
        key = attempt.step_id, attempt.round
        match outcome:
            case Succeeded() | Accepted() if attempt.direction is Direction.EXECUTE:
                return key not in self.sealed
            case Rejected(sealed=True) if attempt.direction is Direction.EXECUTE:
                return attempt.step_id not in self.effects
            case _:
                return True

    def answered(self, attempt: AttemptKey, outcome: Outcome, choices: Choices) -> None:
        """What happened when a participant gave that answer."""
        match outcome:
            case Succeeded() if attempt.direction is Direction.EXECUTE:
                self._do(attempt.step_id, attempt.round)
            case Compensated() if attempt.direction is Direction.COMPENSATE:
                self.effects.discard(attempt.step_id)
            case Rejected(sealed=True) if attempt.direction is Direction.EXECUTE:
                self.sealed.add((attempt.step_id, attempt.round))
            case Unknown() | Succeeded() | Compensated() | Accepted():
                self.may_take_effect(attempt, choices)
            case Rejected() | RetryLater() | Misconfigured() | NotSent() | KeyExpired() | Mismatched():
                pass  # this attempt had no effect; an earlier one may have had

    def completed(self, step_id: StepId, round_: int, result: Succeeded | Rejected) -> None:
        """A participant finished what it had begun, in one database transaction with what it says about it."""
        if isinstance(result, Succeeded):
            self._do(step_id, round_)
        elif result.sealed:
            self.sealed.add((step_id, round_))

    def may_take_effect(self, attempt: AttemptKey, choices: Choices) -> None:
        """Nobody knows what became of that call."""
        if attempt.direction is Direction.COMPENSATE:
            if attempt.step_id in self.effects and choices.chance(f"{attempt.step_id} was undone"):
                self.effects.discard(attempt.step_id)
        elif self.can_take_effect(attempt) and choices.chance(f"{attempt.step_id} took effect"):
            self._do(attempt.step_id, attempt.round)

    def can_take_effect(self, attempt: AttemptKey) -> bool:
        """Whether a call to execute would do anything: its key is neither refused for good nor used."""
        key = attempt.step_id, attempt.round
        return attempt.direction is Direction.EXECUTE and key not in self.sealed and key not in self.done

    def is_carried_out(self, attempt: AttemptKey) -> None:
        """A call to execute does what it can."""
        if self.can_take_effect(attempt):
            self._do(attempt.step_id, attempt.round)

    def take_word(self, facts: tuple[Fact, ...]) -> None:
        """Persons have seen to what they say."""
        for fact in facts:
            if isinstance(fact, StepResolved):
                self.disputed.discard(fact.step_id)
                if isinstance(fact.resolution, ResolvedSucceeded):
                    self.effects.add(fact.step_id)
                else:
                    self.effects.discard(fact.step_id)

    def _do(self, step_id: StepId, round_: int) -> None:
        self.effects.add(step_id)
        self.done.add((step_id, round_))
