"""What every verb answers in every situation, as one table. `UPDATE_SCENARIOS=1` writes it anew; commit only a diff you can explain."""

import os
from pathlib import Path

import pytest

from coordinator.core.errors import CommandRefusedError
from tests.builders import snapshot
from tests.unit.core.verbs import ASKED_AT, TABLES, read_situations, write_tables

SITUATIONS = Path(__file__).parent / "situations.txt"
GOLDEN = Path(__file__).parent / "verbs.txt"
VERBS = {f"{title}: {verb}": make for title, verbs in TABLES.items() for verb, make in verbs.items()}


def test_table_of_situations_and_verbs_says_the_same() -> None:
    said = write_tables(SITUATIONS)
    if os.environ.get("UPDATE_SCENARIOS") == "1":
        GOLDEN.write_text(said)
    else:
        assert said == GOLDEN.read_text()


@pytest.mark.parametrize("verb", VERBS)
def test_refused_verb_changes_nothing_and_says_what_to_do(verb: str) -> None:
    for situation in read_situations(SITUATIONS):
        before = snapshot(situation.story.state)
        try:
            situation.story.feed(VERBS[verb](situation.step_id), ASKED_AT)
        except CommandRefusedError as refused:
            message, status = str(refused), refused.status
        else:
            continue
        assert snapshot(situation.story.state) == before
        assert status is situation.story.status
        assert repr(str(situation.step_id)) in message or situation.story.state.saga_id in message


def test_situations_differ() -> None:
    names = [situation.name for situation in read_situations(SITUATIONS)]
    assert len(names) == len(set(names)) >= 40
