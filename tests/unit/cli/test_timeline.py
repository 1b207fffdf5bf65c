"""A saga drawn for a terminal: bars lie where time passed, and what is not in its events is said."""

from datetime import UTC, datetime, timedelta

import pytest
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp
from google.protobuf.wrappers_pb2 import StringValue
from rich.console import Console

from coordinator.cli.payloads import PayloadTypes
from coordinator.cli.timeline import find_trace_id, render_line, render_saga, storyteller_of
from coordinator.cli.wording import duration
from participant_sdk.rpc_errors import error_details, status_with
from saga.v1 import saga_pb2

BEGIN = datetime(2030, 1, 1, tzinfo=UTC)
DOWN = status_with(14, "connection refused", error_details("DOWN"))


def _at(seconds: float) -> Timestamp:
    timestamp = Timestamp()
    timestamp.FromDatetime(BEGIN + timedelta(seconds=seconds))
    return timestamp


def _event(seconds: float, **fact: Message) -> saga_pb2.Event:
    return saga_pb2.Event(saga_id="x", sequence=1, occurred_at=_at(seconds), **fact)  # type: ignore[arg-type]


def _attempt(sent: float | None, *, undo: bool = False) -> saga_pb2.Attempt:
    direction = saga_pb2.DIRECTION_COMPENSATE if undo else saga_pb2.DIRECTION_EXECUTE
    return saga_pb2.Attempt(step_id="charge", number=2, direction=direction, sent_at=_at(sent) if sent is not None else None)


def test_bars_lie_where_time_passed() -> None:
    saga = saga_pb2.Saga(
        id="x",
        definition=saga_pb2.DefinitionReference(name="place-order", version=1),
        status=saga_pb2.SAGA_STATUS_COMPLETED,
        created_at=_at(0),
        ended_at=_at(4),
    )
    events = [
        _event(0, saga_started=saga_pb2.SagaStarted()),
        _event(2, step_succeeded=saga_pb2.StepSucceeded(attempt=_attempt(0))),
        _event(4, step_succeeded=saga_pb2.StepSucceeded(attempt=_attempt(2))),
    ]
    console = Console(width=120, no_color=True)
    with console.capture() as captured:
        console.print(render_saga(saga, events, now=BEGIN, types=PayloadTypes()))
    lines = [line.rstrip() for line in captured.get().splitlines()]
    assert lines[0] == "place-order v1  x  COMPLETED"
    assert lines[1] == "2030-01-01 00:00:00 UTC  took 4.00 s"
    first, second = lines[-2:]
    assert first.index("█") < second.index("█")
    assert first.count("█") == 12
    assert second.count("█") == 11


