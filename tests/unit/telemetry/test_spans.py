"""Which spans a saga leaves behind, compared as whole values."""

import pytest

from coordinator.core.inputs import Cancel, Recover, Rejected, Replied, Wake
from coordinator.core.plan import RetryPolicy, SagaPlan
from coordinator.core.trace import attempt_span_id, root_span_id, start_trace, trace_id_of
from coordinator.core.values import Direction, SagaId, TraceContext
from coordinator.telemetry.moments import MOMENTS_PER_SAGA_MAX, TEXT_CHARS_MAX
from coordinator.telemetry.spans import SpanObserver
from tests.builders import (
    COMPENSATE,
    EXECUTE,
    FAILED_PRECONDITION,
    SAGA,
    at,
    attempt,
    compensated,
    failure,
    not_sent,
    parallel,
    rejected,
    retry_later,
    sequence,
    step,
    succeeded,
    unknown,
)
from tests.unit.telemetry.observed import CALLER, RESOURCE, Moment, Observed, Seen, seen, shop_step

CALLER_TRACE, CALLER_SPAN = 0x0AF7651916CD43DD8448EB211C80319C, 0xB7AD6B7169203331
ROOT = root_span_id(SAGA)
SAID_SO = {"error.type": "UNAVAILABLE", "error.message": "said so"}


def shop() -> SagaPlan:
    return sequence(shop_step("reserve", "inventory.reserve"), shop_step("charge", "payments.charge"))


def span_id(step_id: str, number: int, direction: Direction = EXECUTE) -> int:
    return attempt_span_id(SAGA, attempt(step_id, number, direction))


def attempt_attributes(step_id: str, action: str, outcome: str, *, number: int = 1, direction: Direction = EXECUTE) -> dict[str, object]:
    return {
        "saga.id": SAGA,
        "saga.step": step_id,
        "saga.attempt": number,
        "saga.round": 1,
        "saga.direction": direction.name,
        "saga.action": action,
        "saga.definition.name": "place-order",
        "saga.definition.version": 1,
        "saga.outcome": outcome,
        "rpc.system": "grpc",
        "rpc.service": "saga.v1.ParticipantService",
        "rpc.method": direction.name.capitalize(),
    }


def call_span(
    name: str,
    own_id: int,
    times: tuple[float, float],
    attributes: dict[str, object],
    *,
    error: str | None = None,
    linked_ids: tuple[int, ...] = (),
) -> Seen:
    return Seen(
        name=name,
        kind="CLIENT",
        trace_id=CALLER_TRACE,
        span_id=own_id,
        parent_id=ROOT,
        parent_is_remote=False,
        start_us=at(times[0]),
        end_us=at(times[1]),
        error=error,
        attributes=attributes,
        linked_ids=linked_ids,
    )


def root_attributes(status: str) -> dict[str, object]:
    return {"saga.id": SAGA, "saga.definition.name": "place-order", "saga.definition.version": 1, "saga.status": status}


def names_of(saga: Observed) -> list[str]:
    return [span.name for span in saga.spans]


def test_completed_saga_leaves_one_span_per_attempt_below_its_root() -> None:
    saga = Observed(shop())
    saga.start(1)
    saga.reply("reserve", succeeded(), sent=1.1, ended=1.2)
    saga.reply("charge", succeeded(), sent=1.3, ended=1.5)
    assert [seen(span) for span in saga.spans] == [
        call_span(
            "execute inventory.reserve",
            span_id("reserve", 1),
            (1.1, 1.2),
            attempt_attributes("reserve", "inventory.reserve", "SUCCEEDED"),
        ),
        call_span(
            "execute payments.charge", span_id("charge", 1), (1.3, 1.5), attempt_attributes("charge", "payments.charge", "SUCCEEDED")
        ),
        Seen(
            name="saga place-order",
            kind="SERVER",
            trace_id=CALLER_TRACE,
            span_id=ROOT,
            parent_id=CALLER_SPAN,
            parent_is_remote=True,
            start_us=at(1),
            end_us=at(1.5),
            error=None,
            attributes=root_attributes("COMPLETED"),
        ),
    ]


