"""Resident memory of the coordinator while it finishes many sagas: it must not grow with the number of finished ones."""

import argparse
import tempfile
from pathlib import Path

from benchmarks.measured_run import Work
from benchmarks.system import Options, resident_mib, run_load, system


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sagas", type=int, default=100_000, help="finished in all (default %(default)s)")
    parser.add_argument("--every", type=int, default=10_000, help="sagas between two readings, a warm-up aside (default %(default)s)")
    parser.add_argument("--concurrency", type=int, default=64, help="sagas in flight (default %(default)s)")
    given = parser.parse_args()
    work = Work(sagas=given.every, concurrency=given.concurrency)
    with tempfile.TemporaryDirectory(prefix="bench-memory-") as name, system(Path(name), Options()) as running:
        for done in range(given.every, given.sagas + 1, given.every):
            run = run_load(running.address, work, None, "--mapped")
            database_mib = (Path(name) / "saga.db").stat().st_size / 2**20
            print(
                f"{done:>9,} finished   coordinator {resident_mib(running.coordinator.pid):6.1f} MiB   database {database_mib:6.1f} MiB   "
                f"{run.sagas / run.took_s:5.0f} sagas/s   p50 {run.p50_ms:.1f} ms",
                flush=True,
            )


if __name__ == "__main__":
    main()
