"""The client of the benchmarks: sagas that are started and waited for. Prints one line of JSON.

A closed loop keeps so many in flight; an open one starts so many a second, at random instants, however long they take.
"""

import argparse
import asyncio
import json
import random
import resource
import time

from benchmarks.participants import MESSAGE, bench_saga
from participant_sdk import SagaClient
from saga.v1 import saga_pb2


async def main(coordinator: str, sagas: int, concurrency: int, *, mapped: bool, rate: float, frames: bool | None = None) -> None:
    latencies: list[float] = []
    remaining = iter(range(sagas))
    async with SagaClient(coordinator, start_in_frames=frames) as client:
        saga_definition = bench_saga(mapped=mapped)
        await client.register(saga_definition)

        async def one() -> None:
            began = time.perf_counter()
            saga = await client.run(saga_definition.name, MESSAGE)
            latencies.append(time.perf_counter() - began)
            if saga.status != saga_pb2.SAGA_STATUS_COMPLETED:
                raise SystemExit(f"saga {saga.id} ended {saga_pb2.SagaStatus.Name(saga.status)}: nothing is measured")

        async def one_after_the_other() -> None:
            for _ in remaining:
                await one()

        async def at_random_instants() -> None:
            chance, due = random.Random(sagas), time.perf_counter()
            async with asyncio.TaskGroup() as begun:
                for _ in remaining:
                    due += chance.expovariate(rate)
                    await asyncio.sleep(due - time.perf_counter())
                    begun.create_task(one())

        used_before, began = _processor_s(), time.perf_counter()
        await (at_random_instants() if rate else asyncio.gather(*(one_after_the_other() for _ in range(concurrency))))
        took_s, used_s = time.perf_counter() - began, _processor_s() - used_before
    latencies.sort()
    print(json.dumps({
        "sagas": len(latencies),
        "took_s": took_s,
        "processor_s": used_s,
        "p50_ms": 1000 * latencies[len(latencies) // 2],
        "p99_ms": 1000 * latencies[len(latencies) * 99 // 100],
    }))  # fmt: skip


def _processor_s() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--coordinator", required=True)
    parser.add_argument("--sagas", type=int, required=True)
    parser.add_argument("--concurrency", type=int, default=1, help="in flight in the closed loop (default %(default)s)")
    parser.add_argument("--rate", type=float, default=0.0, help="sagas per second of the open loop; 0 is the closed one")
    parser.add_argument("--mapped", action="store_true", help="an expression for the input of each step")
    given = parser.parse_args()
    asyncio.run(main(given.coordinator, given.sagas, given.concurrency, mapped=given.mapped, rate=given.rate))
