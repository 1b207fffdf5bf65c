"""A saga with its story, drawn for a terminal."""

import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Final

from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.table import Table
from rich.text import Text

from coordinator.cli.output import printable, standing_text
from coordinator.cli.payloads import PayloadTypes
from coordinator.cli.story import Storyteller, TimelineRow
from coordinator.cli.tables import WIDE_FROM_COLUMNS
from coordinator.cli.wording import by_whom, duration, instant, plain_name, seconds_until, short_name, words_of
from saga.v1 import saga_pb2

BAR_WIDTH: Final = 24
OFFSET_WIDTH: Final = 10
"""Room for when something happened: more than a day, in seconds."""
_TRACEPARENT: Final = re.compile(r"[0-9a-f]{2}-(?P<trace_id>[0-9a-f]{32})-[0-9a-f]{16}-(?P<flags>[0-9a-f]{2})")
_SAMPLED: Final = 1
_YELLOW: Final = "yellow"
_DIM: Final = "dim"


def storyteller_of(saga: saga_pb2.Saga, types: PayloadTypes) -> Storyteller:
    """What tells the events of this saga."""
    kinds: Mapping[str, saga_pb2.StepKind.ValueType] = {step.id: step.kind for step in saga.steps}
    return Storyteller(kinds, types.to_text)


def render_saga(saga: saga_pb2.Saga, events: Sequence[saga_pb2.Event], *, now: datetime, types: PayloadTypes) -> RenderableType:
    """A saga with its timeline, for a terminal."""
    if events:
        now = max(now, instant(events[-1].occurred_at))  # a saga lives in its own time, which no clock sets back
    teller = storyteller_of(saga, types)
    rows = [row for event in events for row in teller.rows_of(event)]
    parts: list[RenderableType] = [_heading(saga, now)]
    if rows:
        parts += [Text(), _Timeline(rows, teller)]
    parts += [Text(printable(line), style=_YELLOW) for line in _standing(saga, now, types)]
    parts += [_open_incident(incident) for incident in saga.incidents if not incident.HasField("closed_at")]
    return Group(*parts)


def render_line(rows: Sequence[TimelineRow], teller: Storyteller, *, since: datetime) -> RenderableType:
    """The rows of one event for `watch`, which cannot know how wide its bars would be."""
    grid = Table.grid(padding=(0, 2))
    grid.add_column(justify="right", no_wrap=True, min_width=OFFSET_WIDTH)
    grid.add_column(overflow="fold")
    for row in rows:
        grid.add_row(Text("" if row.is_boundary else _offset(row.at, since), style=_DIM), _line(row, teller))
    return grid


def heading_of(saga: saga_pb2.Saga) -> Text:
    """Which saga it is, and how it stands."""
    definition = f"{printable(saga.definition.name)}"
    return Text.assemble((definition, "bold"), f" v{saga.definition.version}  ", (saga.id, "cyan"), "  ", standing_text(saga))


def _heading(saga: saga_pb2.Saga, now: datetime) -> RenderableType:
    created = instant(saga.created_at)
    ended = instant(saga.ended_at) if saga.HasField("ended_at") else None
    took = f"took {duration((ended - created).total_seconds())}" if ended else f"for {duration((now - created).total_seconds())}"
    facts = [f"{created:%Y-%m-%d %H:%M:%S} UTC", took]
    if saga.idempotency_key:
        facts.append(f"key {saga.idempotency_key}")
    facts += [f"{key}={value}" for key, value in sorted(saga.labels.items())]
    lines: list[RenderableType] = [heading_of(saga), Text(printable("  ".join(facts)), style=_DIM)]
    if trace_id := find_trace_id(saga.traceparent):
        lines.append(Text(f"trace {trace_id}", style=_DIM))
    return Group(*lines)


def _standing(saga: saga_pb2.Saga, now: datetime, types: PayloadTypes) -> Iterator[str]:
    """What the events do not say, or said long ago: how it stands now."""
    if saga.status == saga_pb2.SAGA_STATUS_PENDING and saga.HasField("start_at"):
        yield f"begins in {duration(seconds_until(saga.start_at, now))}, at {instant(saga.start_at):%Y-%m-%d %H:%M:%S} UTC"
    if saga.HasField("paused"):
        yield f"paused{by_whom(saga.paused.actor, saga.paused.reason)}; saga resume {saga.id}"
    if saga.HasField("turn_back_requested"):
        yield "shall turn back unless the pivot took effect"
    for step in (*saga.steps, *([saga.hook] if saga.HasField("hook") else [])):
        if line := _under_way(step, now, types):
            yield line


