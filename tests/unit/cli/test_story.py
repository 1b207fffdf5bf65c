"""The story: every kind of event says something in plain words, and the point of no return stands where it lies."""

from datetime import UTC, datetime, timedelta

import pytest
from google.protobuf.any_pb2 import Any as PackedMessage
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp
from google.protobuf.wrappers_pb2 import StringValue

from coordinator.cli.payloads import PayloadTypes
from coordinator.cli.story import Storyteller, TimelineRow
from participant_sdk.rpc_errors import error_details, status_with
from saga.v1 import saga_pb2
from shop.v1.shop_pb2 import PlaceOrder

BEGIN = datetime(2030, 1, 1, tzinfo=UTC)
DOWN = status_with(14, "connection refused", error_details("DOWN"))
KINDS = {
    "reserve": saga_pb2.STEP_KIND_COMPENSATABLE,
    "charge": saga_pb2.STEP_KIND_PIVOT,
    "ship": saga_pb2.STEP_KIND_RETRIABLE,
    "survey": saga_pb2.STEP_KIND_BEST_EFFORT,
    "quote": saga_pb2.STEP_KIND_READ_ONLY,
}


def _teller(*, without: str = "") -> Storyteller:
    return Storyteller({step: kind for step, kind in KINDS.items() if step != without}, PayloadTypes().to_text)


def _at(seconds: float) -> Timestamp:
    timestamp = Timestamp()
    timestamp.FromDatetime(BEGIN + timedelta(seconds=seconds))
    return timestamp


def _event(seconds: float, *reached: saga_pb2.StepReached, **fact: Message) -> saga_pb2.Event:
    return saga_pb2.Event(saga_id="x", sequence=1, occurred_at=_at(seconds), reached=reached, **fact)  # type: ignore[arg-type]


def _attempt(sent: float | None, step: str = "reserve", *, undo: bool = False) -> saga_pb2.Attempt:
    direction = saga_pb2.DIRECTION_COMPENSATE if undo else saga_pb2.DIRECTION_EXECUTE
    return saga_pb2.Attempt(step_id=step, number=2, direction=direction, sent_at=_at(sent) if sent is not None else None)


def _due(step: str) -> saga_pb2.StepReached:
    return saga_pb2.StepReached(step_id=step, input_copied=saga_pb2.InputCopied())


def _left_out(step: str) -> saga_pb2.StepReached:
    return saga_pb2.StepReached(step_id=step, left_out=saga_pb2.StepLeftOut())


def _unfit(step: str) -> saga_pb2.StepReached:
    return saga_pb2.StepReached(step_id=step, error=status_with(3, "no such key"))


def _heartbeat() -> saga_pb2.StepHeartbeat:
    beat = saga_pb2.StepHeartbeat(step_id="reserve", accepted_until=_at(62))
    beat.progress.Pack(StringValue(value="2 of 3"))
    return beat


def _incident(step: str = "") -> saga_pb2.IncidentOpened:
    incident = saga_pb2.Incident(id=1, kind=saga_pb2.INCIDENT_KIND_KEY_EXPIRED, step_id=step, error=DOWN)
    return saga_pb2.IncidentOpened(incident=incident)


