"""Laws of spans, over stories of any shape with persons and crashes anywhere in them."""

from itertools import pairwise
from typing import NamedTuple

from hypothesis import given
from hypothesis import strategies as st

from coordinator.core.events import (
    Event,
    LateOutcome,
    OutputResolved,
    SagaCompensated,
    SagaCompleted,
    SagaFailed,
    SagaTerminated,
    SagaTurnedBack,
    StepAccepted,
    StepDue,
    StepRejected,
    StepResolved,
    StepRetried,
    StepSucceeded,
    StepUnknown,
)
from coordinator.core.plan import SagaPlan
from coordinator.core.trace import attempt_span_id, completion_span_id, continuation_span_id, root_span_id
from coordinator.core.values import SagaStatus
from coordinator.telemetry.attempts import AttemptFact
from tests.builders import (
    SAGA,
)
from tests.unit.telemetry.lives import PLANS, Happening, happenings, live_through
from tests.unit.telemetry.observed import Seen, seen

ROOT = root_span_id(SAGA)
WAYS_OUT_OF_FAILED = (StepRetried, StepResolved, OutputResolved, SagaTurnedBack, SagaTerminated)
END_FACTS = (SagaCompleted, SagaCompensated, SagaFailed, SagaTerminated)


class Sorted(NamedTuple):
    """The spans of a saga by what they stand for."""

    courses: list[Seen]
    completions: list[Seen]
    attempts: list[Seen]


def sorted_spans(spans: list[Seen]) -> Sorted:
    courses = [span for span in spans if span.name in ("saga place-order", "continuation of place-order")]
    completions = [span for span in spans if span.name.startswith("completion of ")]
    return Sorted(courses, completions, [span for span in spans if span not in courses and span not in completions])


def sent_in(journal: list[Event], *, late: bool) -> set[int]:
    """Span ids of the attempts whose end is in the journal with the instant at which they were sent."""
    ended = [event.fact for event in journal if isinstance(event.fact, AttemptFact) and event.fact.sent_at is not None]
    return {attempt_span_id(SAGA, fact.attempt) for fact in ended if late or not isinstance(fact, LateOutcome)}


@given(st.sampled_from(PLANS), happenings)
def test_any_story_leaves_one_trace_without_doubled_spans(plan: SagaPlan, story: list[Happening]) -> None:
    spans = [seen(span) for span in live_through(plan, story).saga.spans]
    assert len({span.span_id for span in spans}) == len(spans)
    assert len({span.trace_id for span in spans}) <= 1
    assert all(span.start_us <= span.end_us for span in spans)
    assert all(span.parent_id == ROOT for span in spans if span.span_id != ROOT)


@given(st.sampled_from(PLANS), happenings)
def test_every_attempt_that_was_answered_has_the_span_that_travelled_with_it(plan: SagaPlan, story: list[Happening]) -> None:
    life = live_through(plan, story)
    attempts = sorted_spans([seen(span) for span in life.saga.spans]).attempts
    written = {span.span_id for span in attempts}
    assert sent_in(life.saga.story.journal, late=False) <= written <= sent_in(life.saga.story.journal, late=True)
    for span in attempts:
        attempt = life.sent[span.span_id]  # the participant's own span hangs below this one
        assert (span.attributes["saga.step"], span.attributes["saga.attempt"]) == (attempt.step_id, attempt.number)


@given(st.sampled_from(PLANS), happenings)
def test_every_course_to_an_end_or_to_failed_has_a_span_and_the_first_is_the_root(plan: SagaPlan, story: list[Happening]) -> None:
    saga = live_through(plan, story).saga
    courses = sorted_spans([seen(span) for span in saga.spans]).courses
    ends = [event for event in saga.story.journal if isinstance(event.fact, END_FACTS)]
    assert [span.end_us for span in courses] == [event.occurred_at for event in ends]
    assert [span.span_id == ROOT for span in courses] == [number == 0 for number in range(len(courses))]
    ways_out = [event for event in saga.story.journal if isinstance(event.fact, WAYS_OUT_OF_FAILED)]
    began = {continuation_span_id(SAGA, event.sequence): event.occurred_at for event in ways_out}
    for earlier, later in pairwise(courses):
        assert earlier.end_us <= later.start_us == began[later.span_id]
    at_rest = saga.story.status in (SagaStatus.COMPLETED, SagaStatus.COMPENSATED, SagaStatus.FAILED)
    assert at_rest <= bool(courses)
    for span in courses:
        assert (span.error is None) == (span.attributes["saga.status"] == "COMPLETED")
        instants = [moment.at_us for moment in span.moments]
        assert instants == sorted(instants)


@given(st.sampled_from(PLANS), happenings)
def test_every_completion_begins_with_its_acceptance_and_is_linked_to_its_call(plan: SagaPlan, story: list[Happening]) -> None:
    saga = live_through(plan, story).saga
    completions = {span.span_id: span for span in sorted_spans([seen(span) for span in saga.spans]).completions}
    accepted = {event.fact.attempt: event.occurred_at for event in saga.story.journal if isinstance(event.fact, StepAccepted)}
    for event in saga.story.journal:
        fact = event.fact
        if isinstance(fact, StepSucceeded | StepRejected | StepUnknown) and fact.sent_at is None and fact.attempt in accepted:
            span = completions.pop(completion_span_id(SAGA, fact.attempt))
            assert (span.start_us, span.end_us) == (accepted[fact.attempt], event.occurred_at)
            assert span.linked_ids == (attempt_span_id(SAGA, fact.attempt),)
    assert not completions


@given(st.sampled_from(PLANS), happenings)
def test_any_compensation_is_linked_to_the_last_attempt_to_execute(plan: SagaPlan, story: list[Happening]) -> None:
    saga = live_through(plan, story).saga
    attempts = sorted_spans([seen(span) for span in saga.spans]).attempts
    for undo in attempts:
        assert not undo.linked_ids or undo.name.startswith("compensate ")
        executed = [
            span for span in attempts if span.name.startswith("execute") and span.attributes["saga.step"] == undo.attributes["saga.step"]
        ]
        linked = [span for span in executed if span.span_id in undo.linked_ids]
        assert not linked or linked == [max(executed, key=lambda span: span.end_us)]


@given(st.sampled_from(PLANS), happenings)
def test_steps_that_were_due_are_the_only_ones_with_spans(plan: SagaPlan, story: list[Happening]) -> None:
    life = live_through(plan, story)
    due = {one.step_id for event in life.saga.story.journal for one in event.reached if isinstance(one, StepDue)}
    assert {span.attributes["saga.step"] for span in sorted_spans([seen(span) for span in life.saga.spans]).attempts} <= due
