"""The list of metrics, and the table that tells operators of it."""

import re
from typing import cast

import pytest

from coordinator.engine.ports import Forgotten, Journal, JournalFigures
from coordinator.engine.retention import Retention
from coordinator.engine.shards import ONE_SHARD
from coordinator.measured import measures_of
from coordinator.telemetry.setup import Telemetry
from tests.builders import sequence
from tests.fakes import Shell
from tests.processes import ROOT


class CountingJournal:
    stalled_for_us = 1_500_000
    figures = JournalFigures(commits=3, appends=12, refused=1)


async def test_every_metric_is_read_and_documented() -> None:
    shell = Shell()
    await shell.run(sequence("reserve"))
    journal = cast("Journal", CountingJournal())
    retention = Retention(clock=shell.clock, journal=journal, keep_us=1)
    retention.forgotten = Forgotten(sagas=5, keys=6, registrations=7)
    measures = measures_of(shell.engine, journal, ONE_SHARD, retention)
    assert {measure.name: measure.read() for measure in measures} == {
        "saga.held": {"": 1},
        "saga.shards": {"": 1},
        "saga.journal.stalled": {"": 1.5},
        "saga.journal.commits": {"": 3},
        "saga.journal.appends": {"": 12},
        "saga.journal.refused": {"": 1},
        "saga.retention.deleted": {"sagas": 5, "start_keys": 6, "registrations": 7},
    }
    table = (ROOT / "docs/operators.md").read_text().partition("## What is measured")[2].partition("\n## ")[0]
    assert set(re.findall(r"`(saga\.[a-z.]+)`", table)) == {measure.name for measure in measures} | {"saga.table", "saga.barrier.deleted"}


@pytest.mark.parametrize(
    ("variables", "sends"),
    [
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1"}, False),  # Jaeger takes traces only
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1", "OTEL_METRICS_EXPORTER": "otlp"}, True),
        ({"OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": "http://127.0.0.1:1"}, True),
        ({"OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": "http://127.0.0.1:1", "OTEL_METRICS_EXPORTER": "none"}, False),
        ({"OTEL_METRICS_EXPORTER": "otlp"}, False),
    ],
)
def test_metrics_are_sent_where_they_are_asked_for(variables: dict[str, str], sends: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[str] = []

    class Made:
        def __init__(self, service_name: str, measures: object) -> None:
            made.append(service_name)

        def close(self, time_limit_s: float) -> None:
            """There is nothing to send."""

    for name in ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT", "OTEL_METRICS_EXPORTER", "OTEL_SDK_DISABLED"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("coordinator.telemetry.otlp_metrics.OtlpMetrics", Made)
    telemetry = Telemetry(None)
    telemetry.measure(())
    telemetry.shutdown()
    assert bool(made) is sends
