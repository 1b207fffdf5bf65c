"""What the core takes for a whole saga of three steps by itself: decisions, events and state, without codec, journal, gRPC or loop."""

import argparse
import time
from os import getpid
from typing import Final

from benchmarks.measured_run import Run, peak_resident_mib, tell
from benchmarks.one_saga import live

WARM_UP: Final = 200


def main(sagas: int) -> Run:
    for _ in range(WARM_UP):
        live()
    latencies: list[float] = []
    used_before, began = time.process_time(), time.perf_counter()
    for _ in range(sagas):
        at = time.perf_counter()
        live()
        latencies.append(time.perf_counter() - at)
    took_s, used_s = time.perf_counter() - began, time.process_time() - used_before
    latencies.sort()
    return Run(
        sagas=sagas,
        took_s=took_s,
        p50_ms=1000 * latencies[len(latencies) // 2],
        p99_ms=1000 * latencies[len(latencies) * 99 // 100],
        processor_ms={"core": 1000 * used_s / sagas},
        resident_mib={"core": peak_resident_mib(getpid())},
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sagas", type=int, default=3000, help="(default %(default)s)")
    tell(main(parser.parse_args().sagas))
