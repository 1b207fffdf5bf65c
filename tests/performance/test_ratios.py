"""Regressions of speed, as ratios taken in one run: absolute times tell more of the machine than of the code.

The bounds leave generous room for noise. They catch what is several times worse, not what is a few per cent worse: for that there is
`python -m benchmarks.suite`.
"""

import asyncio
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

import pytest

from benchmarks.measured_run import Run, Work
from benchmarks.one_saga import live
from benchmarks.system import Options, run_load, system
from coordinator.codec.events import encode_event
from coordinator.core.values import SagaId
from coordinator.engine.clock import SystemClock
from coordinator.journal import SqlJournal
from tests.builders import SAGA
from tests.journals import Told, first, new_ids

pytestmark = pytest.mark.full

WORK: Final = Work(sagas=300, concurrency=64)
FRAMES_AT_MOST: Final = 0.95
"""Of the processor time that all processes take with an RPC for each start and call; 0.5 is usual."""
CORE_AT_MOST: Final = 4.0
"""Of the calibration; 1.5 is usual."""
CODEC_AT_MOST: Final = 1.5
"""Of the calibration; 0.4 is usual."""
BATCH_AT_MOST: Final = 0.5
"""Of the processor time of appends one by one, in batches of 64; 0.05 is usual."""
ROUNDS: Final = 7


def test_starts_and_calls_in_frames_cost_less_than_one_by_one(tmp_path: Path) -> None:
    in_frames = _measured(tmp_path / "frames", Options(), "frames")
    one_by_one = _measured(tmp_path / "unary", Options(calls="unary"), "unary")

    ratio = sum(in_frames.processor_ms.values()) / sum(one_by_one.processor_ms.values())

    assert ratio <= FRAMES_AT_MOST, f"{ratio:.2f}: {in_frames.processor_ms}, one by one {one_by_one.processor_ms}"


def test_a_saga_costs_the_core_and_the_codec_little() -> None:
    events = [event for turn in live().turns for event in turn]
    subjects: dict[str, Callable[[], object]] = {
        "calibration": _calibration,
        "core": live,
        "codec": lambda: [encode_event(SAGA, event) for event in events],
    }
    spent: dict[str, list[float]] = {name: [] for name in subjects}
    for _ in range(ROUNDS):  # in turns, so that a noisy moment hits all
        for name, subject in subjects.items():
            spent[name].append(_spent(subject))
    least = {name: min(times) for name, times in spent.items()}

    assert least["core"] <= CORE_AT_MOST * least["calibration"], least
    assert least["codec"] <= CODEC_AT_MOST * least["calibration"], least


async def test_appends_share_what_a_commit_costs(tmp_path: Path) -> None:
    told = Told()
    clock = SystemClock(asyncio.get_running_loop())
    async with await SqlJournal.open(str(tmp_path / "saga.db"), clock=clock, listener=told) as journal:
        spent: dict[int, list[float]] = {1: [], 64: []}
        for _ in range(ROUNDS):
            for batch, times in spent.items():
                times.append(await _append(journal, told, new_ids(64), batch))

    ratio = statistics.median(spent[64]) / statistics.median(spent[1])

    assert ratio <= BATCH_AT_MOST, f"{ratio:.2f}"


def _measured(directory: Path, options: Options, starts: str) -> Run:
    directory.mkdir()
    with system(directory, options) as running:
        run = run_load(running.address, WORK, running.processes, "--starts", starts)
        running.check_books(WORK)
        return run


async def _append(journal: SqlJournal, told: Told, sagas: list[SagaId], batch: int) -> float:
    """Processor time of the whole process for these, so many at once."""
    began = time.process_time()
    for place in range(0, len(sagas), batch):
        journal.append([first(saga) for saga in sagas[place : place + batch]])
        await told.until(len(told.results) + batch)
    return time.process_time() - began


def _spent(subject: Callable[[], object]) -> float:
    began = time.process_time()
    for _ in range(100):
        subject()
    return time.process_time() - began


def _calibration() -> object:
    """What Python takes for some work of the same kind: objects, dictionaries and calls."""
    found: dict[int, tuple[int, str]] = {}
    for number in range(400):
        found[number] = (number, str(number))
    return sum(len(text) + number for number, text in found.values())
