"""Sagas that chance leads through everything that can happen to them: many more than Hypothesis can, which in turn makes failures small.

A failure prints its seed; `test_core_machine` has the laws and the happenings in a form that can be replayed and shrunk.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import Final

import pytest
from hypothesis import settings

from tests.property.core_happenings import HAPPENINGS, bring_to_its_end
from tests.property.core_laws import check
from tests.property.core_life import Life
from tests.property.core_plans import Option, make_plan

BLOCKS: Final = 10
LIVES_PER_BLOCK: Final = settings().max_examples * 10 // BLOCKS
"""With the budget of the profile: 1,000 lives in the fast one, five times as many in the full one."""
INPUTS: Final = 60
"""Per life, before everybody does what brings the saga to its end."""
AFTER_THE_END: Final = 4
"""Of them when nothing can move any more: they change little."""


@dataclass(frozen=True)
class Chance:
    """Choices by chance, the same for the same seed."""

    random: Random

    def one_of(self, options: Sequence[Option], what: str) -> Option:
        """One of them."""
        return options[int(self.random.random() * len(options))]

    def chance(self, what: str) -> bool:
        """Yes or no."""
        return self.random.random() < 0.5


@pytest.mark.timeout(900)
@pytest.mark.parametrize("block", range(BLOCKS))
def test_saga_led_by_chance_keeps_every_law_and_ends(block: int) -> None:  # P1, P3, P4
    for seed in range(block * LIVES_PER_BLOCK, (block + 1) * LIVES_PER_BLOCK):
        try:
            _live(Chance(Random(seed)))
        except Exception as error:
            error.add_note(f"the life of seed {seed}")
            raise


def _live(chance: Chance) -> None:
    life = Life(make_plan(chance), chance, start_at=chance.one_of((None, None, 5), "start time"))
    check(life)
    inputs_after_the_end = 0
    for _ in range(INPUTS):
        inputs_after_the_end += not life.story.state.is_unfinished and life.story.state.has_ended
        if inputs_after_the_end > AFTER_THE_END:
            break
        open_ = [(one.happens, one.weight) for one in HAPPENINGS.values() if one.can_happen(life)]
        (happens,) = chance.random.choices([happens for happens, _ in open_], [weight for _, weight in open_])
        happens(life, chance)
        check(life)
    bring_to_its_end(life, chance, check)
