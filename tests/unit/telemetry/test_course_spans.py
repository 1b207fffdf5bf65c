"""Which spans tell what a saga did: the root until it ends or is FAILED, then one for every time that a person let it go on."""

from dataclasses import replace

from coordinator.core.inputs import (
    Cancel,
    Mismatched,
    Pause,
    Rejected,
    Replied,
    ResolvedCompensated,
    ResolvedSucceeded,
    ResolveOutput,
    ResolveStep,
    RetryStep,
    Terminate,
    Wake,
)
from coordinator.core.plan import ON_FAILURE, ON_SUCCESS, ExpressionError, RetryPolicy, SagaPlan, Values
from coordinator.core.trace import attempt_span_id, continuation_span_id, root_span_id
from coordinator.core.values import Payload, SagaId, StepId, StepKind
from coordinator.telemetry.spans import SpanObserver
from tests.builders import (
    COMPENSATE,
    SAGA,
    at,
    attempt,
    compensated,
    failure,
    rejected,
    sequence,
    step,
    succeeded,
    unknown,
)
from tests.unit.telemetry.observed import RESOURCE, Moment, Observed, Seen, seen

CALLER_TRACE, ROOT = 0x0AF7651916CD43DD8448EB211C80319C, root_span_id(SAGA)
ONCE = RetryPolicy(attempts_max=1)
A = StepId("a")
RETRIED = {"saga.step": "a", "saga.direction": "COMPENSATE", "saga.round": 1, "saga.input_changed": False}
BY_BOB = {"saga.actor": "bob", "saga.reason": "because"}


def stuck_backward() -> Observed:
    """FAILED at 4: `a` could not be undone."""
    saga = Observed(sequence(step("a", undo=ONCE), "b"))
    saga.start()
    saga.reply("a", succeeded(), sent=1, ended=1)
    saga.reply("b", rejected(), sent=2, ended=2)
    saga.reply("a", unknown(), sent=3, ended=4, direction=COMPENSATE)
    return saga


def retry(saga: Observed, when: float) -> int:
    """Sequence of the fact that somebody had `a` tried again."""
    saga.feed(RetryStep(step_id=A, reason="because", actor="bob"), when)
    return saga.story.journal[-2].sequence  # the incident is closed by it


def courses(saga: Observed) -> list[Seen]:
    return [span for span in map(seen, saga.spans) if "saga.status" in span.attributes]


def test_failed_saga_that_goes_on_has_a_span_of_its_own_for_that() -> None:
    saga = stuck_backward()
    sequence_of_retry = retry(saga, 100)
    saga.reply("a", compensated(), sent=101, ended=102, direction=COMPENSATE)
    _, again = courses(saga)
    assert again == Seen(
        name="continuation of place-order",
        kind="INTERNAL",
        trace_id=CALLER_TRACE,
        span_id=continuation_span_id(SAGA, sequence_of_retry),
        parent_id=ROOT,
        parent_is_remote=False,
        start_us=at(100),
        end_us=at(102),
        error="said so",
        attributes={
            "saga.id": SAGA,
            "saga.definition.name": "place-order",
            "saga.definition.version": 1,
            "saga.status": "COMPENSATED",
            "saga.turn_back.cause": "STEP_REJECTED",
            "error.type": "FAILED_PRECONDITION",
        },
        moments=(
            Moment("step retried", at(100), RETRIED | BY_BOB),
            Moment("incident closed", at(100), {"saga.incident.id": 1}),
        ),
    )


def test_root_of_a_saga_that_goes_on_stays_as_it_was_written() -> None:
    saga = stuck_backward()
    (root,) = courses(saga)
    retry(saga, 100)
    saga.reply("a", compensated(), sent=101, ended=102, direction=COMPENSATE)
    assert courses(saga)[0] == root
    assert [moment.name for moment in root.moments] == ["saga turned back", "incident opened"]


def test_saga_that_fails_again_and_again_has_a_span_each_time() -> None:
    saga = stuck_backward()
    first = retry(saga, 100)
    saga.reply("a", unknown(), sent=101, ended=102, direction=COMPENSATE)
    second = retry(saga, 200)
    saga.reply("a", compensated(), sent=201, ended=202, direction=COMPENSATE)
    assert [(span.span_id, span.start_us, span.end_us) for span in courses(saga)] == [
        (ROOT, at(0), at(4)),
        (continuation_span_id(SAGA, first), at(100), at(102)),
        (continuation_span_id(SAGA, second), at(200), at(202)),
    ]
    assert [[moment.name for moment in span.moments] for span in courses(saga)[1:]] == [
        ["step retried", "incident closed", "incident opened"],
        ["step retried", "incident closed"],
    ]


