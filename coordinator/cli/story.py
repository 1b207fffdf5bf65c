"""What happened to a saga, in plain words: from its events to rows. Pure, except that it remembers how far the story has come."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final, NamedTuple

from google.protobuf.any_pb2 import Any as PackedMessage
from google.protobuf.duration_pb2 import Duration

from coordinator.cli.wording import by_whom, duration, instant, plain_name, seconds_until, words_of
from saga.v1 import saga_pb2

HOOKS: Final = frozenset({"on_success", "on_failure"})

_KIND_LABELS: Final[Mapping[int, str]] = {
    saga_pb2.STEP_KIND_READ_ONLY: "read only",
    saga_pb2.STEP_KIND_PIVOT: "pivot",
    saga_pb2.STEP_KIND_RETRIABLE: "retriable",
    saga_pb2.STEP_KIND_BEST_EFFORT: "best effort",
}
_GREEN: Final = "green"
_RED: Final = "red"
_YELLOW: Final = "yellow"
_BLUE: Final = "blue"
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
    is_boundary: bool = False
    """True for the point of no return, which is no event, but follows from one."""


class _Words(NamedTuple):
    what: str
    mark: str
    style: str


class Storyteller:
    """Tells the events of one saga, which must come in their order: it knows whether the point of no return was passed."""

    def __init__(self, steps: Mapping[str, saga_pb2.StepKind.ValueType], payload_text: Callable[[PackedMessage], str]) -> None:
        """`steps`: the kind of each step by its id. `payload_text`: a payload in words."""
        self._kinds: Final = steps
        self._payload_text: Final = payload_text
        self._pivot: Final = next((step_id for step_id, kind in steps.items() if kind == saga_pb2.STEP_KIND_PIVOT), None)
        self._has_passed = False

    def label_of(self, step_id: str) -> str:
        """What a step is to its saga; empty for what most steps are."""
        return "hook" if step_id in HOOKS else _KIND_LABELS.get(self._kind_of(step_id), "")

    def rows_of(self, event: saga_pb2.Event) -> list[TimelineRow]:
        """The event, the steps that it settled without executing them, and the point of no return, if it lies there."""
        at = instant(event.occurred_at)
        row = self._attempt_row(event, at) or self._step_row(event, at) or _saga_row(event, at)
        return [self._with_due_steps(row, event), *self._settled_rows(event, at), *self._boundary(event, at)]

    def _kind_of(self, step_id: str) -> saga_pb2.StepKind.ValueType:
        return self._kinds.get(step_id, saga_pb2.STEP_KIND_UNSPECIFIED)

    # ── Steps ────────────────────────────────────────────────────────────────────────────────────────────────────────────────────

    def _attempt_row(self, event: saga_pb2.Event, at: datetime) -> TimelineRow | None:
        match event.WhichOneof("fact"):
            case "attempt_failed":
                return _row_of_attempt(event.attempt_failed.attempt, at, _attempt_failed(event.attempt_failed, at))
            case "step_succeeded":
                return _row_of_attempt(event.step_succeeded.attempt, at, _Words("done", "✔", _GREEN))
            case "step_rejected":
                rejected = event.step_rejected
                words = self._without(rejected.attempt, _Words(f"rejected: {words_of(rejected.error)}", "✖", _RED))
                return _row_of_attempt(rejected.attempt, at, words)
            case "step_unknown":
                unknown = event.step_unknown
                # What was never sent, or was completed by token, was not given up by anybody.
                gave_up = "gave up, " if unknown.attempt.HasField("sent_at") else ""
                words = self._without(unknown.attempt, _Words(f"{gave_up}outcome unknown: {words_of(unknown.error)}", "?", _RED))
                return _row_of_attempt(unknown.attempt, at, words)
            case "step_accepted":
                accepted = event.step_accepted
                left = duration(seconds_until(accepted.accepted_until, at))
                return _row_of_attempt(accepted.attempt, at, _Words(f"accepted, to be completed within {left}", "◔", _BLUE))
            case "step_compensated":
                compensated = event.step_compensated
                what = "undone" if compensated.handler_ran else "nothing to undo"
                return _row_of_attempt(compensated.attempt, at, _Words(what, "↩", _YELLOW))
            case "step_compensation_failed":
                failed = event.step_compensation_failed
                return _row_of_attempt(failed.attempt, at, _Words(f"cannot be undone: {words_of(failed.error)}", "✖", _RED))
            case "late_outcome":
                return _row_of_attempt(event.late_outcome.attempt, at, _late_outcome(event.late_outcome))
            case _:
                return None

    def _without(self, attempt: saga_pb2.Attempt, words: _Words) -> _Words:
        """A best-effort step that does not succeed stops nobody (R9)."""
        if self._kind_of(attempt.step_id) != saga_pb2.STEP_KIND_BEST_EFFORT:
            return words
        return _Words(f"{words.what}; the saga goes on without it", words.mark, _YELLOW)

    def _step_row(self, event: saga_pb2.Event, at: datetime) -> TimelineRow | None:
        match event.WhichOneof("fact"):
            case "step_heartbeat":
                beat = event.step_heartbeat
                progress = f": {self._payload_text(beat.progress)}" if beat.HasField("progress") else ""
                left = duration(seconds_until(beat.accepted_until, at))
                return _row(beat.step_id, at, _Words(f"still worked on{progress}; {left} left", "♥", _BLUE))
            case "step_completed_early":
                early = event.step_completed_early
                how = f"rejected: {words_of(early.rejected.error)}" if early.HasField("rejected") else "done"
                return _row(early.step_id, at, _Words(f"completed before its call was answered: {how}", "◔", _BLUE))
            case "step_retried":
                return _row(event.step_retried.step_id, at, _retried(event.step_retried))
            case "step_resolved":
                resolved = event.step_resolved
                how = resolved.WhichOneof("resolution") or "something newer than this program"
                words = _Words(f"resolved as {how}{by_whom(resolved.actor, resolved.reason)}", "☞", _YELLOW)
                return _row(resolved.step_id, at, words)
            case "step_policy_changed":
                changed = event.step_policy_changed
                words = _Words(f"policy changed{by_whom(changed.actor, changed.reason)} ({_policy(changed.policy)})", "☞", _YELLOW)
                return _row(changed.step_id, at, words)
            case _:
                return None

    # ── What follows from an event ───────────────────────────────────────────────────────────────────────────────────────────────

    def _with_due_steps(self, row: TimelineRow, event: saga_pb2.Event) -> TimelineRow:
        due = [self._named(each.step_id) for each in event.reached if each.WhichOneof("consequence") in {"input", "input_copied"}]
        if not due:
            return row
        return replace(row, what=f"{row.what} → {', '.join(due)}")

    def _named(self, step_id: str) -> str:
        return f"{step_id} ({label})" if (label := self.label_of(step_id)) else step_id

    def _settled_rows(self, event: saga_pb2.Event, at: datetime) -> Iterator[TimelineRow]:
        for each in event.reached:
            match each.WhichOneof("consequence"):
                case "left_out":
                    yield _row(each.step_id, at, _Words("left out: its condition is false", "○", _DIM))
                case "error":
                    attempt = saga_pb2.Attempt(step_id=each.step_id)
                    words = _Words(f"not executed, its expression failed: {words_of(each.error)}", "✖", _RED)
                    yield _row(each.step_id, at, self._without(attempt, words))

    def _boundary(self, event: saga_pb2.Event, at: datetime) -> Iterator[TimelineRow]:
        if self._has_passed or not self._passes(event):
            return
        self._has_passed = True
        what = "point of no return, from here only forward"
        yield TimelineRow(at=at, what=what, mark="━━━", style="bold", is_boundary=True)

    def _passes(self, event: saga_pb2.Event) -> bool:
        """Whether the saga is past its point of no return through this event (R9)."""
        if self._pivot is None:
            return any(
                self._kind_of(each.step_id) == saga_pb2.STEP_KIND_RETRIABLE and each.WhichOneof("consequence") != "left_out"
                for each in event.reached
            )
        if event.step_succeeded.attempt.step_id == self._pivot:
            return True
        resolved = event.step_resolved
        if resolved.step_id == self._pivot and resolved.WhichOneof("resolution") in {"succeeded", "skipped"}:
            return True
        return any(each.step_id == self._pivot and each.HasField("left_out") for each in event.reached)


def _attempt_failed(failed: saga_pb2.AttemptFailed, at: datetime) -> _Words:
    outcome = plain_name(saga_pb2.AttemptOutcome, failed.outcome, "ATTEMPT_OUTCOME_")
    undo = "undo " if failed.attempt.direction == saga_pb2.DIRECTION_COMPENSATE else ""
    pause = duration(max(0.0, seconds_until(failed.retry_at, at)))
    return _Words(f"{undo}{outcome}: {words_of(failed.error)}; again in {pause}", "↻", _YELLOW)


def _late_outcome(late: saga_pb2.LateOutcome) -> _Words:
    match late.WhichOneof("outcome"):
        case "output":
            said = "it took effect"
        case "compensated":
            said = "it is undone"
        case _:
            said = words_of(late.error)
    return _Words(f"said too late, changes nothing: {said}", "◌", _YELLOW)


def _retried(retried: saga_pb2.StepRetried) -> _Words:
    undo = "undo " if retried.direction == saga_pb2.DIRECTION_COMPENSATE else ""
    changed = " with another input" if retried.HasField("input") else ""
    return _Words(f"{undo}tried again{changed}{by_whom(retried.actor, retried.reason)}", "☞", _YELLOW)


def _policy(policy: saga_pb2.StepPolicy) -> str:
    parts = []
    for name, retry in (("execute", policy.execute_retry), ("compensate", policy.compensate_retry)):
        if policy.HasField("execute_retry" if name == "execute" else "compensate_retry"):
            attempts = f"at most {retry.max_attempts} attempts" if retry.max_attempts else "no limit of attempts"
            backoff = f"backoff {_length(retry.initial_backoff)} x {retry.multiplier:g} to {_length(retry.max_backoff)}"
            parts.append(f"{name}: {attempts}, {backoff}")
    if policy.HasField("attempt_timeout"):
        parts.append(f"attempt timeout {_length(policy.attempt_timeout)}")
    if policy.HasField("execute_time_limit"):
        parts.append(f"execute time limit {_length(policy.execute_time_limit)}")
    if policy.HasField("compensate_time_limit"):
        parts.append(f"recovery time limit {_length(policy.compensate_time_limit)}")
    return "; ".join(parts) or "nothing"


def _length(length: Duration) -> str:
    return duration(length.ToTimedelta().total_seconds())


# ── The whole saga ───────────────────────────────────────────────────────────────────────────────────────────────────────────────────


def _saga_row(event: saga_pb2.Event, at: datetime) -> TimelineRow:
    words = _course(event) or _incident(event) or _person(event)
    if words is None:
        words = _Words(event.WhichOneof("fact") or "an event newer than this program", "·", _DIM)
    return TimelineRow(at=at, what=words.what, mark=words.mark, style=words.style)


def _course(event: saga_pb2.Event) -> _Words | None:
    """What the coordinator decided."""
    match event.WhichOneof("fact"):
        case "saga_started":
            return _Words("saga accepted", "●", _DIM)
        case "saga_began":
            return _Words("start time reached", "●", _DIM)
        case "saga_turned_back":
            return _Words(f"turned back, {_why_back(event.saga_turned_back)}", "◀", _YELLOW)
        case "turn_back_requested":
            why = _why_back(event.turn_back_requested)
            return _Words(f"shall turn back unless the pivot took effect, {why}", "◁", _YELLOW)
        case "saga_completed":
            return _Words("saga COMPLETED", "●", _GREEN)
        case "saga_compensated":
            return _Words("saga COMPENSATED", "●", _YELLOW)
        case "saga_failed":
            return _Words("saga FAILED: a person is needed", "⚠", _RED)
        case "saga_recovered":
            in_doubt = ", ".join(attempt.step_id for attempt in event.saga_recovered.in_doubt)
            return _Words(f"coordinator restarted; in doubt: {in_doubt or 'nothing'}", "⚡", _YELLOW)
        case _:
            return None


def _incident(event: saga_pb2.Event) -> _Words | None:
    """What needs a person, or no longer does."""
    match event.WhichOneof("fact"):
        case "incident_opened":
            incident = event.incident_opened.incident
            kind = plain_name(saga_pb2.IncidentKind, incident.kind, "INCIDENT_KIND_")
            about = f" at {incident.step_id}" if incident.step_id else ""
            return _Words(f"incident {incident.id}{about}, {kind}: {words_of(incident.error)}", "⚠", _RED)
        case "incident_closed":
            closed = event.incident_closed
            return _Words(f"incident {closed.incident_id} closed{by_whom(closed.actor, closed.reason)}", "✓", _GREEN)
        case _:
            return None


def _person(event: saga_pb2.Event) -> _Words | None:
    """What a person did to the whole saga."""
    match event.WhichOneof("fact"):
        case "saga_paused":
            return _Words(f"paused{by_whom(event.saga_paused.actor, event.saga_paused.reason)}", "‖", _YELLOW)
        case "saga_resumed":
            return _Words(f"goes on, resumed{by_whom(event.saga_resumed.actor, event.saga_resumed.reason)}", "▶", _BLUE)
        case "saga_terminated":
            who = by_whom(event.saga_terminated.actor, event.saga_terminated.reason)
            return _Words(f"saga terminated{who}; nothing is undone by that", "■", _RED)
        case "output_resolved":
            return _Words(f"output given{by_whom(event.output_resolved.actor, event.output_resolved.reason)}", "☞", _YELLOW)
        case _:
            return None


def _why_back(turned_back: saga_pb2.SagaTurnedBack | saga_pb2.TurnBackRequested) -> str:
    cause = plain_name(saga_pb2.TurnBackCause, turned_back.cause, "TURN_BACK_CAUSE_")
    step = f" at {turned_back.step_id}" if turned_back.step_id else ""
    return f"{cause}{step}{by_whom(turned_back.actor, turned_back.error.message if turned_back.actor else '')}"


def _row(step_id: str, at: datetime, words: _Words) -> TimelineRow:
    return TimelineRow(at=at, what=words.what, mark=words.mark, style=words.style, step=step_id)


def _row_of_attempt(attempt: saga_pb2.Attempt, at: datetime, words: _Words) -> TimelineRow:
    return TimelineRow(
        at=at,
        what=words.what,
        mark=words.mark,
        style=words.style,
        step=attempt.step_id,
        attempt=attempt.number,
        sent_at=instant(attempt.sent_at) if attempt.HasField("sent_at") else None,
    )
