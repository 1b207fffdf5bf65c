"""What happened to a saga, as lines: pure functions from its events to rows, and from rows to a table."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from google.protobuf.timestamp_pb2 import Timestamp
from google.rpc import error_details_pb2, status_pb2
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from coordinator.cli.output import printable, short_name, status_text
from participant_sdk.rpc_errors import find_detail
from saga.v1 import saga_pb2

BAR_WIDTH: Final = 24
ERROR_CHARACTERS_MAX: Final = 200

_TRACEPARENT: Final = re.compile(r"[0-9a-f]{2}-(?P<trace_id>[0-9a-f]{32})-[0-9a-f]{16}-(?P<flags>[0-9a-f]{2})")
_SAMPLED: Final = 1
_UNDER_WAY: Final = (saga_pb2.STEP_STATUS_EXECUTING, saga_pb2.STEP_STATUS_COMPENSATING)
_GREEN: Final = "green"
_RED: Final = "red"
_YELLOW: Final = "yellow"
_DIM: Final = "dim"


@dataclass(frozen=True, slots=True, kw_only=True)
class TimelineRow:
    """One event for people."""

    at: datetime
    what: str
    mark: str
    style: str
    step: str = ""
    """Empty when it is about the whole saga."""
    attempt: int = 0
    """Its number; 0 when it is about no attempt."""
    sent_at: datetime | None = None
    """When the attempt was handed to the network; None if there was none, or it never was."""


def rows_of(event: saga_pb2.Event) -> list[TimelineRow]:
    """The rows of one event: one, or one per attempt in doubt after a crash."""
    at = _instant(event.occurred_at)
    match event.WhichOneof("fact"):
        case "attempt_failed":
            return [_attempt_failed(event.attempt_failed, at)]
        case "step_succeeded":
            return [_attempt_row(event.step_succeeded.attempt, at, "done", mark="✔", style=_GREEN)]
        case "step_rejected":
            rejected = event.step_rejected
            return [_attempt_row(rejected.attempt, at, f"rejected: {_words(rejected.error)}", mark="✖", style=_RED)]
        case "step_unknown":
            unknown = event.step_unknown
            return [_attempt_row(unknown.attempt, at, f"gave up, outcome unknown: {_words(unknown.error)}", mark="?", style=_RED)]
        case "step_compensated":
            compensated = event.step_compensated
            what = "undone" if compensated.handler_ran else "nothing to undo"
            return [_attempt_row(compensated.attempt, at, what, mark="↩", style=_YELLOW)]
        case "step_compensation_failed":
            failed = event.step_compensation_failed
            return [_attempt_row(failed.attempt, at, f"cannot be undone: {_words(failed.error)}", mark="✖", style=_RED)]
        case _:
            return [_saga_row(event, at)]


def _attempt_failed(failed: saga_pb2.AttemptFailed, at: datetime) -> TimelineRow:
    outcome = short_name(saga_pb2.AttemptOutcome, failed.outcome, "ATTEMPT_OUTCOME_").lower().replace("_", " ")
    pause_s = max(0.0, (_instant(failed.retry_at) - at).total_seconds())
    undo = "undo " if failed.attempt.direction == saga_pb2.DIRECTION_COMPENSATE else ""
    what = f"{undo}{outcome}: {_words(failed.error)}; again in {duration(pause_s)}"
    return _attempt_row(failed.attempt, at, what, mark="↻", style=_YELLOW)


def _attempt_row(attempt: saga_pb2.Attempt, at: datetime, what: str, *, mark: str, style: str) -> TimelineRow:
    return TimelineRow(
        at=at,
        what=what,
        mark=mark,
        style=style,
        step=attempt.step_id,
        attempt=attempt.number,
        sent_at=_instant(attempt.sent_at) if attempt.HasField("sent_at") else None,
    )


def _saga_row(event: saga_pb2.Event, at: datetime) -> TimelineRow:
    match event.WhichOneof("fact"):
        case "saga_started":
            what, mark, style = "saga accepted", "●", _DIM
        case "saga_began":
            what, mark, style = "start time reached", "●", _DIM
        case "saga_turned_back":
            what, mark, style = _why_back(event.saga_turned_back), "◀", _YELLOW
        case "incident_opened":
            incident = event.incident_opened.incident
            kind = short_name(saga_pb2.IncidentKind, incident.kind, "INCIDENT_KIND_").lower().replace("_", " ")
            what, mark, style = f"incident {incident.id}, {kind}: {_words(incident.error)}", "⚠", _RED
        case "saga_completed":
            what, mark, style = "saga COMPLETED", "●", _GREEN
        case "saga_compensated":
            what, mark, style = "saga COMPENSATED", "●", _YELLOW
        case "saga_failed":
            what, mark, style = "saga FAILED: a person is needed", "⚠", _RED
        case "saga_recovered":
            in_doubt = ", ".join(attempt.step_id for attempt in event.saga_recovered.in_doubt)
            what, mark, style = f"coordinator restarted; in doubt: {in_doubt or 'nothing'}", "⚡", _YELLOW
        case unknown:
            what, mark, style = f"{unknown or 'an event newer than this program'}", "·", _DIM
    return TimelineRow(at=at, what=what, mark=mark, style=style)


def _why_back(turned_back: saga_pb2.SagaTurnedBack) -> str:
    cause = short_name(saga_pb2.TurnBackCause, turned_back.cause, "TURN_BACK_CAUSE_").lower().replace("_", " ")
    step = f" at {turned_back.step_id}" if turned_back.step_id else ""
    actor = f" by {turned_back.actor}" if turned_back.actor else ""
    words = f": {turned_back.error.message}" if actor and turned_back.error.message else ""
    return f"turned back, {cause}{step}{actor}{words}"


def render_saga(saga: saga_pb2.Saga, events: Sequence[saga_pb2.Event], *, now: datetime) -> RenderableType:
    """A saga with its timeline, for a terminal."""
    parts: list[RenderableType] = [_heading(saga, now)]
    if events:
        parts.append(Text())
        parts.append(_timeline([row for event in events for row in rows_of(event)]))
    parts.extend(_under_way(step, now) for step in saga.steps if step.status in _UNDER_WAY)
    parts.extend(_open_incident(incident) for incident in saga.incidents)
    return Group(*parts)


def render_line(event: saga_pb2.Event, *, since: datetime) -> RenderableType:
    """The rows of one event for `watch`, which cannot know how wide its bars would be."""
    return Group(*(_line(row, since) for row in rows_of(event)))


def _heading(saga: saga_pb2.Saga, now: datetime) -> RenderableType:
    title = Text.assemble(
        (printable(saga.definition.name), "bold"), f" v{saga.definition.version}  ", (saga.id, "cyan"), "  ", status_text(saga.status)
    )
    created = _instant(saga.created_at)
    ended = _instant(saga.ended_at) if saga.HasField("ended_at") else None
    took = f"took {duration((ended - created).total_seconds())}" if ended else f"for {duration((now - created).total_seconds())}"
    facts = [f"{created:%Y-%m-%d %H:%M:%S} UTC", took]
    if saga.idempotency_key:
        facts.append(f"key {saga.idempotency_key}")
    facts += [f"{key}={value}" for key, value in sorted(saga.labels.items())]
    lines: list[RenderableType] = [title, Text(printable("  ".join(facts)), style=_DIM)]
    if trace_id := find_trace_id(saga.traceparent):
        lines.append(Text(f"trace {trace_id}", style=_DIM))
    return Group(*lines)


def _under_way(step: saga_pb2.StepResult, now: datetime) -> Text:
    """What the events do not say: an attempt leaves none before it has ended."""
    attempts = step.compensate_attempts if step.status == saga_pb2.STEP_STATUS_COMPENSATING else step.execute_attempts
    words = f"step {step.id} is {short_name(saga_pb2.StepStatus, step.status, 'STEP_STATUS_')}, {attempts} attempts have ended"
    if step.HasField("next_attempt_at"):
        due_s = (_instant(step.next_attempt_at) - now).total_seconds()
        words += f", the next one {'in ' + duration(due_s) if due_s > 0 else 'is due'}"
    if step.HasField("error"):
        words += f"; {_words(step.error)}"
    return Text(printable(words), style=_YELLOW)


def _open_incident(incident: saga_pb2.Incident) -> Text:
    about = incident.step_id or "the saga"
    return Text(printable(f"open incident {incident.id} at {about}: {_words(incident.error)}"), style="bold red")


def _timeline(rows: Sequence[TimelineRow]) -> RenderableType:
    begin = min(row.sent_at or row.at for row in rows)
    whole_s = max(1e-6, (max(row.at for row in rows) - begin).total_seconds())
    table = Table(box=None, pad_edge=False, show_header=True, header_style=_DIM, padding=(0, 1))
    table.add_column("time", justify="right", no_wrap=True)
    table.add_column("", no_wrap=True, width=BAR_WIDTH)
    table.add_column("step", no_wrap=True)
    table.add_column("try", justify="right", no_wrap=True)
    table.add_column("took", justify="right", no_wrap=True)
    table.add_column("what happened", overflow="fold")
    for row in rows:
        sent_at = row.sent_at or row.at
        start, end = ((instant - begin).total_seconds() / whole_s for instant in (sent_at, row.at))
        table.add_row(
            Text(_offset(row.at, begin), style=_DIM),
            Text(_bar(start, end, row.mark if row.sent_at is None else ""), style=row.style),
            Text(printable(row.step)),
            Text(str(row.attempt) if row.attempt else "", style=_DIM),
            Text(_took(row), style=_DIM),
            Text(f"{row.mark} {printable(row.what)}", style=row.style),
        )
    return table


def _bar(start: float, end: float, point: str) -> str:
    """From start to end, both shares of the whole, as blocks; a single instant as `point`."""
    first = min(int(start * BAR_WIDTH), BAR_WIDTH - 1)
    last = min(int(end * BAR_WIDTH), BAR_WIDTH - 1)
    return " " * first + (point or "█" * (last - first) or "▏")


def _line(row: TimelineRow, since: datetime) -> Text:
    step = f"{printable(row.step)} " if row.step else ""
    attempt = f"(try {row.attempt}{', ' + took if (took := _took(row)) else ''}) " if row.attempt else ""
    return Text.assemble(
        (f"{_offset(row.at, since):>10}  ", _DIM), (f"{row.mark} {step}{printable(row.what)} ", row.style), (attempt, _DIM)
    )


def _took(row: TimelineRow) -> str:
    return duration((row.at - row.sent_at).total_seconds()) if row.sent_at is not None else ""


def _offset(at: datetime, begin: datetime) -> str:
    return f"+{(at - begin).total_seconds():.3f} s"


def duration(seconds: float) -> str:
    """Seconds in the unit that reads well: "12 ms", "1.24 s", "3 min 5 s", "2 d 4 h"."""
    if seconds < 0.9995:
        return f"{max(0.0, seconds) * 1000:.0f} ms"
    if seconds < 59.995:
        return f"{seconds:.2f} s"
    whole = round(seconds)
    for name, size, smaller_name, smaller in (("d", 86400, "h", 3600), ("h", 3600, "min", 60), ("min", 60, "s", 1)):
        if whole >= size:
            return f"{whole // size} {name} {whole % size // smaller} {smaller_name}"
    return f"{whole} s"


def find_trace_id(traceparent: str) -> str | None:
    """The trace id of a W3C traceparent; None if there is none or its trace is not recorded, so that nobody looks for it."""
    found = _TRACEPARENT.fullmatch(traceparent)
    return found["trace_id"] if found is not None and int(found["flags"], 16) & _SAMPLED else None


def _words(error: status_pb2.Status) -> str:
    info = find_detail(error, error_details_pb2.ErrorInfo)
    text = error.message[:ERROR_CHARACTERS_MAX]
    if info is not None and info.reason:
        return f"{info.reason} {text}" if text and text != info.reason else info.reason
    return text or f"code {error.code}"


def _instant(timestamp: Timestamp) -> datetime:
    return timestamp.ToDatetime(tzinfo=UTC)
