"""Whole stories as golden transcripts. `UPDATE_SCENARIOS=1` writes them anew; commit only a diff you can explain."""

import os
from pathlib import Path

import pytest

from tests.unit.core.transcript import replayed

SCENARIOS = sorted((Path(__file__).parent / "scenarios").glob("*.txt"))


@pytest.mark.parametrize("path", SCENARIOS, ids=lambda path: path.stem)
def test_scenario_replayed_says_the_same(path: Path) -> None:
    text = path.read_text()
    said = replayed(text)
    if os.environ.get("UPDATE_SCENARIOS") == "1":
        path.write_text(said)
    else:
        assert said == text


def test_scenarios_are_found() -> None:
    assert len(SCENARIOS) >= 12
