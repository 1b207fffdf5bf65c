"""Undoing: what is undone, in which order, and what happens when it cannot be (P4, R8, R12, R15, R20, R21)."""

import pytest

from coordinator.core.events import AttemptFailed, IncidentOpened, SagaCompensated, SagaFailed, StepCompensated, StepCompensationFailed
from coordinator.core.inputs import Misconfigured, Outcome, Rejected, Unknown
from coordinator.core.plan import RetryPolicy
from coordinator.core.values import AttemptOutcome, Code, Failure, IncidentKind, SagaStatus, StepId, StepKind, StepStatus
from tests.builders import (
    COMPENSATE,
    DEFAULT_RETRY,
    Story,
    at,
    attempt,
    compensated,
    diamond,
    graph,
    key_expired,
    misconfigured,
    parallel,
    rejected,
    retry_later,
    sequence,
    started,
    step,
    succeeded,
    unknown,
)

ONCE = RetryPolicy(attempts_max=1)


def _run(story: Story, *step_ids: str) -> Story:
    for step_id in step_ids:
        story.reply(step_id, succeeded(step_id.encode()), 1)
    return story


def _undoing(undo: RetryPolicy = DEFAULT_RETRY) -> Story:
    story = _run(started(sequence(step("reserve", undo=undo), "charge")), "reserve")
    story.reply("charge", rejected(), 2)
    return story


def test_sequence_is_undone_in_inverse_order() -> None:  # R12
    story = _run(started(sequence("a", "b", "c", "d")), "a", "b", "c")
    story.reply("d", rejected(), 2)
    undone = []
    while story.status is SagaStatus.COMPENSATING:
        ((step_id, direction),) = story.owed_steps()
        assert direction is COMPENSATE
        undone.append(step_id)
        story.undo(step_id, compensated(), 3)
    assert undone == ["c", "b", "a"]
    assert story.status is SagaStatus.COMPENSATED


def test_diamond_is_undone_from_its_end_with_the_middle_in_parallel() -> None:  # R12
    plan = graph([step(name) for name in "abcde"], {"b": ["a"], "c": ["a"], "d": ["b", "c"], "e": ["d"]})
    story = _run(started(plan), "a", "b", "c", "d")
    story.reply("e", rejected(), 2)
    assert story.owed_steps() == {("d", COMPENSATE)}
    story.undo("d", compensated(), 3)
    assert story.owed_steps() == {("b", COMPENSATE), ("c", COMPENSATE)}
    story.undo("c", compensated(), 4)
    assert story.owed_steps() == {("b", COMPENSATE)}
    story.undo("b", compensated(), 5)
    assert story.owed_steps() == {("a", COMPENSATE)}


def test_wide_parallel_is_undone_together() -> None:  # R12
    names = [f"s{number}" for number in range(20)]
    story = _run(started(parallel(*names)), *names[1:])
    story.reply("s0", rejected(), 2)
    assert story.owed_steps() == {(name, COMPENSATE) for name in names[1:]}


def test_step_that_failed_cleanly_or_never_ran_is_not_compensated() -> None:  # R5
    story = _run(started(diamond()), "a", "c")
    story.reply("b", rejected(), 2)
    assert story.statuses() == {
        "a": StepStatus.SUCCEEDED, "b": StepStatus.REJECTED, "c": StepStatus.COMPENSATING, "d": StepStatus.WAITING
    }  # fmt: skip


def test_read_only_step_is_never_compensated_and_blocks_nobody() -> None:  # R9
    plan = sequence("reserve", step("check", kind=StepKind.READ_ONLY), "charge")
    story = _run(started(plan), "reserve", "check")
    story.reply("charge", rejected(), 2)
    assert story.owed_steps() == {("reserve", COMPENSATE)}
    assert story.undo("reserve", compensated(), 3)[-1] == SagaCompensated()
    assert story.statuses()["check"] is StepStatus.SUCCEEDED


def test_read_only_step_that_ends_unknown_is_not_compensated() -> None:  # R9
    story = started(sequence(step("check", kind=StepKind.READ_ONLY, retry=ONCE)))
    facts = story.reply("check", unknown(), 1)
    assert facts[-1] == SagaCompensated()


def test_undo_of_a_successor_waits_through_a_read_only_step_between() -> None:  # R12
    plan = sequence("reserve", step("check", kind=StepKind.READ_ONLY), "charge", "ship")
    story = _run(started(plan), "reserve", "check", "charge")
    story.reply("ship", rejected(), 2)
    assert story.owed_steps() == {("charge", COMPENSATE)}


def test_last_undo_ends_the_saga() -> None:
    story = _undoing()
    facts = story.undo("reserve", compensated(), 3)
    assert facts == (StepCompensated(attempt=attempt("reserve", 1, COMPENSATE), sent_at=at(3), handler_ran=True), SagaCompensated())
    assert (story.state.ended_at, story.step("reserve").handler_ran) == (at(3), True)


def test_null_compensation_counts_as_undone() -> None:  # R18
    story = started(sequence(step("reserve", retry=ONCE)))
    story.reply("reserve", unknown(), 1)
    facts = story.undo("reserve", compensated(handler_ran=False), 2)
    assert facts[-1] == SagaCompensated()
    assert (story.statuses(), story.step("reserve").handler_ran) == ({"reserve": StepStatus.COMPENSATED}, False)