def test_step_under_way_says_what_it_waits_for() -> None:
    step = saga_pb2.StepResult(id="charge", status=saga_pb2.STEP_STATUS_EXECUTING, execute_attempts=3, error=DOWN, next_attempt_at=_at(2))
    saga = saga_pb2.Saga(id="x", status=saga_pb2.SAGA_STATUS_RUNNING, created_at=_at(0), steps=[step])
    console = Console(width=160, no_color=True)
    with console.capture() as captured:
        console.print(render_saga(saga, [], now=BEGIN, types=PayloadTypes()))
    expected = "step charge is EXECUTING, 3 attempts have ended, the next one in 2.00 s; DOWN connection refused"
    assert captured.get().splitlines()[-1].rstrip() == expected


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(-1, "0 ms"), (0.0124, "12 ms"), (0.9999, "1.00 s"), (59.99, "59.99 s"), (60, "1 min 0 s"), (3725, "1 h 2 min"), (190_000, "2 d 4 h")],
)
def test_duration_reads_well(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_trace_id_is_told_only_when_the_trace_is_recorded() -> None:
    assert find_trace_id(f"00-{'a' * 32}-{'b' * 16}-01") == "a" * 32
    assert find_trace_id(f"00-{'a' * 32}-{'b' * 16}-00") is None
    assert find_trace_id("") is None


def _drawn(saga: saga_pb2.Saga, events: list[saga_pb2.Event], *, width: int) -> list[str]:
    console = Console(width=width, no_color=True)
    with console.capture() as captured:
        console.print(render_saga(saga, events, now=BEGIN, types=PayloadTypes()))
    return [line.rstrip() for line in captured.get().splitlines()]


def _with_pivot() -> tuple[saga_pb2.Saga, list[saga_pb2.Event]]:
    steps = [saga_pb2.StepResult(id="charge", kind=saga_pb2.STEP_KIND_PIVOT, status=saga_pb2.STEP_STATUS_SUCCEEDED)]
    saga = saga_pb2.Saga(id="x", status=saga_pb2.SAGA_STATUS_RUNNING, created_at=_at(0), steps=steps)
    events = [
        _event(0, saga_started=saga_pb2.SagaStarted()),
        _event(2, step_succeeded=saga_pb2.StepSucceeded(attempt=_attempt(0))),
    ]
    return saga, events


def test_wide_terminal_shows_bars_and_the_point_of_no_return_across_them() -> None:
    saga, events = _with_pivot()
    *_, done, boundary = _drawn(saga, events, width=120)
    assert "█" in done
    assert "charge (pivot)" in done
    assert "━" * 24 in boundary
    assert boundary.endswith("━━━ point of no return, from here only forward")


def test_narrow_terminal_shows_no_bars_but_every_word() -> None:
    saga, events = _with_pivot()
    lines = _drawn(saga, events, width=80)
    assert all(len(line) <= 80 for line in lines)
    assert not any("█" in line for line in lines)
    assert "charge (pivot)" in lines[-3]
    assert " ".join(" ".join(lines[-2:]).split()) == "━━━ point of no return, from here only forward"


def test_line_of_an_event_is_indented_where_it_wraps() -> None:
    saga, events = _with_pivot()
    events[1].step_succeeded.attempt.step_id = "a" * 20
    console = Console(width=40, no_color=True)
    with console.capture() as captured:
        teller = storyteller_of(saga, PayloadTypes())
        console.print(render_line(teller.rows_of(events[1]), teller, since=BEGIN))
    first, *others = captured.get().splitlines()
    assert first.startswith("  +2.000 s  ✔ aaa")
    assert others
    assert all(line.startswith(" " * 12) for line in others)


def test_what_stands_still_is_said_below_the_events() -> None:
    accepted = saga_pb2.StepResult(id="approve", status=saga_pb2.STEP_STATUS_ACCEPTED, accepted_until=_at(60))
    accepted.progress.Pack(StringValue(value="2 of 3"))
    hook = saga_pb2.StepResult(id="on_success", status=saga_pb2.STEP_STATUS_EXECUTING, execute_attempts=1, next_attempt_at=_at(-1))
    saga = saga_pb2.Saga(
        id="x",
        status=saga_pb2.SAGA_STATUS_PENDING,
        created_at=_at(0),
        start_at=_at(3600),
        steps=[accepted],
        hook=hook,
        paused=saga_pb2.PersonAction(actor="ann", reason="move"),
        turn_back_requested=saga_pb2.TurnBackRequested(),
        needs_person=True,
        incidents=[
            saga_pb2.Incident(id=1, kind=saga_pb2.INCIDENT_KIND_PIVOT_UNKNOWN, step_id="charge", error=DOWN, closed_at=_at(1)),
            saga_pb2.Incident(id=2, kind=saga_pb2.INCIDENT_KIND_HOOK_FAILED, step_id="on_success", error=DOWN),
        ],
    )
    heading, _, *lines = _drawn(saga, [], width=160)
    assert heading.endswith("PENDING paused turn-back requested needs a person")
    assert lines == [
        "begins in 1 h 0 min, at 2030-01-01 01:00:00 UTC",
        "paused by ann: move; saga resume x",
        "shall turn back unless the pivot took effect",
        'step approve is ACCEPTED: to be completed within 1 min 0 s; "2 of 3"',
        "step on_success is EXECUTING, 1 attempt has ended, the next one is due",
        "open incident 2 at on_success, hook failed: DOWN connection refused",
    ]


def test_terminated_saga_says_so() -> None:
    saga = saga_pb2.Saga(id="x", status=saga_pb2.SAGA_STATUS_FAILED, created_at=_at(0), needs_person=True)
    saga.terminated.actor = "ann"
    assert _drawn(saga, [], width=120)[0].endswith("FAILED terminated")