def test_compensated_saga_links_each_compensation_to_the_execution_it_undoes() -> None:
    saga = Observed(shop())
    saga.start(1)
    saga.reply("reserve", unknown(), sent=1.1, ended=1.2)
    saga.reply("reserve", succeeded(), sent=1.5, ended=1.6)
    saga.reply("charge", rejected(), sent=1.7, ended=1.8)
    saga.reply("reserve", compensated(), sent=1.9, ended=2.0, direction=COMPENSATE)
    refused = {"error.type": "FAILED_PRECONDITION"}
    undone = attempt_attributes("reserve", "inventory.reserve", "COMPENSATED", direction=COMPENSATE)
    assert [seen(span) for span in saga.spans] == [
        call_span(
            "execute inventory.reserve",
            span_id("reserve", 1),
            (1.1, 1.2),
            attempt_attributes("reserve", "inventory.reserve", "UNKNOWN") | {"error.type": "UNAVAILABLE"},
            error="said so",
        ),
        call_span(
            "execute inventory.reserve",
            span_id("reserve", 2),
            (1.5, 1.6),
            attempt_attributes("reserve", "inventory.reserve", "SUCCEEDED", number=2),
        ),
        call_span(
            "execute payments.charge",
            span_id("charge", 1),
            (1.7, 1.8),
            attempt_attributes("charge", "payments.charge", "REJECTED") | refused,
            error="said so",
        ),
        call_span(
            "compensate inventory.reserve",
            span_id("reserve", 1, COMPENSATE),
            (1.9, 2.0),
            undone | {"saga.handler_ran": True},
            linked_ids=(span_id("reserve", 2),),
        ),
        Seen(
            name="saga place-order",
            kind="SERVER",
            trace_id=CALLER_TRACE,
            span_id=ROOT,
            parent_id=CALLER_SPAN,
            parent_is_remote=True,
            start_us=at(1),
            end_us=at(2),
            error="said so",
            attributes=root_attributes("COMPENSATED") | {"saga.turn_back.cause": "STEP_REJECTED", **refused},
            moments=(
                Moment(
                    "saga turned back",
                    at(1.8),
                    {"saga.turn_back.cause": "STEP_REJECTED", "saga.step": "charge", "error.message": "said so", **refused},
                ),
            ),
        ),
    ]


def test_failed_saga_has_its_root_with_the_incident_on_it() -> None:
    saga = Observed(sequence(step("a", undo=RetryPolicy(attempts_max=1)), "b"))
    saga.start()
    saga.reply("a", succeeded(), sent=1, ended=1)
    saga.reply("b", rejected(), sent=2, ended=2)
    saga.reply("a", unknown(), sent=3, ended=4, direction=COMPENSATE)
    *_, undo, root = map(seen, saga.spans)
    assert (undo.attributes["saga.outcome"], undo.error) == ("COMPENSATION_FAILED", "said so")
    assert (root.name, root.end_us, root.attributes["saga.status"]) == ("saga place-order", at(4), "FAILED")
    assert root.moments[1] == Moment(
        "incident opened",
        at(4),
        {"saga.incident.id": 1, "saga.incident.kind": "COMPENSATION_EXHAUSTED", "saga.step": "a", **SAID_SO},
    )


def test_cancelled_saga_tells_who_asked() -> None:
    saga = Observed(shop())
    saga.start(start_at=10)
    saga.feed(Cancel(reason="changed my mind", actor="alice"), 2)
    (root,) = map(seen, saga.spans)
    assert root.error == "changed my mind"
    assert root.moments == (
        Moment(
            "saga turned back",
            at(2),
            {
                "saga.turn_back.cause": "CANCELLED",
                "saga.actor": "alice",
                "error.type": "CANCELLED",
                "error.message": "changed my mind",
            },
        ),
    )


def test_delayed_saga_tells_when_it_began() -> None:
    saga = Observed(sequence("a"))
    saga.start(1, start_at=10)
    saga.feed(Wake(), 10)
    saga.reply("a", succeeded(), sent=10.5, ended=11)
    root = seen(saga.spans[-1])
    assert (root.start_us, root.moments) == (at(1), (Moment("saga began", at(10), {}),))


def test_attempt_that_was_not_sent_has_no_span() -> None:
    saga = Observed(sequence("a"))
    saga.start()
    saga.reply("a", not_sent(), sent=0, ended=1)
    assert not saga.spans


def test_step_unknown_by_silence_has_no_span() -> None:
    saga = Observed(parallel("a", "b"))
    saga.start()
    saga.reply("a", rejected(), sent=1, ended=1)
    quiet_at = saga.story.wake_at()
    assert quiet_at is not None
    saga.feed(Wake(), quiet_at / at(1))
    assert names_of(saga) == ["execute a.do"]


def test_reply_that_comes_too_late_has_no_second_span() -> None:
    saga = Observed(sequence("a"))
    saga.start()
    saga.reply("a", retry_later(1), sent=1, ended=1)
    saga.feed(Replied(attempt=attempt("a", 1), outcome=succeeded(), sent_at=at(1)), 1.5)
    assert names_of(saga) == ["execute a.do"]


@pytest.mark.parametrize(
    "trace",
    [TraceContext(traceparent=""), start_trace(SAGA, "", "", sample=False), start_trace(SAGA, CALLER[:-1] + "0", "", sample=True)],
)
def test_unsampled_saga_leaves_nothing(trace: TraceContext) -> None:
    saga = Observed(shop())
    saga.start(trace=trace)
    saga.reply("reserve", rejected(), sent=1, ended=1)
    assert not saga.spans


