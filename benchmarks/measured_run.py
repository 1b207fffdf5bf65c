"""What every driver of the benchmarks does and tells: the same work, measured in the same way. Needs nothing but the standard library,
so that a peer's own environment can run it.
"""

import argparse
import asyncio
import dataclasses
import json
import os
import random
import time
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Final

STEPS: Final = 3
TEXTS: Final = ("x" * 140, "y" * 40)
"""What every input and every output carries: about 200 bytes on the wire, as a small business message has."""
WARM_UP_SAGAS: Final = 300
_TICKS_PER_S: Final = os.sysconf("SC_CLK_TCK")

RunOne = Callable[[int], Awaitable[None]]
"""Does one saga to its end, and raises if it does not end as it should. The number is unique in the run."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """What is to be done."""

    sagas: int
    concurrency: int
    """In flight in the closed loop."""
    rate: float = 0.0
    """Sagas started per second in an open loop, at random instants; 0: the closed loop."""
    is_compensated: bool = False
    """Whether the last step refuses, so that what the others did is undone."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One measured run. Printed as one line of JSON."""

    sagas: int
    took_s: float
    p50_ms: float
    p99_ms: float
    processor_ms: Mapping[str, float]
    """Per saga, by process: "client", "coordinator", "participants", or what the peer has."""
    resident_mib: Mapping[str, float]
    """At its peak, by process."""
    more: Mapping[str, float] = dataclasses.field(default_factory=dict)
    """What only some drivers measure, by name; the unit comes last. Example: "rows_per_commit"."""


async def measure(work: Work, run_one: RunOne, processes: Mapping[str, int]) -> Run:
    """Warms up, does the work, and measures. `processes`: process ids by name; this one may be among them."""
    await closed_loop(min(WARM_UP_SAGAS, work.sagas), work.concurrency, run_one, first=0)
    before = {name: processor_s(pid) for name, pid in processes.items()}
    began = time.perf_counter()
    if work.rate:
        latencies = await open_loop(work.sagas, work.rate, run_one, first=WARM_UP_SAGAS)
    else:
        latencies = await closed_loop(work.sagas, work.concurrency, run_one, first=WARM_UP_SAGAS)
    took_s = time.perf_counter() - began
    latencies.sort()
    return Run(
        sagas=work.sagas,
        took_s=took_s,
        p50_ms=1000 * latencies[len(latencies) // 2],
        p99_ms=1000 * latencies[len(latencies) * 99 // 100],
        processor_ms={name: 1000 * (processor_s(pid) - before[name]) / work.sagas for name, pid in processes.items()},
        resident_mib={name: peak_resident_mib(pid) for name, pid in processes.items()},
    )


async def closed_loop(sagas: int, concurrency: int, run_one: RunOne, *, first: int) -> list[float]:
    """Keeps so many in flight; returns how long each took, in seconds."""
    numbers, latencies = iter(range(first, first + sagas)), list[float]()

    async def one_after_the_other() -> None:
        for number in numbers:
            began = time.perf_counter()
            await run_one(number)
            latencies.append(time.perf_counter() - began)

    async with asyncio.TaskGroup() as group:
        for _ in range(concurrency):
            group.create_task(one_after_the_other())
    return latencies


async def open_loop(sagas: int, rate: float, run_one: RunOne, *, first: int) -> list[float]:
    """Starts so many a second, however long they take: a saga's time counts from when it was due, so that a stall is seen."""
    chance, due, latencies = random.Random(sagas), time.perf_counter(), list[float]()

    async def one(number: int, due: float) -> None:
        await run_one(number)
        latencies.append(time.perf_counter() - due)

    async with asyncio.TaskGroup() as group:
        for number in range(first, first + sagas):
            due += chance.expovariate(rate)
            if (pause_s := due - time.perf_counter()) > 0:
                await asyncio.sleep(pause_s)
            group.create_task(one(number, due))
    return latencies


def processor_s(pid: int) -> float:
    """Processor time of a process, and of its children: those that have ended, and those that run."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(map(int, fields[11:15])) / _TICKS_PER_S + sum(map(processor_s, _children_of(pid)))


def peak_resident_mib(pid: int) -> float:
    """The most memory that a process has had at once, and its children that run."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024 + sum(map(peak_resident_mib, _children_of(pid)))
    raise ValueError(f"/proc/{pid}/status tells no peak")


def _children_of(pid: int) -> list[int]:
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return [int(child) for task in tasks for child in (task / "children").read_text().split()]


def add_work_arguments(parser: argparse.ArgumentParser) -> None:
    """The options that every driver takes."""
    parser.add_argument("--sagas", type=int, default=2000, help="to be measured, after a warm-up (default %(default)s)")
    parser.add_argument("--concurrency", type=int, default=64, help="in flight in the closed loop (default %(default)s)")
    parser.add_argument("--rate", type=float, default=0.0, help="sagas per second of an open loop; 0: the closed one")
    parser.add_argument("--compensated", action="store_true", help="the last step refuses, and the others are undone")


def work_of(given: argparse.Namespace) -> Work:
    """What was asked for with those options."""
    return Work(sagas=given.sagas, concurrency=given.concurrency, rate=given.rate, is_compensated=given.compensated)


def tell(run: Run) -> None:
    """Prints a run for who has started the driver."""
    print(json.dumps(dataclasses.asdict(run)), flush=True)
