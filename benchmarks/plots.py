"""Results as pictures: `python -m benchmarks.plots build/bench/results.json docs/performance`.

Needs matplotlib and nothing that the project depends on: it runs in an environment of its own.
"""

import math
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final

import matplotlib as mpl
import matplotlib.pyplot as plt
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from benchmarks.arms import ARMS, CLOSED, OPEN, Arm
from benchmarks.measured_run import Run
from benchmarks.results import Results, Spread, per_s

OURS, PEER, LIMIT, SLOWEST = "#1b6ca8", "#b8b8b8", "#dbe7f1", "#d1603d"
ROLES: Final = {
    "client": "client",
    "coordinator": "coordinator or server",
    "server": "coordinator or server",
    "participants": "participants or workers",
    "service": "participants or workers",
    "worker": "participants or workers",
    "postgres": "PostgreSQL",
    "application": "all in one process",
    "collector": "collector of traces",
}
"""What the processes of drivers are, by the names that drivers give them."""
OTHER_ROLE: Final = "other"
COLOURS: Final = {
    "client": "#9ecae1",
    "coordinator or server": "#1b6ca8",
    "participants or workers": "#f2a541",
    "PostgreSQL": "#6a51a3",
    "all in one process": "#74a57f",
    "collector of traces": "#cccccc",
    OTHER_ROLE: "#8c8c8c",
}
SIZES: Final = (64, 256)
LINES: Final = ("ours", "ours-compensated", "ours-postgres", "restate", "dbos-postgres", "ceiling")
"""Arms whose latency is drawn over the concurrency."""
DPI: Final = 130
DWARFING: Final = 3.0
STYLE: Final = {
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlelocation": "left",
    "axes.titlesize": 11,
    "legend.frameon": False,
    "figure.constrained_layout.use": True,
}
_PLAIN: Final = FuncFormatter(lambda value, _: f"{value:,.0f}" if value >= 1 else f"{value:g}")


def main(results: Results, folder: Path) -> None:
    """Draws each picture for which there are results."""
    folder.mkdir(parents=True, exist_ok=True)
    mpl.rcParams.update(STYLE)
    draw_throughput(results, folder / "throughput.png")
    draw_latency(results, folder / "latency.png")
    draw_processor_time(results, folder / "processor-time.png")
    draw_open_loop(results, folder / "open-loop.png")


def draw_throughput(results: Results, path: Path) -> None:
    """Sagas per second by arm, a panel for each concurrency."""
    panels = {size: [arm for arm in _measured(results, CLOSED) if arm.size == size] for size in SIZES}
    panels = {size: arms for size, arms in panels.items() if arms}
    if not panels:
        return
    heights = [len(arms) + 1.5 for arms in panels.values()]
    figure, axes = plt.subplots(len(panels), 1, figsize=(8.5, 0.28 * sum(heights) + 0.6), height_ratios=heights, squeeze=False, sharex=True)
    for panel, (size, arms) in zip(axes[:, 0], panels.items(), strict=True):
        ordered = sorted(arms, key=lambda arm: _spread(results, arm, per_s).median)
        _bars(panel, [arm.label for arm in ordered], [_spread(results, arm, per_s) for arm in ordered], [_colour(arm) for arm in ordered])
        panel.set_title(f"{size} sagas in flight")
    measured = [_spread(results, arm, per_s) for arms in panels.values() for arm in arms]
    _in_decades(axes[-1, 0], min(spread.lowest for spread in measured), max(spread.highest for spread in measured))
    axes[-1, 0].set_xlabel("sagas per second (logarithmic), with the lowest and the highest run", loc="right")
    _save(figure, path)


def _bars(panel: Any, labels: Sequence[str], spreads: Sequence[Spread], colours: Sequence[str]) -> None:
    places = range(len(labels))
    panel.barh(places, [spread.median for spread in spreads], color=colours, height=0.7)
    panel.hlines(places, [spread.lowest for spread in spreads], [spread.highest for spread in spreads], color="#333333", linewidth=1)
    panel.set_yticks(places, labels)
    panel.margins(y=0.02)
    for place, spread in zip(places, spreads, strict=True):
        panel.annotate(f"{spread.median:,.0f}", (spread.highest, place), xytext=(4, 0), textcoords="offset points", va="center", size=9)
    panel.tick_params(axis="y", length=0)


def _in_decades(panel: Any, lowest: float, highest: float) -> None:
    """A logarithmic axis from a power of ten below, with room for a number on the right."""
    panel.set_xscale("log")
    panel.xaxis.set_major_formatter(_PLAIN)
    panel.xaxis.set_minor_formatter(NullFormatter())
    panel.set_xlim(10 ** math.floor(math.log10(lowest * 0.7)), highest * 2.2)


