"""What a coordinator tells of itself in numbers: the one list of its metrics (docs/operators.md shows it)."""

from collections.abc import Callable, Sequence

from coordinator.core.values import MICROS_PER_SECOND
from coordinator.engine.engine import Engine
from coordinator.engine.ports import Journal
from coordinator.engine.retention import Retention
from coordinator.engine.shards import Shards
from coordinator.telemetry.measures import Measure, Reading


def measures_of(engine: Engine, journal: Journal, shards: Shards, retention: Retention) -> Sequence[Measure]:
    """All of them."""

    def forgotten() -> Reading:
        gone = retention.forgotten
        return {"sagas": gone.sagas, "start_keys": gone.keys, "registrations": gone.registrations}

    return (
        _gauge("saga.held", "{saga}", "Sagas in memory: under way, or resting.", lambda: len(engine.held)),
        _gauge("saga.shards", "{shard}", "Shards that this node holds.", lambda: shards.count),
        _gauge(
            "saga.journal.stalled", "s", "How long the oldest append has been waiting for the database.",
            lambda: journal.stalled_for_us / MICROS_PER_SECOND,
        ),
        _counter("saga.journal.commits", "{transaction}", "Database transactions with appends.", lambda: journal.figures.commits),
        _counter("saga.journal.appends", "{append}", "Appends that are committed.", lambda: journal.figures.appends),
        _counter(
            "saga.journal.refused", "{append}", "Appends that the database refused because another node owns the shard.",
            lambda: journal.figures.refused,
        ),
        Measure(
            name="saga.retention.deleted", unit="{row}", description="What retention has deleted.", only_grows=True, read=forgotten,
            attribute="saga.table",
        ),
    )  # fmt: skip


def _gauge(name: str, unit: str, description: str, read: Callable[[], float]) -> Measure:
    return Measure(name=name, unit=unit, description=description, only_grows=False, read=lambda: {"": read()})


def _counter(name: str, unit: str, description: str, read: Callable[[], float]) -> Measure:
    return Measure(name=name, unit=unit, description=description, only_grows=True, read=lambda: {"": read()})
