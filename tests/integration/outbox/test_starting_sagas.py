"""Sagas that are started by an outbox, with a real coordinator: once for each committed start, whatever is killed between."""

import asyncio
from contextlib import suppress
from datetime import timedelta
from pathlib import Path

from opentelemetry import context as context_api
from opentelemetry import trace
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags
from sqlalchemy import URL, insert

from participant_sdk import ParticipantServer, SagaClient
from saga.v1 import saga_pb2
from tests.integration.definitions import three_steps
from tests.integration.outbox.places import relay_process, service_on
from tests.outboxes import QUICK, OutboxWorld, execute, orders, placed
from tests.participants import bookkeeper
from tests.processes import CoordinatorProcess

TRACE = 0xFEDCBA9876543210FEDCBA9876543210
DONE = ["first", "second", "third"]


async def _place(world: OutboxWorld, name: str) -> str:
    """An order, and the start of its saga; returns the id of the saga."""
    async with world.transaction() as session:
        await execute(session, insert(orders).values(id=name))
        return world.outbox.start_saga(session, "three-steps", placed(name), labels={"order": name})


async def test_committed_start_takes_place_once_although_the_relay_dies_after_it(tmp_path: Path) -> None:  # R2
    with CoordinatorProcess(tmp_path) as coordinator:
        await coordinator.start()
        async with (
            service_on(URL.create("sqlite+aiosqlite", database=str(tmp_path / "service.db"))) as world,
            bookkeeper(tmp_path) as keeper,
            SagaClient(coordinator.address) as client,
            ParticipantServer(keeper, coordinator=coordinator.address),
        ):
            await client.register(three_steps())
            span = SpanContext(TRACE, 0x1234, is_remote=False, trace_flags=TraceFlags(TraceFlags.SAMPLED))
            token = context_api.attach(trace.set_span_in_context(NonRecordingSpan(span)))
            try:
                saga_id = await _place(world, "one")
            finally:
                context_api.detach(token)
            with suppress(ZeroDivisionError):
                async with world.transaction() as session:
                    world.outbox.start_saga(session, "three-steps", placed("never"))
                    raise ZeroDivisionError
            dying = relay_process(world, tmp_path, coordinator.address, "die")
            assert await asyncio.to_thread(dying.wait, 30) == -9
            assert (await world.statistics()).pending == 1
            coordinator.kill()
            going_on = relay_process(world, tmp_path, coordinator.address)
            await coordinator.start()
            await world.until_statistics(lambda statistics: statistics.published == 1)
            saga = await client.attach(saga_id).wait(timeout=timedelta(seconds=30))
            going_on.send_signal(15)
            assert await asyncio.to_thread(going_on.wait, 20) == 0
            sagas = [saga.id async for saga in client.list()]
            lines = await keeper.lines()
    assert sagas == [saga_id]
    assert (saga.status, dict(saga.labels)) == (saga_pb2.SAGA_STATUS_COMPLETED, {"order": "one"})
    assert saga.traceparent.split("-")[1] == f"{TRACE:032x}"
    assert lines == {saga_id: [(step, "do") for step in DONE]}


async def test_starts_wait_for_a_coordinator_that_is_away_and_for_their_definition(tmp_path: Path) -> None:
    coordinator = CoordinatorProcess(tmp_path)
    async with (
        service_on(URL.create("sqlite+aiosqlite", database=str(tmp_path / "service.db"))) as world,
        SagaClient(coordinator.address) as client,
    ):
        ids = {await _place(world, str(number)) for number in range(3)}
        with coordinator:
            async with world.relay(client=client, publish_time_limit=timedelta(milliseconds=200), attempts_max=200):
                await world.until_statistics(lambda statistics: statistics.pending == 3)
                await coordinator.start()
                await world.until_statistics(lambda statistics: statistics.retrying >= 1)  # not registered yet
                await client.register(three_steps())
                await world.until_statistics(lambda statistics: statistics.published == 3)
            assert {saga.id async for saga in client.list()} == ids


async def test_start_that_the_coordinator_refuses_is_given_up_at_once(tmp_path: Path) -> None:
    with CoordinatorProcess(tmp_path) as coordinator:
        await coordinator.start()
        async with (
            service_on(URL.create("sqlite+aiosqlite", database=str(tmp_path / "service.db"))) as world,
            SagaClient(coordinator.address) as client,
        ):
            await client.register(three_steps())
            async with world.transaction() as session:
                wrong = world.outbox.start_saga(session, "three-steps", saga_pb2.Saga())
                first = world.outbox.start_saga(session, "three-steps", placed("x"), key="order-1")
            async with world.relay(client=client, policy=QUICK):
                await world.until_statistics(lambda statistics: statistics.failed == 1 and statistics.published == 1)
                async with world.transaction() as session:
                    other_input = world.outbox.start_saga(session, "three-steps", placed("y"), key="order-1")
                    world.outbox.start_saga(session, "three-steps", placed("x"), key="order-1")
                await world.until_statistics(lambda statistics: statistics.failed == 2 and statistics.published == 2)
            failed = {row.key: row for row in await world.outbox.failed(world.engine)}
            assert [saga.id async for saga in client.list()] == [first]
    assert failed.keys() == {wrong, other_input}
    assert failed[wrong].last_error.startswith("InvalidRequest: cannot start three-steps")
    assert failed[other_input].last_error.startswith("AlreadyExists: ")
    assert {row.attempts for row in failed.values()} == {1}
