"""Measures ours and the peers in one go, in turns, and writes tables and plots.

    python -m benchmarks.suite                          everything, five rounds: 25 minutes on an idle machine
    python -m benchmarks.suite --quick                  two short rounds
    python -m benchmarks.suite --only 'ours-(64|256)$'  arms whose name fits the pattern
    python -m benchmarks.suite --resume                 goes on where it was broken off
    python -m benchmarks.suite --report                 measures nothing, and writes the tables and plots of what is there

In every round each arm is run once, one after the other, so that a noisy minute hits all. Results are kept after every run. A run that
fails is told with its reason; a peer that is not installed is told as missing.
"""

import argparse
import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from benchmarks.arms import ARMS, CLOSED, ENVIRONMENTS, ROOT, Arm
from benchmarks.machine import machine, versions
from benchmarks.measured_run import Run
from benchmarks.peers.processes import end_in_good_order
from benchmarks.results import Attempt, Results, per_s, processor_ms
from benchmarks.tables import report
from tests.processes import python_environment

RUNS: Final = 5
BUDGET_S: Final = 3.0
QUICK_RUNS, QUICK_BUDGET_S = 2, 1.0
SAGAS_MIN: Final = 40
TURNS_MIN: Final = 2
"""Sagas that each of those in flight makes room for, at least."""
AROUND_S: Final = 4.0
"""What a run takes beside what is measured, as long as none has told."""
LIMIT_MIN: Final = 60
RUN_LIMIT_S: Final = 300.0
STOP_LIMIT_S: Final = 30.0
ERROR_CHARS: Final = 1500


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What is to be done."""

    arms: Sequence[Arm]
    runs: int
    budget_s: float
    """Time that a run is to measure, its warm-up aside."""
    limit_s: float
    """Of the whole: no run is begun afterwards."""

    @property
    def turns(self) -> list[tuple[int, Arm]]:
        """Round and arm, in order."""
        return [(round_, arm) for round_ in range(1, self.runs + 1) for arm in self.arms if round_ <= arm.runs_max]


class Suite:
    """One plan, on its way."""

    def __init__(self, plan: Plan, results: Results, path: Path) -> None:
        self._plan = plan
        self._results = results
        self._path = path

    def run(self) -> None:
        """Does what is left of the plan."""
        self._results.missing = {arm.name: arm.missing for arm in self._plan.arms if arm.missing}
        for name, reason in self._results.missing.items():
            print(f"MISSING {name}: {reason}", flush=True)
        todo = [turn for turn in self._plan.turns if turn[1].name not in self._results.missing and not self._is_done(*turn)]
        until = time.monotonic() + self._plan.limit_s
        for number, (round_, arm) in enumerate(todo):
            if time.monotonic() > until:
                print(f"the time is over, {len(todo) - number} runs are left: --resume goes on", flush=True)
                return
            left_s = sum(self._expected_s(each) for _, each in todo[number:])
            attempt = run_once(arm, round_, self._sagas(arm))
            self._results.attempts.append(attempt)
            self._results.save(self._path)
            print(f"[{number + 1}/{len(todo)}, {left_s / 60:.0f} min left] {arm.name}, run {round_}: {line_of(attempt)}", flush=True)

    def _is_done(self, round_: int, arm: Arm) -> bool:
        return self._results.has(arm.name, round_)

    def _sagas(self, arm: Arm) -> int:
        """As many as fit the budget by the last run, or by what was expected of the arm; but not only the first ones and the last."""
        if arm.sagas:
            return arm.sagas
        runs = self._results.runs(arm.name)
        rate = per_s(runs[-1]) if runs and arm.kind == CLOSED else arm.expected_per_s
        least = TURNS_MIN * arm.size if arm.kind == CLOSED else 0
        return max(SAGAS_MIN, least, round(rate * self._plan.budget_s))

    def _expected_s(self, arm: Arm) -> float:
        walls = [each.wall_s for each in self._results.attempts if each.arm == arm.name]
        return sum(walls) / len(walls) if walls else self._plan.budget_s + AROUND_S


def run_once(arm: Arm, round_: int, sagas: int) -> Attempt:
    """Starts the driver, and reads what it tells. Whatever goes wrong stands in what is returned."""
    at, began = datetime.now(UTC).isoformat(timespec="seconds"), time.monotonic()
    run, error = None, ""
    with subprocess.Popen(
        arm.command(sagas),
        cwd=ROOT,
        env=python_environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as driver:
        try:
            told, complained = driver.communicate(timeout=RUN_LIMIT_S)
            if driver.returncode:
                error = f"ended with {driver.returncode}: {complained.strip()[-ERROR_CHARS:]}"
            else:
                run = Run(**json.loads(told.splitlines()[-1]))
        except subprocess.TimeoutExpired:
            error = f"did not end within {RUN_LIMIT_S:g} s"
            stop(driver)
        except (ValueError, IndexError, TypeError) as problem:
            error = f"told no run: {problem}"
        except BaseException:
            stop(driver)
            raise
    return Attempt(arm=arm.name, round=round_, at=at, wall_s=time.monotonic() - began, run=run, error=error)


def stop(driver: "subprocess.Popen[str]") -> None:
    """Asks it and what it has started to end, and then sees to it: all of them are in a group of their own."""
    until = time.monotonic() + STOP_LIMIT_S
    with contextlib.suppress(ProcessLookupError):  # nobody of the group is left
        os.killpg(driver.pid, signal.SIGTERM)
        while time.monotonic() < until:
            driver.poll()
            os.killpg(driver.pid, 0)
            time.sleep(0.05)
        os.killpg(driver.pid, signal.SIGKILL)


def line_of(attempt: Attempt) -> str:
    """What came of a run, for people."""
    run = attempt.run
    if run is None:
        return f"FAILED, {attempt.reason}"
    more = ", ".join(f"{name} {value:.4g}" for name, value in run.more.items())
    spent = ", ".join(f"{name} {value:.2f}" for name, value in run.processor_ms.items())
    return (
        f"{per_s(run):,.0f} sagas/s of {run.sagas:,}, p50 {run.p50_ms:.1f} ms, p99 {run.p99_ms:.1f} ms, "
        f"processor ms/saga {processor_ms(run):.2f} ({spent}){'; ' + more if more else ''}"
    )


def plot(results: Path, folder: Path) -> None:
    """With an interpreter that has matplotlib, if there is one."""
    python = ENVIRONMENTS / "plots" / "bin" / "python"
    if not python.exists():
        print("no plots are drawn: make bench-plots installs what draws them", flush=True)
        return
    command = [str(python), "-m", "benchmarks.plots", str(results), str(folder)]
    subprocess.run(command, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, check=True)


def results_of(given: argparse.Namespace) -> Results:
    """Those that are there, if they are to be used; else none yet."""
    if given.results.exists() and (given.resume or given.report):
        return Results.load(given.results)
    if given.report:
        raise SystemExit(f"there are no results in {given.results}: measure first")
    if given.results.exists():
        given.results.rename(given.results.with_suffix(".before.json"))
    return Results(began_at=datetime.now(UTC).isoformat(timespec="seconds"), machine=machine(), versions=versions())


def main(given: argparse.Namespace) -> int:
    arms = [arm for arm in ARMS if re.search(given.only, arm.name)]
    if not arms:
        raise SystemExit(f"no arm fits {given.only!r}; there are {', '.join(arm.name for arm in ARMS)}")
    results = results_of(given)
    if not given.report:
        runs, budget_s = (QUICK_RUNS, QUICK_BUDGET_S) if given.quick else (RUNS, BUDGET_S)
        limit_s = 60 * given.limit_min
        plan = Plan(arms=arms, runs=given.runs or runs, budget_s=given.budget_s or budget_s, limit_s=limit_s)
        Suite(plan, results, given.results).run()
    given.folder.mkdir(parents=True, exist_ok=True)
    (given.folder / "results.md").write_text(report(results, ARMS))
    if not given.no_plots:
        plot(given.results, given.folder)
    print(f"written to {given.folder}", flush=True)
    for failure in results.failures():
        print(f"FAILED {failure.arm}, run {failure.round}: {failure.reason}; the whole is in {given.results}", file=sys.stderr)
    return 1 if results.failures() else 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=0, help=f"of each arm (default {RUNS}, quick {QUICK_RUNS})")
    parser.add_argument(
        "--budget-s", type=float, default=0.0, help=f"measured in each run (default {BUDGET_S:g}, quick {QUICK_BUDGET_S:g})"
    )
    parser.add_argument("--limit-min", type=float, default=LIMIT_MIN, help="minutes after which no run is begun (default %(default)s)")
    parser.add_argument("--quick", action="store_true", help="fewer and shorter runs")
    parser.add_argument("--only", default="", metavar="PATTERN", help="arms whose name has it somewhere, a regular expression")
    parser.add_argument("--resume", action="store_true", help="go on with the results that are there")
    parser.add_argument("--report", action="store_true", help="measure nothing, write tables and plots of the results that are there")
    parser.add_argument("--results", type=Path, default=ENVIRONMENTS / "results.json", help="(default %(default)s)")
    parser.add_argument("--folder", type=Path, default=ROOT / "docs" / "performance", help="of tables and plots (default %(default)s)")
    parser.add_argument("--no-plots", action="store_true", help="only tables")
    arguments = parser.parse_args()
    end_in_good_order()
    sys.exit(main(arguments))
