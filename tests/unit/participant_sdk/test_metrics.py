"""What the SDK counts, as a service's OpenTelemetry sees it."""

import asyncio
from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from opentelemetry import metrics
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader, NumberDataPoint

from participant_sdk.clock import wall_clock_us
from participant_sdk.idempotency.cleanup import forget_expired_keys_once
from participant_sdk.idempotency.guard import IdempotencyGuard, KeyedRequest
from participant_sdk.idempotency.memory_store import MemoryIdempotencyStore
from participant_sdk.idempotency.outcomes import Ran
from participant_sdk.idempotency.policy import IdempotencyPolicy, Meaning
from participant_sdk.idempotency.verdict import StoredAnswer
from participant_sdk.outbox import PublishRefused
from tests.contract.barrier.calls import ManualClock
from tests.outboxes import QUICK, OutboxWorld, Recorder, sqlite_engine

DAY_S = 86_400


class Readings:
    """What has been counted since it was made, by name and attributes."""

    def __init__(self) -> None:
        self._reader = InMemoryMetricReader()
        self.provider = MeterProvider([self._reader])
        self._latest: dict[tuple[str, frozenset[tuple[str, object]]], float] = {}
        """A gauge is told once after it was set, so what was told is kept."""

    def of(self, name: str, *labels: str) -> Mapping[tuple[object, ...], float]:
        """The values of that metric, by the values of those attributes."""
        data = self._reader.get_metrics_data()
        for resource in data.resource_metrics if data is not None else ():
            for scope in resource.scope_metrics:
                for metric in scope.metrics:
                    for point in metric.data.data_points:
                        assert isinstance(point, NumberDataPoint)
                        self._latest[metric.name, frozenset((point.attributes or {}).items())] = point.value
        return {
            tuple(dict(attributes)[label] for label in labels): value for (told, attributes), value in self._latest.items() if told == name
        }


@pytest.fixture
def readings(monkeypatch: pytest.MonkeyPatch) -> Readings:
    readings = Readings()
    monkeypatch.setattr(metrics, "get_meter", readings.provider.get_meter)
    return readings


async def test_relay_counts_what_becomes_of_rows(readings: Readings, tmp_path: Path) -> None:
    clock = ManualClock(now_us=wall_clock_us())
    world = OutboxWorld(sqlite_engine(tmp_path / "service.db", "aiosqlite"))
    await world.open()
    recorder = Recorder(always={"bad": PublishRefused("no such topic")})
    recorder.faults["slow"] = [ConnectionError("away")] * 2
    await world.place("good", "slow", "bad")
    policy = replace(QUICK, retention=timedelta(days=1), retention_interval=timedelta(milliseconds=20))
    async with world.relay(recorder, policy=policy, clock=clock):
        async with asyncio.timeout(20):
            while (await world.statistics()).published < 2:
                clock.advance(1)
                await asyncio.sleep(0.005)
            by_kind = {name: readings.of(f"saga.outbox.{name}", "saga.outbox.table", "saga.outbox.kind") for name in ("retried", "failed")}
            while not readings.of("saga.outbox.rows"):
                await asyncio.sleep(0.005)
            clock.advance(2 * DAY_S)
            while readings.of("saga.outbox.deleted").get((), 0) < 2:
                await asyncio.sleep(0.005)
            while readings.of("saga.outbox.rows", "saga.outbox.status")["PUBLISHED",]:
                await asyncio.sleep(0.005)
    table = world.outbox.table_name
    assert readings.of("saga.outbox.published", "saga.outbox.table", "saga.outbox.kind") == {(table, "EVENT"): 2}
    assert by_kind == {"retried": {(table, "EVENT"): 2}, "failed": {(table, "EVENT"): 1}}
    assert readings.of("saga.outbox.rows", "saga.outbox.status") == {("PENDING",): 0, ("PUBLISHED",): 0, ("FAILED",): 1}
    assert readings.of("saga.outbox.oldest_pending_age") == {(): 0}
    await world.close()


async def test_age_of_the_backlog_is_measured(readings: Readings, tmp_path: Path) -> None:
    clock = ManualClock(now_us=wall_clock_us())
    world = OutboxWorld(sqlite_engine(tmp_path / "service.db", "pysqlite"))
    await world.open()
    recorder = Recorder(always={"one": ConnectionError("away")})
    await world.place("one")
    async with world.relay(recorder, clock=clock, retention_interval=timedelta(milliseconds=20)), asyncio.timeout(20):
        while readings.of("saga.outbox.rows", "saga.outbox.status").get(("PENDING",)) != 1:
            await asyncio.sleep(0.005)
        before_s = readings.of("saga.outbox.oldest_pending_age")[()]
        clock.advance(50)
        while readings.of("saga.outbox.oldest_pending_age")[()] < before_s + 49:
            await asyncio.sleep(0.005)
    await world.close()


async def test_requests_with_keys_are_counted_by_how_they_ended(readings: Readings) -> None:
    clock = ManualClock()
    store = MemoryIdempotencyStore(clock=clock)
    guard = IdempotencyGuard(store, IdempotencyPolicy(), "grpc")
    gate = asyncio.Event()

    async def run() -> Ran:
        await gate.wait()
        return Ran(answer=StoredAnswer(status=0, body=b"done"), meaning=Meaning.FINAL)

    async def broken() -> Ran:
        raise RuntimeError("a bug")

    def keyed(key: str, fingerprint: bytes = b"request") -> KeyedRequest:
        return KeyedRequest(tenant="", operation="/shop.v1.Shop/Pay", key=key, fingerprint=fingerprint)

    first = asyncio.create_task(guard.answer(keyed("one"), run, wait_s=5))
    await asyncio.sleep(0)
    await guard.answer(keyed("one"), run, wait_s=0)
    gate.set()
    await first
    await guard.answer(keyed("one"), run, wait_s=0)
    await guard.answer(keyed("one", b"another"), run, wait_s=0)
    await guard.answer(keyed("two"), broken, wait_s=0)
    labels = ("protocol", "outcome")
    assert readings.of("saga.idempotency.requests", *labels) == {
        ("grpc", outcome): 1 for outcome in ("ran", "in_progress", "replayed", "key_reused", "run_failed")
    }
    clock.advance(400 * DAY_S)
    forgotten = await forget_expired_keys_once(store)
    assert forgotten >= 1
    assert readings.of("saga.idempotency.deleted") == {(): forgotten}
