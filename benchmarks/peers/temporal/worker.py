"""The worker: the saga as a workflow, its three steps as activities, in one process."""

import argparse
import asyncio
import dataclasses
from datetime import timedelta
from pathlib import Path
from typing import Final

from temporalio import activity, workflow
from temporalio.client import Client
from temporalio.common import RetryPolicy
from temporalio.exceptions import ActivityError, ApplicationError
from temporalio.worker import Worker

with workflow.unsafe.imports_passed_through():
    from benchmarks.measured_run import TEXTS
    from benchmarks.peers.books import STEP_NAMES, Books

QUEUE: Final = "bench"
STEP_LIMIT: Final = timedelta(seconds=60)
RETRIES: Final = RetryPolicy(non_retryable_error_types=["Refused"])
BOOKS: Final = Books()


@dataclasses.dataclass
class Message:
    """What every step carries and returns, about 200 bytes."""

    number: int
    is_refused: bool
    name: str = TEXTS[0]
    root: str = TEXTS[1]


@activity.defn
async def do(step: str, message: Message) -> Message:
    if step == STEP_NAMES[-1] and message.is_refused:
        raise ApplicationError("refused", type="Refused", non_retryable=True)
    BOOKS.do(step, message.number)
    return message


@activity.defn
async def undo(step: str, message: Message) -> None:
    BOOKS.undo(step, message.number)


@workflow.defn
class SagaWorkflow:
    """Steps in order, undone in reverse order if one refuses."""

    @workflow.run
    async def run(self, message: Message) -> str:
        done: list[tuple[str, Message]] = []
        try:
            for step in STEP_NAMES:
                message = await workflow.execute_activity(
                    do, args=[step, message], start_to_close_timeout=STEP_LIMIT, retry_policy=RETRIES, result_type=Message
                )
                done.append((step, message))
        except ActivityError:
            for step, output in reversed(done):
                await workflow.execute_activity(undo, args=[step, output], start_to_close_timeout=STEP_LIMIT)
            return "compensated"
        return "completed"


async def main(given: argparse.Namespace) -> None:
    BOOKS.end_when_asked(given.books)
    client = await Client.connect(f"127.0.0.1:{given.port}")
    worker = Worker(client, task_queue=QUEUE, workflows=[SagaWorkflow], activities=[do, undo])
    await worker.run()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True, help="of the server")
    parser.add_argument("--books", type=Path, required=True, help="file that is written at the end")
    asyncio.run(main(parser.parse_args()))
