"""Recovery: a coordinator is killed with sagas in flight and started again. How long until all of them move, and until all have ended?

The sagas wait at participants that do not answer yet, so that the outcome of every call is in doubt. Then the coordinator is killed, the
participants answer from now on, and the coordinator is started again on what the dead one has left. What is told:

  took_s          from the new start until the last saga has ended
  p50_ms, p99_ms  from the new start until a saga's call has come to a participant again
  more            start_s: until the first start served, on an empty database; ready_s: until the second one did; moving_s: until every saga
                  has called again; kib_per_saga: resident memory of the coordinator above that before the sagas were started, per saga
"""

import argparse
import asyncio
import signal
import tempfile
import time
from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from benchmarks.journals import journal_of, with_postgres_of_its_own
from benchmarks.measured_run import Run, peak_resident_mib, processor_s, tell
from benchmarks.participants import LETTING_GO, bench_saga, message_of
from benchmarks.peers.databases import add_database_arguments
from benchmarks.peers.processes import end_in_good_order
from benchmarks.system import Options, System, percentile, resident_mib, start_coordinator, system
from participant_sdk import SagaClient
from saga.v1 import saga_pb2

STARTING_AT_ONCE: Final = 256
SETTLING_S: Final = 0.5
"""For what the last starts have left to do, before the memory is read."""
FIRST_SAGAS: Final = 100
"""Started before the memory is read first, so that what is loaded once is there."""
SAGAS_TELLING: Final = 1000
"""As many at least tell how much memory one takes."""
END_LIMIT_S: Final = 300.0
UNFINISHED: Final = (saga_pb2.SAGA_STATUS_PENDING, saga_pb2.SAGA_STATUS_RUNNING, saga_pb2.SAGA_STATUS_COMPENSATING)


@dataclass(frozen=True, slots=True, kw_only=True)
class Restarted:
    """What became of the sagas. Instants are those of the clock that all processes of the machine share."""

    began_at: float
    """When the process was started."""
    ready_s: float
    ended_at: float
    """When no saga was unfinished any more."""
    processor_ms: float
    """Of the new coordinator, per saga."""
    resident_mib: float
    """Of the new coordinator at its peak."""


async def main(given: argparse.Namespace) -> Run:
    with tempfile.TemporaryDirectory(prefix="bench-recovery-") as name, ExitStack() as stack:
        directory = Path(name)
        database, _ = await journal_of(given, directory)
        options = Options(database=database, is_held=True, concurrency=given.participant_concurrency)
        running = stack.enter_context(system(directory, options))
        kib_per_saga = await start_sagas(running, given.sagas)
        restarted = await restart(running, given.sagas, stack)
        called_at = running.notes("called_at")
        check(running, called_at, given.sagas)
        came_s = sorted(at - restarted.began_at for at in called_at.values())
        return Run(
            sagas=given.sagas,
            took_s=restarted.ended_at - restarted.began_at,
            p50_ms=1000 * percentile(came_s, 50),
            p99_ms=1000 * percentile(came_s, 99),
            processor_ms={"coordinator": restarted.processor_ms},
            resident_mib={"coordinator": restarted.resident_mib},
            more={
                "start_s": running.start_s,
                "ready_s": restarted.ready_s,
                "moving_s": came_s[-1],
                **({"kib_per_saga": kib_per_saga} if given.sagas >= SAGAS_TELLING else {}),
            },
        )


async def start_sagas(running: System, sagas: int) -> float:
    """Starts them; returns how much memory the coordinator has taken for each, in KiB."""
    definition = bench_saga(is_patient=True)
    async with SagaClient(running.address, start_in_frames=True) as client:
        await client.register(definition)
        await _start(client, definition.name, range(FIRST_SAGAS))
        await asyncio.sleep(SETTLING_S)
        before_mib = resident_mib(running.coordinator.pid)
        await _start(client, definition.name, range(FIRST_SAGAS, sagas))
        await asyncio.sleep(SETTLING_S)
        return 1024 * (resident_mib(running.coordinator.pid) - before_mib) / max(1, sagas - FIRST_SAGAS)


async def _start(client: SagaClient, definition: str, numbers: Iterable[int]) -> None:
    remaining = iter(numbers)

    async def one_after_the_other() -> None:
        for number in remaining:
            await client.start(definition, message_of(number))

    async with asyncio.TaskGroup() as group:
        for _ in range(STARTING_AT_ONCE):
            group.create_task(one_after_the_other())


async def restart(running: System, sagas: int, stack: ExitStack) -> Restarted:
    """Kills the coordinator, lets the participants answer, and starts another; returns when every saga has ended."""
    running.coordinator.stop(signal.SIGKILL)
    for participant in running.participants:
        participant.process.send_signal(LETTING_GO)
    options = replace(running.options, is_held=False)
    began_at = time.monotonic()
    coordinator, ready_s = await asyncio.to_thread(start_coordinator, running.directory, running.address, options, stack)
    async with asyncio.timeout(END_LIMIT_S), SagaClient(running.address) as client:
        while await _is_any_unfinished(client):
            await asyncio.sleep(0.02)
    return Restarted(
        began_at=began_at,
        ready_s=ready_s,
        ended_at=time.monotonic(),
        processor_ms=1000 * processor_s(coordinator.pid) / sagas,
        resident_mib=peak_resident_mib(coordinator.pid),
    )


async def _is_any_unfinished(client: SagaClient) -> bool:
    async for _ in client.list(statuses=UNFINISHED):
        return True
    return False


def check(running: System, called_at: dict[int, float], sagas: int) -> None:
    """Ends the program with a message unless every saga has called again, and has done every step."""
    if len(called_at) != sagas:
        raise SystemExit(f"{len(called_at)} sagas have called after the restart, expected {sagas}: nothing is measured")
    running.check_done(range(sagas))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_database_arguments(parser)
    parser.add_argument("--sagas", type=int, default=10_000, help="in flight when it is killed (default %(default)s)")
    parser.add_argument(
        "--participant-concurrency", type=int, default=10_000, help="calls under way per participant at most (default %(default)s)"
    )
    arguments = parser.parse_args()
    end_in_good_order()
    with_postgres_of_its_own(arguments, "benchmarks.recovery")
    tell(asyncio.run(main(arguments)))
