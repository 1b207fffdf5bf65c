"""One saga, any plan, anything that can happen to it at any time, and beside it a world that knows which effects were really taken.

This is the table of state and input: every pair is defined, because whatever is raised but a refusal of a command fails here; and after
every input all laws hold. In the end, treated well, the saga comes to its end from wherever it is.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from tests.property import core_happenings as happenings
from tests.property.core_laws import check
from tests.property.core_life import Life
from tests.property.core_plans import Option, make_plan


@dataclass(frozen=True)
class Drawn:
    """Choices that Hypothesis makes, and makes smaller when a law is broken."""

    draws: st.DataObject

    def one_of(self, options: Sequence[Option], what: str) -> Option:
        """One of them."""
        return self.draws.draw(st.sampled_from(options), what)

    def chance(self, what: str) -> bool:
        """Yes or no."""
        return self.draws.draw(st.booleans(), what)


@dataclass(frozen=True)
class Settled:
    """Choices after everything was drawn: always the first, and always the same answer."""

    answer: bool

    def one_of(self, options: Sequence[Option], what: str) -> Option:
        """The first."""
        return options[0]

    def chance(self, what: str) -> bool:
        """The same each time."""
        return self.answer


class SagaMachine(RuleBasedStateMachine):
    """Feeds a saga; after every input all laws are checked."""

    life: Life | None = None
    repairs_by_retry = True

    @initialize(draws=st.data(), delay_s=st.sampled_from([None, None, None, 5]), repairs_by_retry=st.booleans())
    def begin(self, draws: st.DataObject, delay_s: int | None, repairs_by_retry: bool) -> None:
        self.repairs_by_retry = repairs_by_retry
        drawn = Drawn(draws)
        self.life = Life(make_plan(drawn), drawn, start_at=delay_s)

    @invariant()
    def laws_hold(self) -> None:
        if self.life is not None:
            check(self.life)

    @precondition(lambda self: self._can("participant_does_it"))
    @rule(draws=st.data())
    def participant_does_it(self, draws: st.DataObject) -> None:
        self._happens("participant_does_it", draws)

    @precondition(lambda self: self._can("answer_is_lost"))
    @rule(draws=st.data())
    def answer_is_lost(self, draws: st.DataObject) -> None:
        self._happens("answer_is_lost", draws)

    @precondition(lambda self: self._can("participant_refuses"))
    @rule(draws=st.data())
    def participant_refuses(self, draws: st.DataObject) -> None:
        self._happens("participant_refuses", draws)

    @precondition(lambda self: self._can("participant_accepts"))
    @rule(draws=st.data())
    def participant_accepts(self, draws: st.DataObject) -> None:
        self._happens("participant_accepts", draws)

    @precondition(lambda self: self._can("participant_answers_anything"))
    @rule(draws=st.data())
    def participant_answers_anything(self, draws: st.DataObject) -> None:
        self._happens("participant_answers_anything", draws)

    @precondition(lambda self: self._can("participant_completes"))
    @rule(draws=st.data())
    def participant_completes(self, draws: st.DataObject) -> None:
        self._happens("participant_completes", draws)

    @precondition(lambda self: self._can("participant_beats"))
    @rule(draws=st.data())
    def participant_beats(self, draws: st.DataObject) -> None:
        self._happens("participant_beats", draws)

    @precondition(lambda self: self._can("ghost_acts"))
    @rule(draws=st.data())
    def ghost_acts(self, draws: st.DataObject) -> None:
        self._happens("ghost_acts", draws)

    @precondition(lambda self: self._can("answer_comes_that_nobody_waits_for"))
    @rule(draws=st.data())
    def answer_comes_that_nobody_waits_for(self, draws: st.DataObject) -> None:
        self._happens("answer_comes_that_nobody_waits_for", draws)

    @precondition(lambda self: self._can("time_passes"))
    @rule(draws=st.data())
    def time_passes(self, draws: st.DataObject) -> None:
        self._happens("time_passes", draws)

    @precondition(lambda self: self._can("coordinator_crashes"))
    @rule(draws=st.data())
    def coordinator_crashes(self, draws: st.DataObject) -> None:
        self._happens("coordinator_crashes", draws)

    @precondition(lambda self: self._can("somebody_steers"))
    @rule(draws=st.data())
    def somebody_steers(self, draws: st.DataObject) -> None:
        self._happens("somebody_steers", draws)

    @precondition(lambda self: self._can("somebody_terminates"))
    @rule(draws=st.data())
    def somebody_terminates(self, draws: st.DataObject) -> None:
        self._happens("somebody_terminates", draws)

    @precondition(lambda self: self._can("somebody_repairs"))
    @rule(draws=st.data())
    def somebody_repairs(self, draws: st.DataObject) -> None:
        self._happens("somebody_repairs", draws)

    def _can(self, name: str) -> bool:
        return self.life is not None and happenings.HAPPENINGS[name].can_happen(self.life)

    def _happens(self, name: str, draws: st.DataObject) -> None:
        assert self.life is not None
        happenings.HAPPENINGS[name].happens(self.life, Drawn(draws))

    def teardown(self) -> None:
        """From wherever it is, it ends."""
        if self.life is not None:
            happenings.bring_to_its_end(self.life, Settled(self.repairs_by_retry), check)


def test_every_happening_has_a_rule() -> None:
    assert {name for name in happenings.HAPPENINGS if not hasattr(SagaMachine, name)} == set()


TestSaga = pytest.mark.timeout(900)(SagaMachine.TestCase)
