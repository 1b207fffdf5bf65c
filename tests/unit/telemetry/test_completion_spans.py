"""Which spans a step leaves that its participant accepts and finishes later (R24)."""

from coordinator.core.inputs import Accepted, Cancel, CompleteStep, Heartbeat, Rejected, RetryStep, Succeeded, Wake
from coordinator.core.trace import attempt_span_id, completion_span_id, root_span_id
from coordinator.core.values import Payload, StepId, StepKind
from tests.builders import (
    COMPENSATE,
    SAGA,
    at,
    attempt,
    compensated,
    failure,
    parallel,
    rejected,
    seconds,
    sequence,
    step,
    succeeded,
    unknown,
)
from tests.unit.telemetry.observed import Moment, Observed, Seen, seen, shop_step

CALLER_TRACE, ROOT = 0x0AF7651916CD43DD8448EB211C80319C, root_span_id(SAGA)
ACCEPTED = Accepted(time_limit_us=seconds(60))


def accepting() -> Observed:
    """`approve` is accepted at 2, until 62."""
    saga = Observed(sequence(shop_step("approve", "approvals.ask")))
    saga.start()
    saga.reply("approve", ACCEPTED, sent=1, ended=2)
    return saga


def complete(saga: Observed, result: Succeeded | Rejected, when: float, *, step_id: str = "approve") -> None:
    saga.feed(CompleteStep(step_id=StepId(step_id), round=1, result=result), when)


def completions(saga: Observed) -> list[Seen]:
    return [span for span in map(seen, saga.spans) if span.name.startswith("completion of ")]


def test_call_that_is_accepted_has_its_span_at_once() -> None:
    (call,) = map(seen, accepting().spans)
    assert (call.name, call.kind, call.span_id) == ("execute approvals.ask", "CLIENT", attempt_span_id(SAGA, attempt("approve", 1)))
    assert (call.start_us, call.end_us, call.error, call.attributes["saga.outcome"]) == (at(1), at(2), None, "ACCEPTED")


def test_completed_step_has_a_span_from_its_acceptance_on() -> None:
    saga = accepting()
    complete(saga, succeeded(), 50)
    assert completions(saga) == [
        Seen(
            name="completion of approvals.ask",
            kind="INTERNAL",
            trace_id=CALLER_TRACE,
            span_id=completion_span_id(SAGA, attempt("approve", 1)),
            parent_id=ROOT,
            parent_is_remote=False,
            start_us=at(2),
            end_us=at(50),
            error=None,
            attributes={
                "saga.id": SAGA,
                "saga.step": "approve",
                "saga.attempt": 1,
                "saga.round": 1,
                "saga.direction": "EXECUTE",
                "saga.action": "approvals.ask",
                "saga.definition.name": "place-order",
                "saga.definition.version": 1,
                "saga.outcome": "SUCCEEDED",
            },
            linked_ids=(attempt_span_id(SAGA, attempt("approve", 1)),),
        )
    ]
    assert [span.name for span in saga.spans] == ["execute approvals.ask", "completion of approvals.ask", "saga place-order"]


def test_step_that_is_refused_in_the_end_tells_why() -> None:
    saga = accepting()
    complete(saga, Rejected(failure=failure(9, "denied"), sealed=True), 50)
    (span,) = completions(saga)
    assert (span.error, span.attributes["saga.outcome"], span.attributes["error.type"]) == ("denied", "REJECTED", "FAILED_PRECONDITION")


def test_step_that_is_not_completed_in_time_tells_so() -> None:
    saga = accepting()
    saga.feed(Wake(), 62)
    (span,) = completions(saga)
    assert (span.start_us, span.end_us) == (at(2), at(62))
    assert (span.attributes["saga.outcome"], span.attributes["error.type"]) == ("UNKNOWN", "DEADLINE_EXCEEDED")


def test_completion_in_another_process_begins_with_the_acceptance_all_the_same() -> None:
    saga = accepting()
    saga.crash()
    complete(saga, succeeded(), 50)
    assert [(span.start_us, span.end_us) for span in completions(saga)] == [(at(2), at(50))]


def test_heartbeats_change_nothing_but_the_end() -> None:
    saga = accepting()
    saga.feed(Heartbeat(step_id=StepId("approve"), round=1, time_limit_us=None, progress=Payload("t", b"half")), 40)
    complete(saga, succeeded(), 90)
    assert [(span.start_us, span.end_us) for span in completions(saga)] == [(at(2), at(90))]
    assert not seen(saga.spans[-1]).moments


def test_step_that_is_completed_before_its_call_ends_has_no_completion_but_a_moment() -> None:
    saga = Observed(sequence(shop_step("approve", "approvals.ask")))
    saga.start()
    complete(saga, succeeded(), 1)
    saga.reply("approve", ACCEPTED, sent=0.5, ended=2)
    call, root = map(seen, saga.spans)
    assert (call.end_us, call.attributes["saga.outcome"]) == (at(2), "SUCCEEDED")
    assert root.moments == (Moment("step completed early", at(1), {"saga.step": "approve", "saga.round": 1}),)


def test_step_in_backoff_that_is_completed_has_no_second_span_for_its_call() -> None:
    saga = Observed(sequence("a"))
    saga.start()
    saga.reply("a", unknown(), sent=1, ended=2)
    complete(saga, succeeded(), 2.05, step_id="a")
    assert [span.name for span in saga.spans] == ["execute a.do", "saga place-order"]


def test_step_that_is_accepted_again_has_a_completion_for_each_call() -> None:
    saga = Observed(sequence("a", step("b", kind=StepKind.PIVOT)))
    saga.start()
    saga.reply("a", succeeded(), sent=0, ended=0)
    saga.reply("b", ACCEPTED, sent=1, ended=2)
    saga.feed(Wake(), 62)  # R10: nobody knows whether the pivot took effect, and a person is asked
    saga.feed(RetryStep(step_id=StepId("b")), 100)
    saga.reply("b", ACCEPTED, sent=101, ended=102)
    complete(saga, succeeded(), 150, step_id="b")
    assert [(span.attributes["saga.attempt"], span.start_us, span.end_us) for span in completions(saga)] == [
        (1, at(2), at(62)),
        (2, at(102), at(150)),
    ]


def test_person_who_is_quicker_than_the_commit_makes_no_completion_of_the_wrong_call() -> None:
    saga = Observed(sequence(step("a", kind=StepKind.PIVOT)))
    saga.start()
    saga.reply("a", ACCEPTED, sent=1, ended=2)
    saga.decide(Wake(), 62)
    saga.decide(RetryStep(step_id=StepId("a")), 62)
    saga.decide_reply("a", ACCEPTED, sent=62, ended=63)
    saga.commit()
    assert not completions(saga)  # the state does not know any more when the first one began


def test_completion_that_comes_too_late_is_a_moment() -> None:
    saga = Observed(parallel("a", "b"))
    saga.start()
    saga.reply("a", ACCEPTED, sent=1, ended=2)
    saga.feed(Cancel(), 3)  # R12: an accepted step is at rest at once; the answer of `b` is awaited
    complete(saga, succeeded(), 4, step_id="a")
    saga.reply("b", rejected(sealed=True), sent=1, ended=5)
    saga.reply("a", compensated(), sent=6, ended=7, direction=COMPENSATE)
    assert not completions(saga)
    late = {"saga.step": "a", "saga.attempt": 1, "saga.round": 1, "saga.direction": "EXECUTE", "saga.outcome": "SUCCEEDED"}
    assert Moment("late outcome", at(4), late) in seen(saga.spans[-1]).moments
