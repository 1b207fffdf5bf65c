"""Sagas per second, latency, and processor time per saga and process: client, coordinator and participants as three processes.

Three steps, tracing off, SQLite with synchronous=FULL. Run it more than once: shared machines are noisy, so compare
medians, ratios taken in one run, and processor time before wall time.
"""

import argparse
import asyncio
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.processes import ROOT, free_port, python_environment, wait_until_serving

WARM_UP_SAGAS = 300
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """One measured run."""

    sagas_per_s: float
    p50_ms: float
    p99_ms: float
    client_ms: float
    """Processor time of the process per saga; so are the next two."""
    coordinator_ms: float
    participants_ms: float
    rows_per_commit: float
    coordinator_mib: float
    """Resident memory at the end."""


@contextmanager
def child(*command: str, **environment: str) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen([sys.executable, "-m", *command], cwd=ROOT, env=python_environment(environment))
    try:
        yield process
    finally:
        process.terminate()
        process.wait(30)


def processor_s(process: subprocess.Popen[bytes]) -> float:
    fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS_PER_S


def resident_mib(process: subprocess.Popen[bytes]) -> float:
    pages = int(Path(f"/proc/{process.pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def load(coordinator: str, sagas: int, concurrency: int, *, mapped: bool, rate: float = 0.0) -> dict[str, float]:
    command = ["benchmarks.load", "--coordinator", coordinator, "--sagas", str(sagas), "--concurrency", str(concurrency)]
    command += ["--rate", str(rate)]
    command += ["--mapped"] if mapped else []
    done = subprocess.run([sys.executable, "-m", *command], cwd=ROOT, env=python_environment(), check=True, stdout=subprocess.PIPE)
    result: dict[str, float] = json.loads(done.stdout)
    return result


def counted(process: subprocess.Popen[bytes], path: Path) -> dict[str, int]:
    path.unlink(missing_ok=True)
    process.send_signal(signal.SIGUSR1)

    async def written() -> None:
        async with asyncio.timeout(10):
            while not path.exists():
                await asyncio.sleep(0.01)

    asyncio.run(written())
    result: dict[str, int] = json.loads(path.read_text())
    return result


def measure(*, sagas: int, concurrency: int, barrier: bool = False, mapped: bool = False) -> Figures:
    with tempfile.TemporaryDirectory() as name, ExitStack() as processes:
        directory = Path(name)
        address, target = f"127.0.0.1:{free_port()}", f"127.0.0.1:{free_port()}"
        counts = directory / "counts.json"
        coordinator = processes.enter_context(
            child("benchmarks.counting_coordinator", address, str(directory / "saga.db"), COUNTS=str(counts))
        )
        asyncio.run(wait_until_serving(address, coordinator))
        database = ["--database", str(directory / "bench.db")] if barrier else []
        participants = processes.enter_context(child("benchmarks.participants", "--coordinator", address, "--address", target, *database))
        asyncio.run(wait_until_serving(target, participants))
        load(address, WARM_UP_SAGAS, concurrency, mapped=mapped)
        used_before = processor_s(coordinator), processor_s(participants)
        counted_before = counted(coordinator, counts)
        result = load(address, sagas, concurrency, mapped=mapped)
        counted_after = counted(coordinator, counts)
        commits = counted_after["commits"] - counted_before["commits"]
        return Figures(
            sagas_per_s=sagas / result["took_s"],
            p50_ms=result["p50_ms"],
            p99_ms=result["p99_ms"],
            client_ms=1000 * result["processor_s"] / sagas,
            coordinator_ms=1000 * (processor_s(coordinator) - used_before[0]) / sagas,
            participants_ms=1000 * (processor_s(participants) - used_before[1]) / sagas,
            rows_per_commit=(counted_after["rows"] - counted_before["rows"]) / commits,
            coordinator_mib=resident_mib(coordinator),
        )


def median(runs: list[Figures]) -> Figures:
    return Figures(**{field: statistics.median(getattr(run, field) for run in runs) for field in Figures.__dataclass_fields__})


def show(what: str, figures: Figures) -> None:
    print(
        f"{what:<28} {figures.sagas_per_s:7.0f} sagas/s   p50 {figures.p50_ms:6.1f} ms   p99 {figures.p99_ms:6.1f} ms   "
        f"processor ms/saga: client {figures.client_ms:.2f}, coordinator {figures.coordinator_ms:.2f}, participants "
        f"{figures.participants_ms:.2f}   {figures.rows_per_commit:.1f} rows/commit   coordinator {figures.coordinator_mib:.0f} MiB",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sagas", type=int, default=3000, help="per run (default %(default)s)")
    parser.add_argument("--concurrency", type=int, default=64, help="sagas in flight (default %(default)s)")
    parser.add_argument("--runs", type=int, default=3, help="of which the median is told (default %(default)s)")
    given = parser.parse_args()
    print(f"{given.sagas} sagas of three steps, {given.concurrency} in flight, tracing off, {os.cpu_count()} cores")
    plain: list[Figures] = []
    mapped: list[Figures] = []
    guarded: list[Figures] = []
    for number in range(given.runs):  # the kinds take turns, so that a noisy minute hits all
        plain.append(measure(sagas=given.sagas, concurrency=given.concurrency))
        show(f"run {number + 1}, no barrier", plain[-1])
        mapped.append(measure(sagas=given.sagas, concurrency=given.concurrency, mapped=True))
        show(f"run {number + 1}, mapped inputs", mapped[-1])
        guarded.append(measure(sagas=given.sagas, concurrency=given.concurrency, barrier=True))
        show(f"run {number + 1}, SQL barrier", guarded[-1])
    show("median, no barrier", median(plain))
    show("median, mapped inputs", median(mapped))
    show("median, SQL barrier", median(guarded))
    growth = median(mapped).coordinator_ms / median(plain).coordinator_ms - 1
    print(f"an expression for the input of each step costs the coordinator {growth:+.0%} of its processor time")
    per_call_ms = (median(guarded).participants_ms - median(plain).participants_ms) / 3
    print(f"the SQL barrier costs the participant {per_call_ms:.2f} ms of processor time per call (SQLite, AsyncSession on aiosqlite)")


if __name__ == "__main__":
    main()