def test_succeeded_step_hands_its_output_to_its_compensation() -> None:  # R20
    story = _undoing()
    effect = story.effect("reserve", COMPENSATE)
    assert effect.output == succeeded(b"reserve").output


@pytest.mark.parametrize("code", [7, 9, 12])
def test_refusal_to_compensate_is_a_failed_attempt(code: int) -> None:  # R8
    story = _undoing()
    (fact,) = story.undo("reserve", rejected(code, sealed=True), 3)
    assert isinstance(fact, AttemptFailed)
    assert (fact.outcome, fact.attempt) == (AttemptOutcome.REFUSED, attempt("reserve", 1, COMPENSATE))
    assert story.statuses()["reserve"] is StepStatus.COMPENSATING


def test_succeeded_as_answer_to_compensate_is_unknown() -> None:  # R6
    (fact,) = _undoing().undo("reserve", succeeded(), 3)
    assert isinstance(fact, AttemptFailed)
    assert fact.outcome is AttemptOutcome.UNKNOWN
    assert fact.failure == Failure(Code.UNKNOWN, "the participant answered Succeeded to the other kind of call")


@pytest.mark.parametrize("outcome", [unknown(), rejected(), misconfigured()])
def test_compensation_out_of_attempts_opens_an_incident_and_fails_the_saga(outcome: Outcome) -> None:  # R15
    story = _undoing(ONCE)
    facts = story.undo("reserve", outcome, 3)
    why = story.call("reserve", COMPENSATE).failure
    assert isinstance(outcome, Unknown | Rejected | Misconfigured)
    assert why == outcome.failure
    assert facts == (
        StepCompensationFailed(attempt=attempt("reserve", 1, COMPENSATE), sent_at=at(3), failure=why),
        IncidentOpened(id=1, kind=IncidentKind.COMPENSATION_EXHAUSTED, step_id=StepId("reserve"), failure=why),
        SagaFailed(),
    )
    assert (story.status, story.owed(), story.wake_at(), story.state.ended_at) == (SagaStatus.FAILED, (), None, None)


def test_compensation_told_to_come_later_uses_up_no_attempt() -> None:  # R7
    story = _undoing(ONCE)
    for when in range(3, 8):
        (fact,) = story.undo("reserve", retry_later(0.5), when)
        assert isinstance(fact, AttemptFailed)


def test_expired_key_of_a_compensation_is_an_incident_at_once() -> None:  # R21
    story = _undoing()
    facts = story.undo("reserve", key_expired(), 3)
    assert facts[1] == IncidentOpened(id=1, kind=IncidentKind.KEY_EXPIRED, step_id=StepId("reserve"), failure=key_expired().failure)
    assert story.status is SagaStatus.FAILED


def test_other_paths_go_on_before_the_saga_is_failed() -> None:  # R15
    plan = graph([step("a"), step("b", undo=ONCE), step("c"), step("d"), step("e")], {"b": ["a"], "d": ["c"], "e": ["b", "d"]})
    story = _run(started(plan), "a", "b", "c", "d")
    story.reply("e", rejected(), 2)
    story.undo("b", unknown(), 3)
    assert (story.status, story.owed_steps()) == (SagaStatus.COMPENSATING, {("d", COMPENSATE)})
    story.undo("d", compensated(), 4)
    assert story.owed_steps() == {("c", COMPENSATE)}
    assert story.undo("c", compensated(), 5)[-1] == SagaFailed()
    assert story.statuses() == {
        "a": StepStatus.SUCCEEDED, "b": StepStatus.COMPENSATION_FAILED, "c": StepStatus.COMPENSATED,
        "d": StepStatus.COMPENSATED, "e": StepStatus.REJECTED,
    }  # fmt: skip


def test_step_before_a_failed_compensation_is_not_undone() -> None:  # R12, R15
    story = _run(started(sequence("a", step("b", undo=ONCE), "c")), "a", "b")
    story.reply("c", rejected(), 2)
    story.undo("b", unknown(), 3)
    assert (story.status, story.statuses()["a"]) == (SagaStatus.FAILED, StepStatus.SUCCEEDED)


def test_each_failed_compensation_opens_an_incident_of_its_own() -> None:  # R15
    story = _run(started(graph([step("a", undo=ONCE), step("b", undo=ONCE), step("c")], {"c": ["a", "b"]})), "a", "b")
    story.reply("c", rejected(), 2)
    assert SagaFailed() not in story.undo("a", unknown(), 3)
    assert story.undo("b", unknown(), 4)[-1] == SagaFailed()
    assert [(one.opened_at, one.fact.id, one.fact.step_id) for one in story.state.incidents] == [(at(3), 1, "a"), (at(4), 2, "b")]


def test_failed_saga_does_not_move_by_itself() -> None:  # R15
    story = _undoing(ONCE)
    story.undo("reserve", unknown(), 3)
    assert story.wake(1_000_000) == ()
    assert story.recover(1_000_001) == ()
    assert story.undo("reserve", compensated(), 1_000_002) == ()
