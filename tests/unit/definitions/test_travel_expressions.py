"""Every expression of the travel booking with a mistake in it is refused, and what is told is what a stranger needs.

`UPDATE_MISTAKES=1` writes tests/travel_mistakes.txt anew; read each line that changes as somebody who has never seen this product.
"""

import os
import re

import pytest

from examples.travel.book_trip import book_trip
from participant_sdk.builder import describe_place
from tests.travel_mistakes import Mistake, expressions, problems_of, read_mistakes, seeded, told_of, write_mistakes

if os.environ.get("UPDATE_MISTAKES") == "1":
    write_mistakes()
MISTAKES = read_mistakes()


@pytest.mark.parametrize("mistake", MISTAKES, ids=str)
def test_mistake_is_told_in_full_where_it_was_made(mistake: Mistake) -> None:
    definition = seeded(mistake)
    assert told_of(definition) == mistake.told
    assert {describe_place(definition, field) for field, _ in problems_of(definition)} == {mistake.place}


@pytest.mark.parametrize("place", expressions())
def test_expression_has_mistakes_of_its_own(place: str) -> None:
    assert len([mistake for mistake in MISTAKES if mistake.place == place]) >= 3


def test_example_itself_has_no_mistake() -> None:
    assert problems_of(book_trip.definition()) == []


def test_nothing_that_is_told_comes_raw_from_the_library() -> None:
    raw = re.compile(r"ERROR:|\*error\*|<input>|comprehension|undeclared|overload|_[?+<>=&|]|%\d")
    assert [str(mistake) for mistake in MISTAKES if raw.search(mistake.told)] == []
