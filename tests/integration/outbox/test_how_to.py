"""docs/how-to/outbox.md does what it says: its snippets are one program, which runs here beside a real coordinator."""

import asyncio
import re
from contextlib import suppress
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, create_async_engine

from participant_sdk import Saga, SagaClient
from participant_sdk.outbox import OutboxStatistics, OutboxStatus, RelayPolicy
from participant_sdk.outbox.metrics import RelayMetrics
from shop.v1.shop_pb2 import PlaceOrder
from tests.documents import ROOT
from tests.outboxes import WAIT_S
from tests.processes import CoordinatorProcess

DOCUMENT = ROOT / "docs" / "how-to" / "outbox.md"
SNIPPET = re.compile(r"<!-- the test-suite runs this -->\n```python\n(.*?)```", re.DOTALL)


def test_every_snippet_is_run() -> None:
    text = DOCUMENT.read_text()
    assert text.count("```python\n") == len(SNIPPET.findall(text))


def test_names_in_the_text_are_those_of_the_code() -> None:
    text = DOCUMENT.read_text()
    known = {each.name for each in fields(RelayPolicy)} | {each.name for each in fields(OutboxStatistics)}
    assert set(re.findall(r"RelayPolicy\((\w+)=", text)) <= known
    assert all(f"\n| {status} |" in text for status in OutboxStatus)
    metrics = {each._name for each in vars(RelayMetrics("t")).values() if hasattr(each, "_name")}
    assert len(metrics) == 6
    assert metrics == set(re.findall(r"`(saga\.outbox\.\w+)`", text))


async def test_program_of_the_document_does_what_it_says(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names: dict[str, Any] = {"__name__": "how_to"}
    exec(compile("\n\n".join(SNIPPET.findall(DOCUMENT.read_text())), "outbox.py", "exec"), names)
    engine = create_async_engine(f"sqlite+aiosqlite:///{tmp_path / 'orders.db'}", connect_args={"timeout": 20})
    await names["create_tables"](engine)
    publisher, stop = names["PrintingPublisher"](), asyncio.Event()
    with CoordinatorProcess(tmp_path) as coordinator:
        await coordinator.start()
        async with SagaClient(coordinator.address) as client, asyncio.TaskGroup() as tasks:
            saga = Saga("place-order", input=PlaceOrder)
            saga.step("inventory.reserve", request=PlaceOrder, response=PlaceOrder)
            await client.register(saga)
            tasks.create_task(names["serve"](engine, publisher, client, stop))
            saga_id = await names["place_order"](engine, PlaceOrder(order_id="1", sku="widget"))
            with suppress(Exception):  # the same order again
                await names["place_order"](engine, PlaceOrder(order_id="1", sku="widget"))
            async with asyncio.timeout(WAIT_S):
                while (await names["outbox"].statistics(engine)).published < 2:
                    await asyncio.sleep(0.01)
            await _fail(names, engine)
            stop.set()
            assert [saga.id async for saga in client.list()] == [saga_id]
    await engine.dispose()
    (event,) = publisher.sent
    assert (event.topic, event.key, event.headers) == ("orders", "1", {"tenant": "north"})
    assert capsys.readouterr().out.splitlines() == [
        "orders 1: shop.v1.PlaceOrder, try 1",
        "0 pending, 2 published, 1 failed",
        "the oldest waits for 0 s",
        "unknown  after 1 tries: PublishRefused: there is no topic unknown",
    ]


async def _fail(names: dict[str, Any], engine: AsyncEngine) -> None:
    outbox = names["outbox"]
    async with AsyncSession(engine) as session, session.begin():
        outbox.publish(session, b"", topic="unknown")
    async with asyncio.timeout(WAIT_S):
        while not (await outbox.statistics(engine)).failed:
            await asyncio.sleep(0.01)
    await names["look_after"](engine)
