"""Spans over a real socket, and collectors that are away, refuse or hang."""

import asyncio
import threading
import time
from collections.abc import AsyncIterator

import pytest

from coordinator.core.trace import attempt_span_id, root_span_id
from coordinator.telemetry.setup import Telemetry, configure_telemetry
from tests.builders import COMPENSATE, SAGA, attempt, compensated, rejected, sequence, succeeded
from tests.otlp_receiver import Conduct, OtlpReceiver, ReceivedLink
from tests.unit.telemetry.observed import Observed

CALLER_TRACE = "0af7651916cd43dd8448eb211c80319c"


@pytest.fixture
async def receiver(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[OtlpReceiver]:
    async with OtlpReceiver() as started:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", started.endpoint)
        monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "20")
        monkeypatch.delenv("OTEL_SERVICE_NAME", raising=False)
        yield started


def run_compensated_saga(telemetry: Telemetry) -> None:
    saga = Observed(sequence("a", "b"), *telemetry.observers)
    saga.start()
    saga.reply("a", succeeded(), sent=1, ended=2)
    saga.reply("b", rejected(), sent=2, ended=3)
    saga.reply("a", compensated(), sent=3, ended=4, direction=COMPENSATE)


async def test_compensated_saga_arrives_as_one_trace(receiver: OtlpReceiver) -> None:
    async with configure_telemetry() as telemetry:
        run_compensated_saga(telemetry)
        await receiver.wait_for(lambda spans: len(spans) >= 4)
    root = f"{root_span_id(SAGA):016x}"
    assert [(span.name, span.kind, span.parent_span_id, span.is_error) for span in receiver.spans] == [
        ("execute a.do", "CLIENT", root, False),
        ("execute b.do", "CLIENT", root, True),
        ("compensate a.do", "CLIENT", root, False),
        ("saga place-order", "SERVER", "b7ad6b7169203331", True),
    ]
    assert {(span.trace_id, span.service) for span in receiver.spans} == {(CALLER_TRACE, "saga-coordinator")}
    linked = ReceivedLink(trace_id=CALLER_TRACE, span_id=f"{attempt_span_id(SAGA, attempt('a', 1)):016x}")
    assert [span.links for span in receiver.named("compensate a.do")] == [(linked,)]
    assert [event.name for event in receiver.spans[-1].events] == ["saga turned back"]
    assert receiver.spans[0].attributes["saga.attempt"] == 1


async def test_closing_sends_what_is_queued(receiver: OtlpReceiver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "3600000")
    async with configure_telemetry() as telemetry:
        run_compensated_saga(telemetry)
        assert not receiver.spans
    assert len(receiver.spans) == 4


async def test_collector_that_refused_and_was_away_gets_the_spans_when_it_is_back(receiver: OtlpReceiver) -> None:
    receiver.conduct = Conduct.REFUSE
    async with configure_telemetry() as telemetry:
        run_compensated_saga(telemetry)
        await receiver.wait_for_exports(1)
        await receiver.stop()
        receiver.conduct = Conduct.ACCEPT
        await receiver.start()
        await receiver.wait_for(lambda spans: len(spans) == 4)


@pytest.mark.parametrize("conduct", [Conduct.REFUSE, Conduct.HANG])
async def test_collector_that_refuses_or_hangs_delays_closing_no_longer_than_the_limit(receiver: OtlpReceiver, conduct: Conduct) -> None:
    receiver.conduct = conduct
    telemetry = configure_telemetry()
    run_compensated_saga(telemetry)
    await receiver.wait_for_exports(1)
    began = time.monotonic()
    await asyncio.to_thread(telemetry.shutdown, time_limit_s=0.1)
    assert time.monotonic() - began < 2.5
    assert not [thread.name for thread in threading.enumerate() if thread.name == "close-otlp"]  # the export was cut off, not left behind
    assert not receiver.spans


async def test_collector_that_hangs_never_blocks_the_observer(receiver: OtlpReceiver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_BSP_MAX_QUEUE_SIZE", "8")
    monkeypatch.setenv("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "4")
    receiver.conduct = Conduct.HANG
    telemetry = configure_telemetry()
    began = time.monotonic()
    for _ in range(50):
        run_compensated_saga(telemetry)  # 200 spans for a queue of 8: the rest is dropped
    assert time.monotonic() - began < 2.0
    await asyncio.to_thread(telemetry.shutdown, time_limit_s=0.1)