def draw_latency(results: Results, path: Path) -> None:
    """The median latency over the concurrency, and the 99th percentile thinly."""
    measured = _measured(results, CLOSED)
    lines = {name: [arm for arm in measured if arm.name == f"{name}-{arm.size}"] for name in LINES}
    lines = {name: sorted(arms, key=lambda arm: arm.size) for name, arms in lines.items() if arms}
    if not lines:
        return
    figure, panel = plt.subplots(figsize=(7, 4.4))
    for number, arms in enumerate(lines.values()):
        sizes, colour = [arm.size for arm in arms], mpl.colormaps["tab10"](number)
        panel.plot(sizes, [_spread(results, arm, _p50).median for arm in arms], "o-", color=colour, label=arms[0].label, markersize=4)
        panel.plot(sizes, [_spread(results, arm, _p99).median for arm in arms], "o:", color=colour, linewidth=1, markersize=3)
    panel.set_xscale("log", base=2)
    _milliseconds(panel)
    panel.xaxis.set_major_formatter(_PLAIN)
    panel.set_xticks(sorted({arm.size for arms in lines.values() for arm in arms}))
    panel.set_xlabel("sagas in flight")
    panel.set_title("From start to end of a saga: the median, and dotted the 99th percentile")
    panel.legend(loc="upper left", fontsize=9)
    _save(figure, path)


def draw_processor_time(results: Results, path: Path) -> None:
    """Processor time per saga, stacked by process."""
    arms = [arm for arm in _measured(results, CLOSED) if arm.size == SIZES[0]]
    if not arms:
        return
    arms.sort(key=lambda arm: -sum(_process_ms(results, arm).values()))
    figure, panel = plt.subplots(figsize=(8.5, 0.32 * len(arms) + 1.4))
    left = [0.0] * len(arms)
    for name, colour in COLOURS.items():
        widths = [_process_ms(results, arm).get(name, 0.0) for arm in arms]
        if any(widths):
            panel.barh(range(len(arms)), widths, left=left, color=colour, label=name, height=0.7)
            left = [start + width for start, width in zip(left, widths, strict=True)]
    edge = 1.12 * _largest_shown(left)
    for place, total in enumerate(left):
        text, at, colour = (f"{total:.2f}", total, "black") if total <= edge else (f"{total:,.0f} →", 0.92 * edge, "white")
        panel.annotate(text, (at, place), xytext=(4, 0), textcoords="offset points", va="center", size=9, color=colour)
    panel.set_xlim(0, edge)
    panel.set_yticks(range(len(arms)), [arm.label for arm in arms])
    panel.tick_params(axis="y", length=0)
    panel.margins(y=0.02)
    panel.set_xlabel("processor time per saga in milliseconds")
    panel.set_title(f"{SIZES[0]} sagas in flight")
    panel.legend(loc="upper right", fontsize=9)
    _save(figure, path)


def _largest_shown(totals: Sequence[float]) -> float:
    """The largest that does not dwarf the others: bars beyond it go over the edge, with an arrow."""
    ordered = sorted(totals)
    while len(ordered) > 1 and ordered[-1] > DWARFING * ordered[-2]:
        ordered.pop()
    return ordered[-1]


def draw_open_loop(results: Results, path: Path) -> None:
    """Latency by rate."""
    arms = sorted(_measured(results, OPEN), key=lambda arm: arm.size)
    if not arms:
        return
    figure, panel = plt.subplots(figsize=(6, 3.6))
    rates = [arm.size for arm in arms]
    for number, (label, of) in enumerate({"99th percentile": _p99, "median": _p50}.items()):
        spreads, colour = [_spread(results, arm, of) for arm in arms], (SLOWEST, OURS)[number]
        panel.plot(rates, [spread.median for spread in spreads], "o-", color=colour, label=label, markersize=4)
        panel.fill_between(
            rates, [each.lowest for each in spreads], [each.highest for each in spreads], color=colour, alpha=0.15, linewidth=0
        )
    panel.set_xscale("log")
    _milliseconds(panel)
    panel.xaxis.set_major_formatter(_PLAIN)
    panel.xaxis.set_minor_formatter(NullFormatter())
    panel.set_xticks(rates)
    panel.set_xlabel("sagas started per second")
    panel.set_title("Open loop: from when a saga was due to its end")
    panel.legend(loc="upper left", fontsize=9)
    _save(figure, path)


def _milliseconds(panel: Any) -> None:
    """A logarithmic axis with 1, 2 and 5 of each decade."""
    panel.set_yscale("log")
    panel.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    panel.yaxis.set_major_formatter(_PLAIN)
    panel.yaxis.set_minor_formatter(NullFormatter())
    panel.set_ylabel("milliseconds")


def _measured(results: Results, kind: str) -> list[Arm]:
    return [arm for arm in ARMS if arm.kind == kind and results.runs(arm.name)]


def _spread(results: Results, arm: Arm, of: Callable[[Run], float]) -> Spread:
    spread = results.spread(arm.name, of)
    assert spread is not None, "only arms that were measured are drawn"
    return spread


def _process_ms(results: Results, arm: Arm) -> dict[str, float]:
    """By role: the medians of each process, added."""
    by_role: dict[str, float] = {}
    for name in results.runs(arm.name)[0].processor_ms:
        role = ROLES.get(name, OTHER_ROLE)
        by_role[role] = by_role.get(role, 0.0) + _spread(results, arm, partial(_spent_by, name)).median
    return by_role


def _spent_by(name: str, run: Run) -> float:
    return run.processor_ms.get(name, 0.0)


def _p50(run: Run) -> float:
    return run.p50_ms


def _p99(run: Run) -> float:
    return run.p99_ms


def _colour(arm: Arm) -> str:
    return LIMIT if arm.driver == "ceiling" else OURS if arm.driver == "ours" else PEER


def _save(figure: Any, path: Path) -> None:
    figure.savefig(path, dpi=DPI)
    plt.close(figure)


if __name__ == "__main__":
    main(Results.load(Path(sys.argv[1])), Path(sys.argv[2]))