def test_attempts_after_failed_are_below_the_root_like_all_others() -> None:
    saga = stuck_backward()
    retry(saga, 100)
    saga.reply("a", compensated(), sent=101, ended=102, direction=COMPENSATE)
    undone = seen(saga.spans[-2])
    assert (undone.span_id, undone.parent_id) == (attempt_span_id(SAGA, attempt("a", 2, COMPENSATE)), ROOT)


def test_crash_while_it_goes_on_loses_no_span() -> None:
    saga = stuck_backward()
    saga.crash()
    sequence_of_retry = retry(saga, 100)
    saga.recover(150)
    saga.reply("a", compensated(), sent=151, ended=152, direction=COMPENSATE)
    again = courses(saga)[-1]
    assert (again.span_id, again.start_us, again.end_us) == (continuation_span_id(SAGA, sequence_of_retry), at(100), at(152))
    assert [moment.name for moment in again.moments] == ["incident closed", "saga recovered"]


def test_person_who_is_quicker_than_the_commit_doubles_no_root() -> None:
    saga = Observed(sequence(step("a", undo=ONCE), "b"))
    saga.start()
    saga.reply("a", succeeded(), sent=1, ended=1)
    saga.reply("b", rejected(), sent=2, ended=2)
    saga.decide_reply("a", unknown(), sent=3, ended=4, direction=COMPENSATE)
    saga.decide(RetryStep(step_id=A), 5)
    saga.commit()
    saga.reply("a", compensated(), sent=6, ended=7, direction=COMPENSATE)
    assert [(span.name, span.start_us, span.end_us) for span in courses(saga)] == [
        ("saga place-order", at(0), at(4)),
        ("continuation of place-order", at(5), at(7)),
    ]
    assert [moment.name for moment in courses(saga)[0].moments] == ["saga turned back", "incident opened"]


def test_saga_that_a_person_resolves_at_once_has_a_span_without_length() -> None:
    saga = stuck_backward()
    saga.feed(ResolveStep(step_id=A, resolution=ResolvedCompensated(), reason="because", actor="bob"), 100)
    again = courses(saga)[-1]
    assert (again.name, again.start_us, again.end_us) == ("continuation of place-order", at(100), at(100))
    resolved = {"saga.step": "a", "saga.resolution": "COMPENSATED"}
    assert again.moments[0] == Moment("step resolved", at(100), resolved | BY_BOB)


def test_saga_that_fails_on_its_way_forward_tells_the_incident_as_its_error() -> None:
    saga = Observed(sequence(step("a", kind=StepKind.RETRIABLE)))
    saga.start()
    saga.reply("a", rejected(), sent=1, ended=2)  # R11
    (root,) = courses(saga)
    assert (root.error, root.attributes["saga.status"], root.attributes["error.type"]) == ("said so", "FAILED", "FAILED_PRECONDITION")
    saga.feed(ResolveStep(step_id=A, resolution=ResolvedSucceeded(succeeded().output), reason="because", actor="bob"), 100)
    again = courses(saga)[-1]
    assert (again.error, again.attributes["saga.status"]) == (None, "COMPLETED")


def test_saga_that_is_cancelled_out_of_failed_tells_it_on_what_follows() -> None:
    saga = Observed(sequence("a", "b"))
    saga.start()
    saga.reply("a", succeeded(), sent=1, ended=1)
    saga.reply("b", Mismatched(failure=failure()), sent=2, ended=2)
    saga.feed(Cancel(reason="because", actor="bob"), 100)
    saga.reply("a", compensated(), sent=101, ended=102, direction=COMPENSATE)
    root, again = courses(saga)
    assert (root.attributes["saga.status"], root.end_us) == ("FAILED", at(2))
    assert "saga.turn_back.cause" not in root.attributes
    assert (again.attributes["saga.turn_back.cause"], again.start_us, again.end_us) == ("CANCELLED", at(100), at(102))
    assert again.moments[0].name == "saga turned back"


