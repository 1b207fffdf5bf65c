"""A relay as a process of its own: `python -m tests.integration.outbox.relay_process URL FILE [COORDINATOR [die]]`.

It appends a line to FILE for each event, and syncs it: that is its broker. With `die` it kills itself when the coordinator has answered a
start, before it has written that down.
"""

import asyncio
import os
import signal
import sys
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

from sqlalchemy import make_url
from sqlalchemy.ext.asyncio import create_async_engine

from participant_sdk import SagaClient
from participant_sdk.outbox import Outbox, OutboxEvent, OutboxRelay
from saga.v1 import coordinator_pb2
from tests.outboxes import QUICK, name_of

POLICY = replace(QUICK, publish_time_limit=timedelta(seconds=0.5), lease=timedelta(seconds=1), rows_max=20, concurrency=4)


class FilePublisher:
    """Implements `Publisher`."""

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)

    async def publish(self, event: OutboxEvent, /) -> None:
        await asyncio.sleep(0)
        os.write(self._file, f"{event.id} {event.key or '-'} {name_of(event)} {event.attempt}\n".encode())
        os.fsync(self._file)


class DyingClient:
    """Implements `SagaStarter` for the last time."""

    def __init__(self, client: SagaClient) -> None:
        self._client = client

    async def start_prepared(
        self,
        request: coordinator_pb2.StartSagaRequest,
        /,
        *,
        timeout: timedelta | None = None,  # noqa: ASYNC109 - as SagaClient has it
    ) -> None:
        await self._client.start_prepared(request, timeout=timeout)
        os.kill(os.getpid(), signal.SIGKILL)


async def main(url: str, path: Path, coordinator: str = "", fate: str = "") -> None:
    engine = create_async_engine(make_url(url))
    async with SagaClient(coordinator or "127.0.0.1:1") as client:
        starter = DyingClient(client) if fate == "die" else client
        relay = OutboxRelay(engine, Outbox(), publisher=FilePublisher(path), client=starter if coordinator else None, policy=POLICY)
        task = asyncio.create_task(relay.run())
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, relay.stop)
        await task
    await engine.dispose()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], Path(sys.argv[2]), *sys.argv[3:]))