def test_saga_without_caller_has_a_root_without_parent() -> None:
    saga = Observed(sequence("a"))
    saga.start(trace=start_trace(SAGA, "", "", sample=True))
    saga.reply("a", succeeded(), sent=1, ended=1)
    root = seen(saga.spans[-1])
    assert (root.trace_id, root.parent_id) == (trace_id_of(SAGA), None)


def test_tracestate_of_the_caller_is_on_every_span() -> None:
    saga = Observed(sequence("a"))
    saga.start(trace=start_trace(SAGA, CALLER, "vendor=1,other=2", sample=True))
    saga.reply("a", succeeded(), sent=1, ended=1)
    contexts = [span.get_span_context() for span in saga.spans]
    assert [dict(context.trace_state) if context else None for context in contexts] == [{"vendor": "1", "other": "2"}] * 2


def test_long_message_of_a_participant_is_cut() -> None:
    saga = Observed(sequence("a"))
    saga.start()
    long = failure(FAILED_PRECONDITION, "x" * 10_000)
    saga.reply("a", Rejected(failure=long), sent=1, ended=1)
    assert {len(seen(span).error or "") for span in saga.spans} == {TEXT_CHARS_MAX}


def test_code_that_has_no_name_is_shown_as_its_number() -> None:
    saga = Observed(sequence("a"))
    saga.start()
    saga.reply("a", rejected(4711), sent=1, ended=1)
    assert saga.spans[0].attributes is not None
    assert saga.spans[0].attributes["error.type"] == "4711"


def test_recovered_saga_goes_on_in_its_trace_and_doubles_no_span() -> None:
    saga = Observed(shop())
    saga.start(1)
    saga.reply("reserve", succeeded(), sent=1.1, ended=1.2)
    saga.recover(60)  # the call of charge was under way when the process died: its span is missing, its number is not used again
    saga.reply("charge", unknown(), sent=61, ended=62)
    saga.recover(120)
    saga.reply("charge", rejected(sealed=True), sent=121, ended=122)
    saga.crash()
    saga.reply("reserve", compensated(), sent=123, ended=124, direction=COMPENSATE)
    spans_seen = [seen(span) for span in saga.spans]
    assert [(span.name, span.span_id) for span in spans_seen] == [
        ("execute inventory.reserve", span_id("reserve", 1)),
        ("execute payments.charge", span_id("charge", 2)),
        ("execute payments.charge", span_id("charge", 4)),
        ("compensate inventory.reserve", span_id("reserve", 1, COMPENSATE)),
        ("saga place-order", ROOT),
    ]
    assert {span.trace_id for span in spans_seen} == {CALLER_TRACE}
    assert spans_seen[-1].attributes["saga.turn_back.cause"] == "STEP_REJECTED"


def test_recovery_is_a_moment_on_the_root() -> None:
    saga = Observed(sequence("a"))
    saga.start()
    saga.recover(60)
    saga.reply("a", succeeded(), sent=61, ended=62)
    assert seen(saga.spans[-1]).moments == (Moment("saga recovered", at(60), {"saga.in_doubt": 1}),)


def test_moments_of_a_saga_are_bounded() -> None:
    saga = Observed(sequence("a"))
    saga.start()
    for times in range(MOMENTS_PER_SAGA_MAX + 5):
        saga.story.crash()  # the process goes on: only its owner changed
        saga.feed(Recover(), 1 + times)
    saga.reply("a", succeeded(), sent=99, ended=99)
    assert len(seen(saga.spans[-1]).moments) == MOMENTS_PER_SAGA_MAX


def test_sagas_with_moments_are_bounded_and_the_oldest_are_forgotten() -> None:
    first, second = Observed(sequence("a")), Observed(sequence("a"), saga_id=SagaId("01900000-0000-7000-8000-000000000002"))
    first.spans_observer = second.spans_observer = SpanObserver(first.recorder, RESOURCE, sagas_with_moments_max=1)
    for saga in (first, second):
        saga.start()
        saga.story.crash()
        saga.feed(Recover(), 1)
    for saga in (first, second):
        saga.reply("a", succeeded(), sent=2, ended=2)
    assert [len(span.events) for span in first.spans if span.name == "saga place-order"] == [0, 1]


def test_moments_of_a_saga_that_has_ended_take_no_room_from_others() -> None:
    ids = [SagaId(f"01900000-0000-7000-8000-00000000000{number}") for number in (1, 2, 3)]
    long, short, later = (Observed(sequence("a"), saga_id=saga_id) for saga_id in ids)
    observer = SpanObserver(long.recorder, RESOURCE, sagas_with_moments_max=2)
    for saga in (long, short, later):
        saga.spans_observer = observer
        saga.start()
    for saga in (long, short):
        saga.story.crash()
        saga.feed(Recover(), 1)
    short.reply("a", succeeded(), sent=2, ended=2)
    later.story.crash()
    later.feed(Recover(), 3)
    long.reply("a", succeeded(), sent=4, ended=4)
    assert [len(span.events) for span in long.spans if span.name == "saga place-order"] == [1, 1]
