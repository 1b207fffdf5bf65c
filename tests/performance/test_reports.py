"""What the suite makes of its results: figures, tables, and what is said of runs that failed."""

from pathlib import Path

import pytest

from benchmarks.arms import ARMS
from benchmarks.figures import FIGURES
from benchmarks.measured_run import Run
from benchmarks.results import Attempt, Results, Spread, per_s
from benchmarks.tables import report

AGAINST_RESTATE = FIGURES[0]


def run(per_second: float, **more: float) -> Run:
    """A thousand sagas at that rate."""
    spent, used = {"client": 0.1, "coordinator": 0.5}, {"client": 60.0, "coordinator": 90.0}
    return Run(sagas=1000, took_s=1000 / per_second, p50_ms=10, p99_ms=20, processor_ms=spent, resident_mib=used, more=more)


def results(*attempts: Attempt) -> Results:
    return Results(began_at="2026-01-01T00:00:00+00:00", machine={"memory": "8 GiB"}, versions={}, attempts=list(attempts))


def measured(arm: str, round_: int, per_second: float) -> Attempt:
    return Attempt(arm=arm, round=round_, at="", wall_s=1.0, run=run(per_second))


def failed(arm: str, round_: int, error: str) -> Attempt:
    return Attempt(arm=arm, round=round_, at="", wall_s=1.0, run=None, error=error)


def test_a_figure_is_the_median_of_what_each_round_tells() -> None:
    found = AGAINST_RESTATE.found(
        results(
            *(measured("ours-256", round_, speed) for round_, speed in enumerate((1000, 2000, 4000), 1)),
            *(measured("restate-256", round_, speed) for round_, speed in enumerate((100, 100, 100), 1)),
        )
    )

    assert found == pytest.approx(Spread(20, 10, 40))
    assert found is not None
    assert AGAINST_RESTATE.missed_by(found) < 0


def test_a_round_that_lacks_an_arm_does_not_count() -> None:
    of_two = results(measured("ours-256", 1, 1000), measured("restate-256", 1, 100), measured("ours-256", 2, 9000))

    assert AGAINST_RESTATE.found(of_two) == pytest.approx(Spread(10, 10, 10))
    assert AGAINST_RESTATE.found(results(measured("ours-256", 1, 1000))) is None


def test_a_figure_tells_by_how_much_it_is_missed() -> None:
    assert AGAINST_RESTATE.missed_by(Spread(9, 9, 9)) == pytest.approx(0.25)


def test_a_failed_run_and_a_missing_peer_stand_in_the_report() -> None:
    error = "Traceback\n  | AttributeError: no such field\n  + ----\nthe client ended with 1"
    told = results(measured("ours-64", 1, 1000), failed("ours-256", 1, error))
    told.missing["temporal-64"] = "temporal is not installed"

    text = report(told, ARMS)

    assert "ours-256, run 1, failed: `AttributeError: no such field`" in text
    assert "temporal-64: temporal is not installed" in text
    assert "| ours | 64 | 1,000 |" in text


def test_a_run_that_was_made_again_with_success_has_not_failed(tmp_path: Path) -> None:
    told = results(failed("ours-64", 1, "the disk was full"), measured("ours-64", 1, 1000))
    told.save(tmp_path / "results.json")

    loaded = Results.load(tmp_path / "results.json")

    assert loaded == told
    assert loaded.failures() == []
    assert loaded.spread("ours-64", per_s) == pytest.approx(Spread(1000, 1000, 1000))


def test_arms_have_names_of_their_own() -> None:
    assert len({arm.name for arm in ARMS}) == len(ARMS)
