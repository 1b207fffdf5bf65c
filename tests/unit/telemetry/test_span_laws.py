"""Laws of spans, over stories of any shape with crashes anywhere in them."""

from hypothesis import given
from hypothesis import strategies as st

from coordinator.core.inputs import Cancel, Outcome, Replied, Wake
from coordinator.core.plan import RetryPolicy, SagaPlan
from coordinator.core.trace import attempt_traceparent, parse_traceparent, root_span_id
from coordinator.core.values import AttemptKey
from tests.builders import SAGA, at, compensated, diamond, not_sent, parallel, rejected, retry_later, sequence, step, succeeded, unknown
from tests.unit.telemetry.observed import Observed, Seen, seen

FEW = RetryPolicy(attempts_max=2)
PLANS: list[SagaPlan] = [
    sequence("a", "b"),
    diamond(),
    parallel(step("a", retry=FEW, undo=FEW), step("b", retry=FEW, undo=FEW), limit_s=40),
]
OUTCOMES: list[Outcome] = [
    succeeded(),
    rejected(),
    rejected(sealed=True),
    unknown(),
    retry_later(1),
    not_sent(),
    compensated(),
    compensated(handler_ran=False),
]

replies = st.tuples(st.sampled_from(OUTCOMES), st.integers(0, 3))
happenings = st.lists(replies | st.sampled_from(["crash", "recover", "wake", "cancel", "repeat"]), max_size=30)


def live_through(plan: SagaPlan, story: list[tuple[Outcome, int] | str]) -> tuple[Observed, dict[int, AttemptKey]]:
    """The saga after all of that, and every call that was sent, by the span id that travelled with it."""
    saga = Observed(plan)
    saga.start()
    sent: dict[int, AttemptKey] = {}
    last: Replied | None = None
    for number, happened in enumerate(story):
        now = 1.0 + number * 5
        match happened:
            case (outcome, index):
                owed = saga.story.owed_calls()
                if not owed:
                    continue
                attempt = owed[index % len(owed)].attempt
                carried = parse_traceparent(attempt_traceparent(saga.story.state.trace, SAGA, attempt))
                assert carried is not None
                assert sent.setdefault(carried.span_id, attempt) == attempt, "two attempts travelled with one span id"
                last = Replied(attempt=attempt, outcome=outcome, sent_at=None if outcome == not_sent() else at(now - 1))
                saga.feed(last, now)
            case "crash":
                saga.crash()
            case "recover":
                saga.recover(now)
            case "repeat" if last is not None:
                saga.feed(last, now)
            case "cancel" if not saga.story.state.ended_at and saga.story.owed_calls():
                saga.feed(Cancel(), now)
            case _:
                saga.feed(Wake(), now)
    return saga, sent


@given(st.sampled_from(PLANS), happenings)
def test_any_story_with_crashes_leaves_one_trace_without_doubled_spans(plan: SagaPlan, story: list[tuple[Outcome, int] | str]) -> None:
    saga, sent = live_through(plan, story)
    spans: list[Seen] = [seen(span) for span in saga.spans]
    assert len({span.span_id for span in spans}) == len(spans)
    assert len({span.trace_id for span in spans}) <= 1
    roots = [span for span in spans if span.name == "saga place-order"]
    at_rest = saga.story.status is not None and saga.story.status.name in {"COMPLETED", "COMPENSATED", "FAILED"}
    assert len(roots) == at_rest
    for span in spans:
        assert span.start_us <= span.end_us
        if span in roots:
            assert span.span_id == root_span_id(SAGA)
            assert span.start_us <= min(other.start_us for other in spans)
            assert span.end_us >= max(other.end_us for other in spans)
        else:
            assert span.parent_id == root_span_id(SAGA)
            attempt = sent[span.span_id]  # the participant's own span hangs below this one
            assert (span.attributes["saga.step"], span.attributes["saga.attempt"]) == (attempt.step_id, attempt.number)
            assert bool(span.linked_ids) == span.name.startswith("compensate ")


@given(st.sampled_from(PLANS), happenings)
def test_any_compensation_is_linked_to_the_last_attempt_to_execute(plan: SagaPlan, story: list[tuple[Outcome, int] | str]) -> None:
    saga, _ = live_through(plan, story)
    spans = [seen(span) for span in saga.spans]
    for undo in spans:
        executed = [
            span for span in spans if span.name.startswith("execute") and span.attributes["saga.step"] == undo.attributes.get("saga.step")
        ]
        if undo.linked_ids and executed:
            linked = [span for span in executed if span.span_id in undo.linked_ids]
            assert not linked or linked == [max(executed, key=lambda span: span.end_us)]
