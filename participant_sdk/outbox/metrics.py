"""What a relay counts. Uses the OpenTelemetry API only, so that it costs next to nothing unless a service sets up a provider."""

from opentelemetry import metrics

from participant_sdk.outbox.statistics import OutboxStatistics
from participant_sdk.outbox.table import OutboxKind


class RelayMetrics:
    """The instruments of a relay; the attribute `saga.outbox.kind` tells events and starts apart."""

    def __init__(self, table_name: str) -> None:
        meter = metrics.get_meter("participant_sdk.outbox")
        self._table = {"saga.outbox.table": table_name}
        self._published = meter.create_counter("saga.outbox.published", "{row}", "Rows that got where they go.")
        self._retried = meter.create_counter("saga.outbox.retried", "{try}", "Tries that came to nothing and are made again.")
        self._failed = meter.create_counter("saga.outbox.failed", "{row}", "Rows that were given up.")
        self._deleted = meter.create_counter("saga.outbox.deleted", "{row}", "Published rows that were forgotten.")
        self._rows = meter.create_gauge("saga.outbox.rows", "{row}", "Rows that are there, by status.")
        self._age = meter.create_gauge("saga.outbox.oldest_pending_age", "s", "Age of the oldest row that is not published.")

    def count(self, kind: OutboxKind, *, published: int = 0, retried: int = 0, failed: int = 0) -> None:
        """Adds what became of rows."""
        attributes = {**self._table, "saga.outbox.kind": kind.value}
        for counter, number in ((self._published, published), (self._retried, retried), (self._failed, failed)):
            if number:
                counter.add(number, attributes)

    def count_deleted(self, rows: int) -> None:
        """Adds rows that were forgotten."""
        self._deleted.add(rows, self._table)

    def measure(self, statistics: OutboxStatistics) -> None:
        """Tells how many rows there are now. Relays of one table tell the same."""
        for status, rows in (("PENDING", statistics.pending), ("PUBLISHED", statistics.published), ("FAILED", statistics.failed)):
            self._rows.set(rows, {**self._table, "saga.outbox.status": status})
        self._age.set(statistics.oldest_pending_age.total_seconds(), self._table)