@pytest.mark.parametrize(
    ("fact", "what"),
    [
        ({"saga_started": saga_pb2.SagaStarted()}, "saga accepted"),
        ({"saga_began": saga_pb2.SagaBegan()}, "start time reached"),
        ({"step_succeeded": saga_pb2.StepSucceeded(attempt=_attempt(1))}, "done"),
        ({"step_rejected": saga_pb2.StepRejected(attempt=_attempt(1), error=DOWN)}, "rejected: DOWN connection refused"),
        ({"step_unknown": saga_pb2.StepUnknown(attempt=_attempt(1), error=DOWN)}, "gave up, outcome unknown: DOWN connection refused"),
        ({"step_unknown": saga_pb2.StepUnknown(attempt=_attempt(None), error=DOWN)}, "outcome unknown: DOWN connection refused"),
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
        ({"incident_opened": _incident()}, "incident 1, key expired: DOWN connection refused"),
        ({"incident_opened": _incident("charge")}, "incident 1 at charge, key expired: DOWN connection refused"),
        ({"incident_closed": saga_pb2.IncidentClosed(incident_id=1)}, "incident 1 closed"),
        (
            {"incident_closed": saga_pb2.IncidentClosed(incident_id=1, actor="ann", reason="refunded")},
            "incident 1 closed by ann: refunded",
        ),
        ({"saga_completed": saga_pb2.SagaCompleted()}, "saga COMPLETED"),
        ({"saga_compensated": saga_pb2.SagaCompensated()}, "saga COMPENSATED"),
        ({"saga_failed": saga_pb2.SagaFailed()}, "saga FAILED: a person is needed"),
        ({"saga_recovered": saga_pb2.SagaRecovered(in_doubt=[_attempt(1)])}, "coordinator restarted; in doubt: reserve"),
        (
            {"step_accepted": saga_pb2.StepAccepted(attempt=_attempt(1), accepted_until=_at(62))},
            "accepted, to be completed within 1 min 0 s",
        ),
        ({"step_heartbeat": _heartbeat()}, 'still worked on: "2 of 3"; 1 min 0 s left'),
        (
            {"step_heartbeat": saga_pb2.StepHeartbeat(step_id="reserve", accepted_until=_at(62))},
            "still worked on; 1 min 0 s left",
        ),
        ({"step_completed_early": saga_pb2.StepCompletedEarly(output=PackedMessage())}, "completed before its call was answered: done"),
        (
            {"step_completed_early": saga_pb2.StepCompletedEarly(rejected=saga_pb2.CompletionRejected(error=DOWN))},
            "completed before its call was answered: rejected: DOWN connection refused",
        ),
        (
            {"late_outcome": saga_pb2.LateOutcome(attempt=_attempt(1), output=PackedMessage())},
            "said too late, changes nothing: it took effect",
        ),
        (
            {"late_outcome": saga_pb2.LateOutcome(attempt=_attempt(1), compensated=saga_pb2.LateCompensation())},
            "said too late, changes nothing: it is undone",
        ),
        (
            {"late_outcome": saga_pb2.LateOutcome(attempt=_attempt(1), error=DOWN)},
            "said too late, changes nothing: DOWN connection refused",
        ),
        (
            {"turn_back_requested": saga_pb2.TurnBackRequested(cause=saga_pb2.TURN_BACK_CAUSE_CANCELLED, actor="me", error=DOWN)},
            "shall turn back unless the pivot took effect, cancelled by me: connection refused",
        ),
        ({"saga_paused": saga_pb2.SagaPaused(actor="ann", reason="move")}, "paused by ann: move"),
        ({"saga_resumed": saga_pb2.SagaResumed(actor="ann")}, "goes on, resumed by ann"),
        (
            {"saga_terminated": saga_pb2.SagaTerminated(actor="ann", reason="by hand")},
            "saga terminated by ann: by hand; nothing is undone by that",
        ),
        (
            {"step_retried": saga_pb2.StepRetried(step_id="reserve", input=PackedMessage(), actor="ann", reason="typo")},
            "tried again with another input by ann: typo",
        ),
        (
            {"step_retried": saga_pb2.StepRetried(step_id="reserve", direction=saga_pb2.DIRECTION_COMPENSATE)},
            "undo tried again",
        ),
        (
            {"step_resolved": saga_pb2.StepResolved(step_id="reserve", skipped=saga_pb2.ResolvedSkipped(), actor="ann", reason="told")},
            "resolved as skipped by ann: told",
        ),
        (
            {
                "step_policy_changed": saga_pb2.StepPolicyChanged(
                    policy=saga_pb2.StepPolicy(
                        compensate_retry=saga_pb2.RetryPolicy(
                            max_attempts=5, initial_backoff=Duration(seconds=1), multiplier=2, max_backoff=Duration(seconds=3)
                        ),
                        attempt_timeout=Duration(seconds=60),
                        execute_time_limit=Duration(seconds=61),
                        compensate_time_limit=Duration(seconds=62),
                    ),
                    actor="ann",
                )
            },
            "policy changed by ann (compensate: at most 5 attempts, backoff 1.00 s x 2 to 3.00 s; attempt timeout 1 min 0 s; "
            "execute time limit 1 min 1 s; recovery time limit 1 min 2 s)",
        ),
        ({"output_resolved": saga_pb2.OutputResolved(actor="ann", reason="by hand")}, "output given by ann: by hand"),
        ({}, "an event newer than this program"),
    ],
)
def test_each_fact_says_what_happened(fact: dict[str, Message], what: str) -> None:
    (row,) = _teller().rows_of(_event(2, **fact))
    assert row.what == what
    assert row.at == BEGIN + timedelta(seconds=2)


def test_every_fact_of_the_contract_has_words_of_its_own() -> None:
    facts = saga_pb2.Event.DESCRIPTOR.oneofs_by_name["fact"].fields
    for field in facts:
        event = saga_pb2.Event(occurred_at=_at(0))
        getattr(event, field.name).SetInParent()
        assert all(row.mark != "·" for row in _teller().rows_of(event)), field.name