def test_saga_whose_output_a_person_says_is_completed_by_what_follows() -> None:
    def fails(_: Values) -> Payload:
        raise ExpressionError("no such field")

    saga = Observed(sequence("a", output=fails))
    saga.start()
    saga.reply("a", succeeded(), sent=1, ended=2)
    saga.feed(ResolveOutput(output=succeeded().output, reason="because", actor="bob"), 100)
    root, again = courses(saga)
    assert (root.error, root.attributes["saga.status"]) == ("no such field", "FAILED")
    assert (again.error, again.attributes["saga.status"]) == (None, "COMPLETED")
    assert again.moments[0] == Moment("output resolved", at(100), BY_BOB)


def test_person_who_is_quicker_than_the_commit_does_not_change_why_it_failed() -> None:
    saga = Observed(sequence(step("a", kind=StepKind.RETRIABLE)))
    saga.start()
    saga.decide_reply("a", Rejected(failure=failure(9, "first")), sent=1, ended=2)
    saga.decide(RetryStep(step_id=A), 3)
    saga.decide_reply("a", Rejected(failure=failure(9, "second")), sent=4, ended=5)
    saga.commit()
    assert [(span.error, span.end_us) for span in courses(saga)] == [("first", at(2)), ("second", at(5))]
    opened = [moment for span in courses(saga) for moment in span.moments if moment.name == "incident opened"]
    assert [moment.attributes["error.message"] for moment in opened] == ["first", "second"]


def test_delayed_saga_tells_only_once_when_it_began() -> None:
    saga = Observed(sequence(step("a", kind=StepKind.RETRIABLE)))
    saga.start(start_at=10)
    saga.feed(Wake(), 10)
    saga.reply("a", rejected(), sent=11, ended=12)
    retry(saga, 100)
    saga.reply("a", succeeded(), sent=101, ended=102)
    assert [moment.name for span in courses(saga) for moment in span.moments] == [
        "saga began",
        "incident opened",
        "step retried",
        "incident closed",
    ]


def test_saga_that_is_terminated_while_it_runs_ends_its_root() -> None:
    saga = Observed(sequence("a", "b"))
    saga.start()
    saga.reply("a", succeeded(), sent=1, ended=1)
    saga.feed(Terminate(reason="because", actor="bob"), 2)
    (root,) = courses(saga)
    assert (root.span_id, root.end_us, root.error, root.attributes["saga.status"]) == (ROOT, at(2), "because", "FAILED")
    assert root.moments == (Moment("saga terminated", at(2), BY_BOB),)


def test_saga_that_is_terminated_while_failed_has_a_span_for_that_beside_its_root() -> None:
    saga = stuck_backward()
    saga.feed(Terminate(reason="because", actor="bob"), 100)
    root, ended = courses(saga)
    assert root.end_us == at(4)
    assert (ended.name, ended.parent_id, ended.start_us, ended.end_us) == ("continuation of place-order", ROOT, at(100), at(100))
    assert {moment.name for moment in ended.moments} == {"saga terminated", "incident closed"}


def test_saga_that_is_terminated_after_it_went_on_ends_what_went_on() -> None:
    saga = stuck_backward()
    sequence_of_retry = retry(saga, 100)
    saga.feed(Terminate(reason="because", actor="bob"), 150)
    again = courses(saga)[-1]
    assert (again.span_id, again.start_us, again.end_us) == (continuation_span_id(SAGA, sequence_of_retry), at(100), at(150))
    assert len(courses(saga)) == 2


def test_answer_that_comes_after_the_saga_was_terminated_has_its_span() -> None:
    saga = Observed(sequence("a"))
    saga.start()
    saga.feed(Terminate(reason="because", actor="bob"), 2)
    saga.reply("a", succeeded(), sent=1, ended=3)
    late = seen(saga.spans[-1])
    assert (late.span_id, late.parent_id, late.start_us, late.end_us) == (attempt_span_id(SAGA, attempt("a", 1)), ROOT, at(1), at(3))
    assert (late.attributes["saga.outcome"], late.attributes["saga.late"]) == ("SUCCEEDED", True)


