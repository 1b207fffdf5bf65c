"""The client: workflows that are started and waited for."""

import argparse
import asyncio

from temporalio.client import Client

from benchmarks.measured_run import add_work_arguments, measure, tell, work_of
from benchmarks.peers.processes import add_client_arguments, processes_of
from benchmarks.peers.temporal.worker import QUEUE, Message, SagaWorkflow


async def main(given: argparse.Namespace) -> None:
    work = work_of(given)
    expected = "compensated" if work.is_compensated else "completed"
    client = await Client.connect(f"127.0.0.1:{given.port}")

    async def run_one(number: int) -> None:
        message = Message(number=number, is_refused=work.is_compensated)
        status = await client.execute_workflow(SagaWorkflow.run, message, id=f"saga-{number}", task_queue=QUEUE)
        if status != expected:
            raise SystemExit(f"saga {number} ended {status}, expected {expected}")

    tell(await measure(work, run_one, processes_of(given)))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    add_work_arguments(parser)
    add_client_arguments(parser)
    parser.add_argument("--port", type=int, required=True, help="of the server")
    asyncio.run(main(parser.parse_args()))
