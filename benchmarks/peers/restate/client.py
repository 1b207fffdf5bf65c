"""The client: sagas that are started over HTTP at Restate's ingress, on connections that are kept, and waited for."""

import argparse
import asyncio

import aiohttp

from benchmarks.measured_run import add_work_arguments, measure, tell, work_of
from benchmarks.peers.processes import add_client_arguments, processes_of
from benchmarks.peers.restate.service import REFUSED_STATUS, message_of


async def main(given: argparse.Namespace) -> None:
    work = work_of(given)
    expected = REFUSED_STATUS if work.is_compensated else 200
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(total=120)) as session:

        async def run_one(number: int) -> None:
            message = message_of(number, is_refused=work.is_compensated)
            async with session.post(given.url, json=message) as answer:
                text = await answer.text()
                if answer.status != expected:
                    raise SystemExit(f"saga {number} ended with {answer.status}, expected {expected}: {text[:500]}")

        tell(await measure(work, run_one, processes_of(given)))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    add_work_arguments(parser)
    add_client_arguments(parser)
    parser.add_argument("--url", required=True, help="of the handler at the ingress")
    asyncio.run(main(parser.parse_args()))