def test_attempt_keeps_when_it_was_sent() -> None:
    expected = TimelineRow(
        at=BEGIN + timedelta(seconds=2),
        what="done",
        mark="✔",
        style="green",
        step="reserve",
        attempt=2,
        sent_at=BEGIN + timedelta(seconds=1),
    )
    assert _teller().rows_of(_event(2, step_succeeded=saga_pb2.StepSucceeded(attempt=_attempt(1)))) == [expected]


# ── Steps that are reached ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_steps_that_become_due_stand_behind_what_made_them_so() -> None:
    event = _event(0, _due("reserve"), _due("quote"), saga_started=saga_pb2.SagaStarted())
    (row,) = _teller().rows_of(event)
    assert row.what == "saga accepted → reserve, quote (read only)"


def test_hook_is_named_as_one() -> None:  # R16
    (row,) = _teller().rows_of(_event(0, _due("on_success"), saga_completed=saga_pb2.SagaCompleted()))
    assert row.what == "saga COMPLETED → on_success (hook)"
    assert _teller().label_of("on_failure") == "hook"


def test_steps_that_are_not_executed_have_rows_of_their_own() -> None:
    event = _event(0, _left_out("quote"), _unfit("ship"), _unfit("survey"), saga_started=saga_pb2.SagaStarted())
    assert [(row.step, row.what) for row in _teller().rows_of(event)[1:]] == [
        ("quote", "left out: its condition is false"),
        ("ship", "not executed, its expression failed: no such key"),
        ("survey", "not executed, its expression failed: no such key; the saga goes on without it"),
    ]


@pytest.mark.parametrize("fact", ["step_rejected", "step_unknown"])
def test_best_effort_step_that_does_not_succeed_stops_nobody(fact: str) -> None:  # R9
    made = {"step_rejected": saga_pb2.StepRejected, "step_unknown": saga_pb2.StepUnknown}[fact]
    (best_effort,) = _teller().rows_of(_event(2, **{fact: made(attempt=_attempt(1, "survey"), error=DOWN)}))
    (needed,) = _teller().rows_of(_event(2, **{fact: made(attempt=_attempt(1), error=DOWN)}))
    assert best_effort.what.endswith("; the saga goes on without it")
    assert (best_effort.style, needed.style) == ("yellow", "red")


# ── The point of no return ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def _succeeded(step: str, *reached: saga_pb2.StepReached) -> saga_pb2.Event:
    return _event(2, *reached, step_succeeded=saga_pb2.StepSucceeded(attempt=_attempt(1, step)))


def _resolved(resolution: str) -> saga_pb2.Event:
    resolved = saga_pb2.StepResolved(step_id="charge")
    getattr(resolved, resolution).SetInParent()
    return _event(2, step_resolved=resolved)


@pytest.mark.parametrize(
    ("event", "is_passed"),
    [
        (_succeeded("charge"), True),
        (_succeeded("reserve"), False),
        (_succeeded("reserve", _due("charge")), False),
        (_succeeded("reserve", _left_out("charge")), True),
        (_succeeded("reserve", _unfit("charge")), False),
        (_resolved("succeeded"), True),
        (_resolved("skipped"), True),
        (_resolved("rejected"), False),
    ],
)
def test_pivot_that_succeeded_or_was_left_out_is_the_point_of_no_return(event: saga_pb2.Event, *, is_passed: bool) -> None:  # R9
    assert any(row.is_boundary for row in _teller().rows_of(event)) is is_passed


@pytest.mark.parametrize(
    ("event", "is_passed"),
    [(_succeeded("reserve", _due("ship")), True), (_succeeded("reserve", _left_out("ship")), False), (_succeeded("ship"), False)],
)
def test_without_a_pivot_the_first_retriable_step_that_is_due_is_it(event: saga_pb2.Event, *, is_passed: bool) -> None:  # R9
    assert any(row.is_boundary for row in _teller(without="charge").rows_of(event)) is is_passed


def test_point_of_no_return_is_told_once() -> None:
    teller = _teller()
    told = [row.is_boundary for event in (_succeeded("charge"), _resolved("succeeded")) for row in teller.rows_of(event)]
    assert told == [False, True, False]


# ── Payloads in words ────────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_payload_is_shown_without_its_type_and_shortened() -> None:
    text = saga_pb2.StepHeartbeat()
    text.progress.Pack(StringValue(value="x" * 300))
    assert PayloadTypes().to_text(text.progress) == '"' + "x" * 198 + "…"


def test_payload_of_an_unknown_type_is_named() -> None:
    beat = saga_pb2.StepHeartbeat()
    beat.progress.Pack(PlaceOrder(order_id="42"))
    assert PayloadTypes().to_text(beat.progress) == "shop.v1.PlaceOrder"
