"""The timeline: every kind of event says something, and bars lie where time passed."""

from datetime import UTC, datetime, timedelta

import pytest
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp
from rich.console import Console

from coordinator.cli.timeline import TimelineRow, duration, find_trace_id, render_saga, rows_of
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


@pytest.mark.parametrize(
    ("fact", "what"),
    [
        ({"saga_started": saga_pb2.SagaStarted()}, "saga accepted"),
        ({"saga_began": saga_pb2.SagaBegan()}, "start time reached"),
        ({"step_succeeded": saga_pb2.StepSucceeded(attempt=_attempt(1))}, "done"),
        ({"step_rejected": saga_pb2.StepRejected(attempt=_attempt(1), error=DOWN)}, "rejected: DOWN connection refused"),
        ({"step_unknown": saga_pb2.StepUnknown(attempt=_attempt(1), error=DOWN)}, "gave up, outcome unknown: DOWN connection refused"),
        ({"step_compensated": saga_pb2.StepCompensated(attempt=_attempt(1, undo=True), handler_ran=True)}, "undone"),
        ({"step_compensated": saga_pb2.StepCompensated(attempt=_attempt(1, undo=True))}, "nothing to undo"),
        (
            {"step_compensation_failed": saga_pb2.StepCompensationFailed(attempt=_attempt(1, undo=True), error=DOWN)},
            "cannot be undone: DOWN connection refused",
        ),
        (
            {
                "attempt_failed": saga_pb2.AttemptFailed(
                    attempt=_attempt(1, undo=True), outcome=saga_pb2.ATTEMPT_OUTCOME_UNKNOWN, error=DOWN, retry_at=_at(4)
                )
            },
            "undo unknown: DOWN connection refused; again in 2.00 s",
        ),
        (
            {"saga_turned_back": saga_pb2.SagaTurnedBack(cause=saga_pb2.TURN_BACK_CAUSE_STEP_REJECTED, step_id="charge")},
            "turned back, step rejected at charge",
        ),
        (
            {"saga_turned_back": saga_pb2.SagaTurnedBack(cause=saga_pb2.TURN_BACK_CAUSE_CANCELLED, actor="me", error=DOWN)},
            "turned back, cancelled by me: connection refused",
        ),
        (
            {
                "incident_opened": saga_pb2.IncidentOpened(
                    incident=saga_pb2.Incident(id=1, kind=saga_pb2.INCIDENT_KIND_KEY_EXPIRED, error=DOWN)
                )
            },
            "incident 1, key expired: DOWN connection refused",
        ),
        ({"saga_completed": saga_pb2.SagaCompleted()}, "saga COMPLETED"),
        ({"saga_compensated": saga_pb2.SagaCompensated()}, "saga COMPENSATED"),
        ({"saga_failed": saga_pb2.SagaFailed()}, "saga FAILED: a person is needed"),
        ({"saga_recovered": saga_pb2.SagaRecovered(in_doubt=[_attempt(1)])}, "coordinator restarted; in doubt: charge"),
        ({}, "an event newer than this program"),
    ],
)
def test_each_fact_says_what_happened(fact: dict[str, Message], what: str) -> None:
    (row,) = rows_of(_event(2, **fact))
    assert row.what == what
    assert row.at == BEGIN + timedelta(seconds=2)


def test_every_fact_of_the_contract_has_words_of_its_own() -> None:
    facts = saga_pb2.Event.DESCRIPTOR.oneofs_by_name["fact"].fields
    for field in facts:
        event = saga_pb2.Event(occurred_at=_at(0))
        getattr(event, field.name).SetInParent()
        assert all(row.mark != "·" for row in rows_of(event)), field.name


def test_attempt_keeps_when_it_was_sent() -> None:
    expected = TimelineRow(
        at=BEGIN + timedelta(seconds=2),
        what="done",
        mark="✔",
        style="green",
        step="charge",
        attempt=2,
        sent_at=BEGIN + timedelta(seconds=1),
    )
    assert rows_of(_event(2, step_succeeded=saga_pb2.StepSucceeded(attempt=_attempt(1)))) == [expected]


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
        console.print(render_saga(saga, events, now=BEGIN))
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
        console.print(render_saga(saga, [], now=BEGIN))
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