def _under_way(step: saga_pb2.StepResult, now: datetime, types: PayloadTypes) -> str:
    """An attempt leaves no event before it has ended. Empty if there is none."""
    status = short_name(saga_pb2.StepStatus, step.status, "STEP_STATUS_")
    match step.status:
        case saga_pb2.STEP_STATUS_ACCEPTED:
            words = f"step {step.id} is {status}: to be completed within {duration(seconds_until(step.accepted_until, now))}"
            return words + (f"; {types.to_text(step.progress)}" if step.HasField("progress") else "")
        case saga_pb2.STEP_STATUS_EXECUTING:
            attempts = step.execute_attempts
        case saga_pb2.STEP_STATUS_COMPENSATING:
            attempts = step.compensate_attempts
        case _:
            return ""
    words = f"step {step.id} is {status}, {attempts} {'attempt has' if attempts == 1 else 'attempts have'} ended"
    if step.HasField("next_attempt_at"):
        due_s = seconds_until(step.next_attempt_at, now)
        words += f", the next one {'in ' + duration(due_s) if due_s > 0 else 'is due'}"
    return words + (f"; {words_of(step.error)}" if step.HasField("error") else "")


def _open_incident(incident: saga_pb2.Incident) -> Text:
    about = incident.step_id or "the saga"
    kind = plain_name(saga_pb2.IncidentKind, incident.kind, "INCIDENT_KIND_")
    return Text(printable(f"open incident {incident.id} at {about}, {kind}: {words_of(incident.error)}"), style="bold red")


class _Timeline:
    """A table of rows, with bars where time passed; a narrow terminal shows none: what happened needs the room."""

    def __init__(self, rows: Sequence[TimelineRow], teller: Storyteller) -> None:
        self._rows: Final = rows
        self._teller: Final = teller
        self._begin: Final = min(row.sent_at or row.at for row in rows)
        self._whole_s: Final = max(1e-6, (max(row.at for row in rows) - self._begin).total_seconds())

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        has_bars = options.max_width >= WIDE_FROM_COLUMNS
        table = Table(box=None, pad_edge=False, show_header=True, header_style=_DIM, padding=(0, 1))
        table.add_column("time", justify="right", no_wrap=True)
        if has_bars:
            table.add_column("", no_wrap=True, width=BAR_WIDTH)
        table.add_column("step", no_wrap=True)
        table.add_column("try", justify="right", no_wrap=True)
        table.add_column("took", justify="right", no_wrap=True)
        table.add_column("what happened", overflow="fold")
        for row in self._rows:
            time, *rest = self._cells(row)
            table.add_row(time, *([self._bar(row)] if has_bars else []), *rest)
        yield table

    def _cells(self, row: TimelineRow) -> Iterator[Text]:
        yield Text("" if row.is_boundary else _offset(row.at, self._begin), style=_DIM)
        yield _step_text(row, self._teller)
        yield Text(str(row.attempt) if row.attempt else "", style=_DIM)
        yield Text(_took(row), style=_DIM)
        yield Text(f"{row.mark} {printable(row.what)}", style=row.style)

    def _bar(self, row: TimelineRow) -> Text:
        if row.is_boundary:
            return Text(row.mark[0] * BAR_WIDTH, style=row.style)
        start, end = (((instant - self._begin).total_seconds() / self._whole_s) for instant in (row.sent_at or row.at, row.at))
        return Text(_bar(start, end, row.mark if row.sent_at is None else ""), style=row.style)


def _bar(start: float, end: float, point: str) -> str:
    """From start to end, both shares of the whole, as blocks; a single instant as `point`."""
    first = min(int(start * BAR_WIDTH), BAR_WIDTH - 1)
    last = min(int(end * BAR_WIDTH), BAR_WIDTH - 1)
    return " " * first + (point or "█" * (last - first) or "▏")


def _line(row: TimelineRow, teller: Storyteller) -> Text:
    step = [(printable(row.step), row.style), _label(row, teller), (" ", "")] if row.step else []
    attempt = f" (try {row.attempt}{', ' + took if (took := _took(row)) else ''})" if row.attempt else ""
    return Text.assemble((f"{row.mark} ", row.style), *step, (printable(row.what), row.style), (attempt, _DIM))


def _step_text(row: TimelineRow, teller: Storyteller) -> Text:
    return Text.assemble(printable(row.step), _label(row, teller)) if row.step else Text()


def _label(row: TimelineRow, teller: Storyteller) -> tuple[str, str]:
    label = teller.label_of(row.step)
    return (f" ({label})" if label else "", _DIM)


def _took(row: TimelineRow) -> str:
    return duration((row.at - row.sent_at).total_seconds()) if row.sent_at is not None else ""


def _offset(at: datetime, begin: datetime) -> str:
    return f"+{(at - begin).total_seconds():.3f} s"


def find_trace_id(traceparent: str) -> str | None:
    """The trace id of a W3C traceparent; None if there is none or its trace is not recorded, so that nobody looks for it."""
    found = _TRACEPARENT.fullmatch(traceparent)
    return found["trace_id"] if found is not None and int(found["flags"], 16) & _SAMPLED else None
