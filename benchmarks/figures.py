"""The figures that the coordinator is to reach, as code: each is computed from arms of one round, and the median of all rounds counts.

Standard library only.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from benchmarks.measured_run import Run
from benchmarks.results import Results, Spread, per_s, processor_ms, spread_of

Round = Mapping[str, Run]


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """One aim."""

    name: str
    value: Callable[[Round], float]
    """Raises KeyError if the round lacks an arm that it needs."""
    target: float
    is_at_least: bool
    """Whether more is better."""
    unit: str

    def found(self, results: Results) -> Spread | None:
        """Of the rounds that tell; None if none does."""
        values: list[float] = []
        for each in results.rounds():
            try:
                values.append(self.value(each))
            except KeyError:
                continue
        return spread_of(values)

    def missed_by(self, found: Spread) -> float:
        """By which part of the target it is missed; 0 or less: it is reached."""
        difference = self.target - found.median if self.is_at_least else found.median - self.target
        return difference / self.target


def _at_least(name: str, target: float, unit: str, value: Callable[[Round], float]) -> Figure:
    return Figure(name=name, value=value, target=target, is_at_least=True, unit=unit)


def _at_most(name: str, target: float, unit: str, value: Callable[[Round], float]) -> Figure:
    return Figure(name=name, value=value, target=target, is_at_least=False, unit=unit)


def _times(arm: str, other: str) -> Callable[[Round], float]:
    return lambda measured: per_s(measured[arm]) / per_s(measured[other])


def _percent(arm: str, other: str) -> Callable[[Round], float]:
    return lambda measured: 100 * per_s(measured[arm]) / per_s(measured[other])


def _more(arm: str, name: str) -> Callable[[Round], float]:
    return lambda measured: measured[arm].more[name]


def _times_best_dbos(measured: Round) -> float:
    return per_s(measured["ours-256"]) / max(per_s(measured["dbos-sqlite-256"]), per_s(measured["dbos-postgres-256"]))


def _span_us(measured: Round) -> float:
    traced = measured["ours-tracing-256"]
    return 1000 * (processor_ms(traced) - processor_ms(measured["ours-256"])) / traced.more["spans_per_saga"]


def _barrier_times(arm: str) -> Callable[[Round], float]:
    return lambda measured: measured[arm].processor_ms["participants"] / measured["ours-own-64"].processor_ms["participants"]


FIGURES: Final[tuple[Figure, ...]] = (
    _at_least("streams at both ends, 256 in flight: against Restate", 12, "times", _times("ours-256", "restate-256")),
    _at_least("streams at both ends, 256 in flight: against the better DBOS", 30, "times", _times_best_dbos),
    _at_least("streams at both ends, 256 in flight: of the ceiling", 25, "%", _percent("ours-256", "ceiling-256")),
    _at_least("16 client streams, 3 participants, 64 in flight: against Restate", 6, "times", _times("ours-16-streams-64", "restate-64")),
    _at_most("every span exported, 256 in flight: processor time per span", 28, "µs", _span_us),
    _at_least("PostgreSQL, 256 in flight: of its ceiling", 50, "%", _percent("ours-postgres-256", "ceiling-postgres-256")),
    _at_most("SQL barrier, processor time of participants: against handlers without one", 1.5, "times", _barrier_times("ours-barrier-64")),
    _at_most("SQL barrier, calls sharing a database transaction: against the same", 0.4, "times", _barrier_times("ours-barrier-shared-64")),
    _at_least("unary start, 64 in flight: against Restate", 4, "times", _times("ours-unary-start-64", "restate-64")),
    _at_least("unary everywhere, 64 in flight: against Restate", 1.8, "times", _times("ours-unary-64", "restate-64")),
    _at_least("compensated, 64 in flight: of those that succeed", 60, "%", _percent("ours-compensated-64", "ours-64")),
    _at_least("compensated, 256 in flight: of those that succeed", 60, "%", _percent("ours-compensated-256", "ours-256")),
    _at_most("open loop, 1,000 a second: p99", 30, "ms", lambda measured: measured["ours-open-1000"].p99_ms),
    _at_most(
        "one in flight, p50: against Restate", 0.5, "times", lambda measured: measured["ours-1"].p50_ms / measured["restate-1"].p50_ms
    ),
    _at_most(
        "coordinator's processor time per saga, 256 in flight",
        0.25,
        "ms",
        lambda measured: measured["ours-256"].processor_ms["coordinator"],
    ),
    _at_most("the core's processor time per saga", 0.08, "ms", lambda measured: measured["core"].processor_ms["core"]),
    _at_most("10,000 sagas in flight when killed: all moving again", 5, "s", _more("ours-recovery-10000", "moving_s")),
    _at_most(
        "coordinator's memory under load, 256 in flight", 120, "MiB", lambda measured: measured["ours-256"].resident_mib["coordinator"]
    ),
    _at_most("memory per running saga", 6, "KiB", _more("ours-recovery-10000", "kib_per_saga")),
    _at_most("start until ready", 1, "s", _more("ours-64", "start_s")),
)
