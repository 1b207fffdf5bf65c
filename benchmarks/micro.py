"""Parts of the coordinator by themselves, in processor time: `make bench-micro`, or with options of pyperf.

    python -m benchmarks.micro --fast                 fewer values
    python -m benchmarks.micro -o before.json         to be compared later: python -m pyperf compare_to before.json after.json

Everything is per saga of three steps: what the core decides, what the codec encodes, what the journal commits (SQLite, all threads of
the process together, in batches of so many sagas), the spans that are built from it.
"""

import asyncio
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final
from uuid import uuid4

import pyperf
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor

from benchmarks.one_saga import PLAN, live
from coordinator.codec.events import encode_event
from coordinator.core.values import SagaId
from coordinator.engine.clock import SystemClock
from coordinator.journal import SqlJournal
from coordinator.telemetry.spans import SpanObserver
from tests.builders import SAGA
from tests.journals import Told

BATCHES: Final = (1, 64)
"""Sagas whose appends are made at once."""
_TURNS: Final = len(live().turns)


def core(loops: int) -> float:
    """Decisions, events and state."""
    return _spent(loops, live)


def codec(loops: int) -> float:
    """Every event of a saga as bytes."""
    events = [event for turn in live().turns for event in turn]
    return _spent(loops, lambda: [encode_event(SAGA, event) for event in events])


def spans(loops: int) -> float:
    """Every span of a saga that is traced, built and handed on; not its export."""
    lived = live(is_traced=True)
    observer, appends = SpanObserver(_Nowhere(), Resource({})), lived.appends(SAGA)

    def observe() -> None:
        for append in appends:
            observer.committed(append, PLAN, lived.state)

    return _spent(loops, observe)


def journal(loops: int, batch: int) -> float:
    """Commits on SQLite, a turn of every saga of the batch in each."""
    return asyncio.run(_journal(loops, batch))


async def _journal(loops: int, batch: int) -> float:
    lived, told = live(), Told()
    with tempfile.TemporaryDirectory(prefix="bench-journal-") as name:
        clock = SystemClock(asyncio.get_running_loop())
        async with await SqlJournal.open(str(Path(name) / "saga.db"), clock=clock, listener=told) as opened:
            spent_s = 0.0
            for _ in range(loops):
                turns = list(zip(*(lived.appends(SagaId(str(uuid4()))) for _ in range(batch)), strict=True))
                began, expected = time.process_time(), len(told.results)
                for turn in turns:
                    opened.append(turn)
                    expected += batch
                    await told.until(expected)
                spent_s += time.process_time() - began
    return spent_s


def _spent(loops: int, do: Callable[[], object]) -> float:
    began = time.process_time()
    for _ in range(loops):
        do()
    return time.process_time() - began


class _Nowhere(SpanProcessor):
    def on_end(self, span: ReadableSpan) -> None: ...


def main() -> None:
    runner = pyperf.Runner(processes=3, values=5, warmups=1)
    runner.metadata["description"] = f"one saga of three steps, {_TURNS} appends"
    runner.bench_time_func("core", core)
    runner.bench_time_func("codec", codec)
    runner.bench_time_func("spans", spans)
    for batch in BATCHES:
        runner.bench_time_func(f"journal, {batch} at once", journal, batch, inner_loops=batch)


if __name__ == "__main__":
    main()
