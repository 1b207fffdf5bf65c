"""Results as Markdown. Standard library only."""

from collections.abc import Callable, Iterable, Iterator, Sequence

from benchmarks.arms import CLOSED, OPEN, OTHER, Arm
from benchmarks.figures import FIGURES, Figure
from benchmarks.measured_run import Run
from benchmarks.results import Results, Spread, per_s, processor_ms

OTHER_NAMES = {
    "start_s": ("from start to ready, no sagas", "s"),
    "ready_s": ("from restart to ready", "s"),
    "moving_s": ("from restart until every saga moves", "s"),
    "kib_per_saga": ("memory per running saga", "KiB"),
}


def report(results: Results, arms: Sequence[Arm]) -> str:
    """The whole document."""
    parts = [
        ["# Results", "", "Written by `python -m benchmarks.suite`. Medians; in brackets the lowest and the highest run."],
        ["## Figures to reach", *_figures(results)],
        ["## Closed loop", *_closed(results, [arm for arm in arms if arm.kind == CLOSED])],
        ["## Processor time", *_processor_time(results, [arm for arm in arms if arm.kind == CLOSED])],
        ["## Turning back", *_turning_back(results, arms)],
        ["## Open loop", *_open(results, [arm for arm in arms if arm.kind == OPEN])],
        ["## Recovery, start and memory", *_other(results, [arm for arm in arms if arm.kind == OTHER])],
        ["## What is missing", *_missing(results)],
        ["## Measured on", *_measured_on(results)],
    ]
    return "\n\n".join("\n".join(part) for part in parts) + "\n"


def _figures(results: Results) -> Iterator[str]:
    yield "\nEach is computed in every round from arms that were measured in it."
    yield from _head("", "aim", "measured", "")
    for figure in FIGURES:
        found = figure.found(results)
        sign = "≥" if figure.is_at_least else "≤"
        aim = f"{sign} {figure.target:g} {figure.unit}"
        yield _row(figure.name, aim, "not measured" if found is None else _spread(found, figure.unit), _verdict(figure, found))


def _verdict(figure: Figure, found: Spread | None) -> str:
    if found is None:
        return ""
    missed_by = figure.missed_by(found)
    return "reached" if missed_by <= 0 else f"missed by {missed_by:.0%}"


def _closed(results: Results, arms: Sequence[Arm]) -> Iterator[str]:
    yield from _head("", "in flight", "sagas/s", "p50", "p99", "processor time per saga", "rows per commit", "runs")
    for arm in arms:
        runs = results.runs(arm.name)
        if not runs:
            continue
        yield _row(
            arm.label,
            f"{arm.size}",
            _of(results, arm, per_s),
            _of(results, arm, lambda run: run.p50_ms, "ms"),
            _of(results, arm, lambda run: run.p99_ms, "ms"),
            _of(results, arm, processor_ms, "ms"),
            _of_more(results, arm, "rows_per_commit"),
            f"{len(runs)}",
        )


def _processor_time(results: Results, arms: Sequence[Arm]) -> Iterator[str]:
    yield from _head("milliseconds per saga, and memory at its peak", "in flight", "by process")
    for arm in arms:
        runs = results.runs(arm.name)
        if runs:
            parts = [_process(results, arm, name) for name in runs[0].processor_ms]
            yield _row(arm.label, f"{arm.size}", "; ".join(parts))


def _process(results: Results, arm: Arm, name: str) -> str:
    spent = results.spread(arm.name, lambda run: run.processor_ms.get(name, 0.0))
    used = results.spread(arm.name, lambda run: run.resident_mib.get(name, 0.0))
    assert spent is not None
    assert used is not None
    return f"{name} {_number(spent.median)} ms, {_number(used.median)} MiB"


def _turning_back(results: Results, arms: Sequence[Arm]) -> Iterator[str]:
    yield "\nFrom the refusal of the third step, in the participant, until the client was told that the other two are undone."
    yield from _head("", "in flight", "p50", "p99")
    for arm in arms:
        if any("turning_back_p50_ms" in run.more for run in results.runs(arm.name)):
            times = (_of_more(results, arm, name, "ms") for name in ("turning_back_p50_ms", "turning_back_p99_ms"))
            yield _row(arm.label, f"{arm.size}", *times)


def _open(results: Results, arms: Sequence[Arm]) -> Iterator[str]:
    yield "\nSagas are started at random instants, however long they take; a saga's time counts from when it was due."
    yield from _head("", "a second", "ended a second", "p50", "p99", "processor time per saga")
    for arm in arms:
        if results.runs(arm.name):
            yield _row(
                arm.label,
                f"{arm.size:,}",
                _of(results, arm, per_s),
                _of(results, arm, lambda run: run.p50_ms, "ms"),
                _of(results, arm, lambda run: run.p99_ms, "ms"),
                _of(results, arm, processor_ms, "ms"),
            )


def _other(results: Results, arms: Sequence[Arm]) -> Iterator[str]:
    yield from _head("", "", "measured")
    for arm in arms:
        runs = results.runs(arm.name)
        if not runs:
            continue
        if arm.driver == "recovery":
            for name, (what, unit) in OTHER_NAMES.items():
                yield _row(arm.label, what, _of_more(results, arm, name, unit))
            yield _row(arm.label, "from restart until every saga has ended", _of(results, arm, lambda run: run.took_s, "s"))
        else:
            yield _row(arm.label, "processor time per saga", _of(results, arm, lambda run: 1000 * processor_ms(run), "µs"))


def _missing(results: Results) -> Iterator[str]:
    lines = [f"- {arm}: {reason}" for arm, reason in results.missing.items()]
    lines += [f"- {each.arm}, run {each.round}, failed: `{each.reason}`" for each in results.failures()]
    yield from ["", *(lines or ["Nothing: every arm was measured, and no run failed."])]


def _measured_on(results: Results) -> Iterator[str]:
    yield from _head("", "")
    yield _row("began", results.began_at)
    for name, value in {**results.machine, **results.versions}.items():
        yield _row(name, value)


def _of(results: Results, arm: Arm, number: Callable[[Run], float], unit: str = "") -> str:
    spread = results.spread(arm.name, number)
    return "" if spread is None else _spread(spread, unit)


def _of_more(results: Results, arm: Arm, name: str, unit: str = "") -> str:
    runs = results.runs(arm.name)
    if not runs or any(name not in run.more for run in runs):
        return ""
    return _of(results, arm, lambda run: run.more[name], unit)


def _spread(spread: Spread, unit: str) -> str:
    median = f"{_number(spread.median)}{' ' + unit if unit else ''}"
    return median if spread.lowest == spread.highest else f"{median} ({_number(spread.lowest)} to {_number(spread.highest)})"


def _number(value: float) -> str:
    """With three figures that count."""
    if abs(value) >= 100:
        return f"{value:,.0f}"
    if abs(value) >= 10:
        return f"{value:.1f}"
    return f"{value:.2f}" if abs(value) >= 1 else f"{value:.3f}"


def _head(*cells: str) -> Iterable[str]:
    return "", _row(*cells), _row(*("---" for _ in cells))


def _row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"
