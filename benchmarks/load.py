"""The client of the benchmarks, a process of its own: sagas that are started and waited for, and how long that took.

Prints one line of JSON. `system.run_load` starts it.
"""

import argparse
import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Final

from google.protobuf.message import Message

from benchmarks.measured_run import STEPS, TEXTS, Work, add_work_arguments, measure, tell, work_of
from benchmarks.participants import bench_saga, message_of
from benchmarks.peers.processes import add_client_arguments, processes_of
from participant_sdk import SagaClient, SagaNotCompleted, configure_otlp
from saga.v1 import saga_pb2

STARTS: Final = {"frames": True, "unary": False, "auto": None}
"""How starts travel: in frames on one stream, by themselves, or as the client likes."""


@asynccontextmanager
async def clients(address: str, count: int, starts: str) -> AsyncIterator[list[SagaClient]]:
    """So many clients, each with a stream of its own."""
    async with AsyncExitStack() as stack:
        yield [await stack.enter_async_context(SagaClient(address, start_in_frames=STARTS[starts])) for _ in range(count)]


class Sagas:
    """Starts the sagas of a run, in turns by each client, and notes when it was told that they had ended."""

    def __init__(self, by: list[SagaClient], definition: str, work: Work, filling: str) -> None:
        """`filling`: a part of the input, as long as is wanted."""
        self._clients = by
        self._filling = filling
        self._definition = definition
        self._work = work
        self.told_at: dict[int, float] = {}
        """By the clock that all processes of the machine share."""

    async def run_one(self, number: int) -> None:
        client = self._clients[number % len(self._clients)]
        message = message_of(number, is_refused=self._work.is_compensated, filling=self._filling)
        status = await _status_at_end(client, self._definition, message)
        self.told_at[number] = time.monotonic()
        expected = saga_pb2.SAGA_STATUS_COMPENSATED if self._work.is_compensated else saga_pb2.SAGA_STATUS_COMPLETED
        if status != expected:
            found, wanted = saga_pb2.SagaStatus.Name(status), saga_pb2.SagaStatus.Name(expected)
            raise SystemExit(f"saga {number} ended {found}, expected {wanted}: nothing is measured")


async def _status_at_end(client: SagaClient, definition: str, message: Message) -> saga_pb2.SagaStatus.ValueType:
    try:
        saga = await client.run(definition, message)
    except SagaNotCompleted as error:
        return error.status
    return saga.status


async def main(given: argparse.Namespace) -> None:
    flush = configure_otlp("client")
    work = work_of(given)
    async with clients(given.coordinator, given.streams, given.starts) as by:
        saga_definition = bench_saga(participants=given.participants, mapped=given.mapped, steps=given.steps)
        await by[0].register(saga_definition)
        sagas = Sagas(by, saga_definition.name, work, "x" * given.filling)
        run = await measure(work, sagas.run_one, processes_of(given))
    await asyncio.to_thread(flush)
    if given.told is not None:
        given.told.write_text(json.dumps(sagas.told_at))
    tell(run)


def add_load_arguments(parser: argparse.ArgumentParser) -> None:
    """How the client works, beside the options of the work."""
    parser.add_argument("--starts", choices=list(STARTS), default="frames", help="in frames on a stream, or unary (default %(default)s)")
    parser.add_argument("--streams", type=int, default=1, help="clients, each with a stream of its own (default %(default)s)")
    parser.add_argument("--participants", type=int, default=1, help="that the steps are spread over, 1 to 3 (default %(default)s)")
    parser.add_argument("--mapped", action="store_true", help="an expression makes the input of each step")
    parser.add_argument("--steps", type=int, default=STEPS, help="of each saga, at least three (default %(default)s)")
    parser.add_argument(
        "--filling", type=int, default=len(TEXTS[0]), help="bytes in every input and output, beside 60 (default %(default)s)"
    )


def load_arguments(given: argparse.Namespace) -> list[str]:
    """The same options again, for the process of the client."""
    options = ["--starts", given.starts, "--streams", str(given.streams), "--participants", str(given.participants)]
    options += ["--steps", str(given.steps), "--filling", str(given.filling)]
    return [*options, "--mapped"] if given.mapped else options


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    add_work_arguments(parser)
    add_client_arguments(parser)
    add_load_arguments(parser)
    parser.add_argument("--coordinator", required=True)
    parser.add_argument("--told", type=Path, help="file for the instants at which sagas were told to have ended")
    asyncio.run(main(parser.parse_args()))