def test_late_answer_that_tells_nothing_is_unknown() -> None:
    saga = Observed(sequence("a"))
    saga.start()
    saga.feed(Terminate(), 2)
    saga.reply("a", rejected(), sent=1, ended=3)  # R5: nobody judged whether it was clean
    late = seen(saga.spans[-1])
    assert (late.attributes["saga.outcome"], late.error) == ("UNKNOWN", "said so")


def test_undoing_that_ends_after_the_saga_was_terminated_has_its_span() -> None:
    saga = Observed(sequence("a", "b"))
    saga.start()
    saga.reply("a", succeeded(), sent=1, ended=1)
    saga.feed(Cancel(), 1)
    saga.reply("b", rejected(sealed=True), sent=1, ended=2)
    saga.feed(Terminate(), 3)
    saga.reply("a", compensated(), sent=2.5, ended=4, direction=COMPENSATE)
    late = seen(saga.spans[-1])
    assert (late.name, late.start_us, late.attributes["saga.outcome"]) == ("compensate a.do", at(2.5), "COMPENSATED")
    assert late.linked_ids == (attempt_span_id(SAGA, attempt("a", 1)),)


def test_answer_that_comes_twice_after_the_saga_was_terminated_has_one_span() -> None:
    saga = Observed(sequence("a", "b"))
    saga.start()
    saga.reply("a", succeeded(), sent=1, ended=1)
    saga.feed(Terminate(reason="because", actor="bob"), 2)
    written = len(saga.spans)
    saga.feed(Replied(attempt=attempt("a", 1), outcome=succeeded(), sent_at=at(1)), 3)
    assert len(saga.spans) == written


def hooked() -> SagaPlan:
    plan = sequence("a")
    return replace(plan, on_success=step(ON_SUCCESS, retry=ONCE), on_failure=step(ON_FAILURE, retry=ONCE))


def test_attempts_of_a_hook_come_below_the_root_that_is_written_already() -> None:
    saga = Observed(hooked())
    saga.start()
    saga.reply("a", succeeded(), sent=1, ended=2)
    saga.reply(ON_SUCCESS, unknown(), sent=3, ended=4)  # R16
    saga.feed(RetryStep(step_id=ON_SUCCESS, actor="bob", reason="because"), 100)
    saga.reply(ON_SUCCESS, succeeded(), sent=101, ended=102)
    spans = [seen(span) for span in saga.spans]
    assert [(span.name, span.parent_id == ROOT) for span in spans] == [
        ("execute a.do", True),
        ("saga place-order", False),
        ("execute on_success.do", True),
        ("execute on_success.do", True),
    ]
    assert spans[1].end_us == at(2)


def test_hook_of_a_terminated_saga_leaves_no_span_but_its_attempts() -> None:
    saga = Observed(hooked())
    saga.start()
    saga.feed(Terminate(reason="because", actor="bob"), 2)
    saga.reply(ON_FAILURE, unknown(), sent=3, ended=4)
    saga.feed(RetryStep(step_id=ON_FAILURE), 100)
    saga.reply(ON_FAILURE, succeeded(), sent=101, ended=102)
    assert [span.name for span in saga.spans] == ["saga place-order", "execute on_failure.do", "execute on_failure.do"]


def test_hook_that_cannot_be_executed_is_told_on_the_root() -> None:
    def fails(_: Values) -> Payload:
        raise ExpressionError("no such field")

    saga = Observed(replace(sequence("a"), on_success=step(ON_SUCCESS, input=fails, copies_input=False)))
    saga.start()
    saga.reply("a", succeeded(), sent=1, ended=2)
    assert [moment.name for moment in courses(saga)[0].moments] == ["step cannot be executed", "incident opened"]


def test_what_comes_after_the_end_takes_no_room_from_others() -> None:
    running, ended = Observed(sequence("a")), Observed(hooked(), saga_id=SagaId("01900000-0000-7000-8000-000000000002"))
    running.spans_observer = ended.spans_observer = SpanObserver(running.recorder, RESOURCE, sagas_with_moments_max=1)
    for saga in (running, ended):
        saga.start()
    ended.reply("a", succeeded(), sent=1, ended=2)
    ended.reply(ON_SUCCESS, unknown(), sent=3, ended=4)
    running.feed(Pause(), 5)
    ended.feed(RetryStep(step_id=ON_SUCCESS), 6)
    running.feed(Terminate(), 7)
    assert [moment.name for moment in seen(running.spans[-1]).moments] == ["saga paused", "saga terminated"]
