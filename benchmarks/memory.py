"""Resident memory of the coordinator while it finishes many sagas: it must not grow with the number of finished ones."""

import argparse
import asyncio
import tempfile
from contextlib import ExitStack
from pathlib import Path

from benchmarks.throughput import child, load, resident_mib
from tests.processes import free_port, wait_until_serving


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sagas", type=int, default=100_000, help="finished in all (default %(default)s)")
    parser.add_argument("--every", type=int, default=10_000, help="sagas between two readings (default %(default)s)")
    parser.add_argument("--concurrency", type=int, default=64, help="sagas in flight (default %(default)s)")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name, ExitStack() as processes:
        address, target = f"127.0.0.1:{free_port()}", f"127.0.0.1:{free_port()}"
        directory = Path(name)
        coordinator = processes.enter_context(
            child("benchmarks.counting_coordinator", address, str(directory / "saga.db"), COUNTS=str(directory / "counts"))
        )
        asyncio.run(wait_until_serving(address, coordinator))
        participants = processes.enter_context(child("benchmarks.participants", "--coordinator", address, "--address", target))
        asyncio.run(wait_until_serving(target, participants))
        for done in range(given.every, given.sagas + 1, given.every):
            result = load(address, given.every, given.concurrency, mapped=True)
            database_mib = (directory / "saga.db").stat().st_size / 2**20
            print(
                f"{done:>9,} finished   coordinator {resident_mib(coordinator):6.1f} MiB   database {database_mib:6.1f} MiB   "
                f"{given.every / result['took_s']:5.0f} sagas/s   p50 {result['p50_ms']:.1f} ms",
                flush=True,
            )


if __name__ == "__main__":
    main()
