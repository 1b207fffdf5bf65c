"""Turning back: who is awaited, until when, and what cancel and limits do (R10, R12, R13, R15)."""

import pytest

from coordinator.core.errors import CommandRefusedError
from coordinator.core.events import SagaBegan, SagaCompensated, SagaStarted, SagaTurnedBack, StepRejected, StepSucceeded, StepUnknown
from coordinator.core.inputs import ChangePolicy, Outcome, PolicyChange
from coordinator.core.values import Code, Failure, Payload, SagaStatus, StepId, StepStatus, TurnBackCause
from tests.builders import (
    COMPENSATE,
    DEFINITION,
    EXECUTE,
    INPUT,
    TRACE,
    Owed,
    Story,
    at,
    attempt,
    diamond,
    failure,
    not_sent,
    parallel,
    rejected,
    retry_later,
    seconds,
    sequence,
    started,
    step,
    succeeded,
    unknown,
)

GRACE_S = 0.5


def _siblings_in_flight() -> Story:
    """`reserve` is rejected at 3 s while `charge` (attempt timeout 10 s) is in flight."""
    story = started(parallel("reserve", "charge"))
    story.reply("reserve", rejected(), 3)
    return story


def test_sibling_in_flight_is_awaited_until_its_deadline() -> None:  # R12
    story = _siblings_in_flight()
    assert (story.state.quiet_at, story.wake_at()) == (at(3 + 10 + GRACE_S), at(3 + 10 + GRACE_S))
    assert story.owed() == ()
    assert story.statuses() == {"reserve": StepStatus.REJECTED, "charge": StepStatus.EXECUTING}


def test_sibling_in_flight_is_awaited_no_longer_than_its_step_limit() -> None:  # R12
    story = started(parallel("reserve", step("charge", limit_s=5)))
    story.reply("reserve", rejected(), 3)
    assert story.state.quiet_at == at(5 + GRACE_S)


def test_sibling_in_flight_is_awaited_no_longer_than_the_saga_limit() -> None:  # R12
    story = started(parallel("reserve", "charge", limit_s=7))
    story.reply("reserve", rejected(), 3)
    assert story.state.quiet_at == at(7 + GRACE_S)


def test_longest_of_the_siblings_in_flight_is_awaited() -> None:  # R12
    story = started(parallel("reserve", step("charge", timeout_s=2), step("ship", timeout_s=30)))
    story.reply("reserve", rejected(), 3)
    assert story.state.quiet_at == at(3 + 30 + GRACE_S)


def test_awaited_sibling_that_succeeds_is_compensated_at_once() -> None:  # R12
    story = _siblings_in_flight()
    facts = story.reply("charge", succeeded(), 4)
    assert facts == (StepSucceeded(attempt=attempt("charge", 1), sent_at=at(4), output=succeeded().output),)
    assert story.owed() == (Owed("charge", COMPENSATE, 1, at(4)),)


@pytest.mark.parametrize("outcome", [rejected(), not_sent(), retry_later(1)])
def test_awaited_sibling_known_without_effect_ends_the_saga(outcome: Outcome) -> None:  # R12
    story = _siblings_in_flight()
    facts = story.reply("charge", outcome, 4)
    assert isinstance(facts[0], StepRejected)
    assert facts[1:] == (SagaCompensated(),)


def test_awaited_sibling_that_ends_unknown_is_not_executed_again_but_compensated() -> None:  # R12
    story = _siblings_in_flight()
    facts = story.reply("charge", unknown(), 4)
    assert facts == (StepUnknown(attempt=attempt("charge", 1), sent_at=at(4), failure=unknown().failure),)
    assert story.owed_steps() == {("charge", COMPENSATE)}


def test_silence_until_quiet_makes_the_sibling_unknown() -> None:  # R12
    story = _siblings_in_flight()
    assert story.wake(13.4) == ()
    facts = story.wake(13.5)
    silence = Failure(Code.DEADLINE_EXCEEDED, "the saga turned back and no answer came in time")
    assert facts == (StepUnknown(attempt=attempt("charge", 1), sent_at=None, failure=silence),)
    assert story.owed() == (Owed("charge", COMPENSATE, 1, at(13.5)),)


def test_answer_after_the_silence_decides_nothing() -> None:  # R12
    story = _siblings_in_flight()
    story.wake(13.5)
    assert story.reply("charge", succeeded(), 14, number=1) == ()
    assert story.effect("charge", COMPENSATE).output is None


def test_nothing_is_compensated_before_all_is_quiet() -> None:  # R12
    story = started(parallel("reserve", "charge", "ship"))
    story.reply("reserve", succeeded(), 1)
    story.reply("charge", rejected(), 2)
    assert story.owed() == ()
    story.reply("ship", rejected(), 3)
    assert story.owed_steps() == {("reserve", COMPENSATE)}


def test_sibling_in_backoff_after_doubt_is_unknown_at_once() -> None:  # R12
    story = started(parallel("reserve", "charge"))
    story.reply("charge", unknown(), 3)
    story.reply("reserve", rejected(), 3.05)
    assert story.statuses() == {"reserve": StepStatus.REJECTED, "charge": StepStatus.COMPENSATING}
    assert story.owed() == (Owed("charge", COMPENSATE, 1, at(3.05)),)


def test_sibling_in_backoff_without_doubt_needs_no_compensation() -> None:  # R12
    story = started(parallel("reserve", "charge"))
    story.reply("charge", retry_later(5), 3)
    facts = story.reply("reserve", rejected(), 4)
    assert facts[-1] == SagaCompensated()
    assert story.statuses() == {"reserve": StepStatus.REJECTED, "charge": StepStatus.REJECTED}


def test_sibling_whose_backoff_is_over_counts_as_in_flight() -> None:  # R12
    story = started(parallel("reserve", "charge"))
    story.reply("charge", retry_later(5), 3)
    story.reply("reserve", rejected(), 8)
    assert story.statuses()["charge"] is StepStatus.EXECUTING
    assert story.wake_at() == at(18 + GRACE_S)


def test_success_of_an_awaited_sibling_starts_nothing_behind_it() -> None:  # R12, R14
    story = started(diamond())
    story.reply("a", succeeded(), 1)
    story.reply("b", rejected(), 2)
    story.reply("c", succeeded(), 3)
    assert story.statuses()["d"] is StepStatus.WAITING
    assert story.owed_steps() == {("c", COMPENSATE)}


# ── Cancel ───────────────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_cancel_of_a_running_saga_turns_it_back() -> None:
    story = started(sequence("reserve", "charge"))
    story.reply("reserve", succeeded(), 1)
    facts = story.cancel(2)
    why = Failure(Code.CANCELLED, "changed my mind")
    assert facts == (SagaTurnedBack(cause=TurnBackCause.CANCELLED, step_id=None, failure=why, quiet_at=at(12 + GRACE_S), actor="alice"),)


def test_cancel_of_a_pending_saga_ends_it_compensated() -> None:  # R15
    story = Story(sequence("reserve"))
    story.start(start_at=60)
    facts = story.cancel(2)
    assert isinstance(facts[0], SagaTurnedBack)
    assert facts[1:] == (SagaCompensated(),)
    assert (story.status, story.state.cause, story.state.ended_at) == (SagaStatus.COMPENSATED, TurnBackCause.CANCELLED, at(2))
    assert story.wake_at() is None


def test_cancel_twice_changes_nothing() -> None:
    story = started(sequence("reserve"))
    story.cancel(2)
    assert story.cancel(3) == ()
    story.reply("reserve", rejected(), 4)
    assert story.status is SagaStatus.COMPENSATED
    assert story.cancel(5) == ()


def test_cancel_of_a_saga_that_turned_back_by_itself_changes_nothing() -> None:
    story = _siblings_in_flight()
    assert story.cancel(4) == ()
    assert story.state.cause is TurnBackCause.STEP_REJECTED


def test_cancel_of_a_completed_saga_is_refused_and_changes_nothing() -> None:
    story = started(sequence("reserve"))
    story.reply("reserve", succeeded(), 1)
    before = story.state.sequence
    with pytest.raises(CommandRefusedError) as refused:
        story.cancel(2)
    assert (refused.value.status, story.status, story.state.sequence) == (SagaStatus.COMPLETED, SagaStatus.COMPLETED, before)


def test_cancel_of_a_saga_compensated_for_another_reason_is_refused() -> None:
    story = started(sequence("reserve"))
    story.reply("reserve", rejected(), 1)
    with pytest.raises(CommandRefusedError) as refused:
        story.cancel(2)
    assert refused.value.status is SagaStatus.COMPENSATED


def test_cancel_of_a_saga_that_failed_to_undo_changes_nothing() -> None:
    story = started(sequence(step("reserve", undo_limit_s=0), "charge"))
    story.reply("reserve", succeeded(), 1)
    story.reply("charge", rejected(), 2)
    story.undo("reserve", unknown(), 3)
    assert (story.cancel(4), story.status) == ((), SagaStatus.FAILED)


# ── Limits and delayed start ─────────────────────────────────────────────────────────────────────────────────────────────────────


def test_start_is_recorded_whole_and_owes_the_first_steps() -> None:
    story = Story(sequence("reserve", "charge", limit_s=60))
    facts = story.start(1)
    assert facts == (
        SagaStarted(
            definition=DEFINITION, input=INPUT, labels=(), idempotency_key="", start_at=None, deadline=at(61), trace=TRACE
        ),
    )  # fmt: skip
    assert story.owed() == (Owed("reserve", EXECUTE, 1, at(1)),)
    assert story.wake_at() == at(61)


def test_time_limit_of_a_start_goes_before_that_of_the_plan() -> None:
    assert started(sequence("reserve", limit_s=60), limit_s=5).state.deadline == at(5)


def test_saga_limit_turns_the_saga_back() -> None:  # R13
    story = started(sequence("reserve", limit_s=60))
    assert story.wake(59.9) == ()
    (fact,) = story.wake(60)
    over = Failure(Code.DEADLINE_EXCEEDED, "the time limit of the saga was reached")
    assert fact == SagaTurnedBack(cause=TurnBackCause.TIME_LIMIT, step_id=None, failure=over, quiet_at=at(60 + GRACE_S))


def test_saga_limit_reached_while_compensating_changes_nothing() -> None:  # R13
    story = started(sequence("reserve", "charge", limit_s=60))
    story.reply("reserve", succeeded(), 1)
    story.reply("charge", rejected(), 2)
    assert story.wake(61) == ()
    assert story.owed_steps() == {("reserve", COMPENSATE)}


def test_attempts_carry_the_earlier_of_step_and_saga_limit() -> None:  # R13
    assert started(sequence(step("reserve", limit_s=5), limit_s=60)).effect("reserve").send_before == at(5)
    assert started(sequence(step("reserve", limit_s=90), limit_s=60)).effect("reserve").send_before == at(60)


def test_delayed_start_sleeps_until_its_time() -> None:
    story = Story(sequence("reserve", limit_s=10))
    story.start(start_at=60)
    assert (story.status, story.owed(), story.wake_at(), story.state.deadline) == (SagaStatus.PENDING, (), at(60), at(70))
    assert story.wake(59) == ()
    assert story.wake(60) == (SagaBegan(),)
    assert story.owed() == (Owed("reserve", EXECUTE, 1, at(60)),)


def test_start_time_in_the_past_begins_at_once() -> None:
    story = Story(sequence("reserve"))
    story.start(10, start_at=5)
    assert (story.status, story.state.start_at) == (SagaStatus.RUNNING, None)


def test_clock_stepping_back_turns_no_history_around() -> None:
    story = started(sequence("reserve", "charge"), when=100)
    story.reply("reserve", succeeded(), 40)
    assert [event.occurred_at for event in story.journal] == [at(100), at(100)]
    assert story.owed() == (Owed("charge", EXECUTE, 1, at(100)),)


# ── Payload limit ────────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_outputs_beyond_the_payload_limit_turn_the_saga_back() -> None:
    story = started(sequence("reserve", "charge", payload_bytes_max=len(INPUT.value) + 10))
    facts = story.reply("reserve", succeeded(b"x" * 11), 1)
    assert isinstance(facts[0], StepSucceeded)
    assert isinstance(facts[1], SagaTurnedBack)
    assert (facts[1].cause, facts[1].failure.code) == (TurnBackCause.PAYLOAD_LIMIT, Code.RESOURCE_EXHAUSTED)
    assert story.owed_steps() == {("reserve", COMPENSATE)}
    assert story.statuses()["charge"] is StepStatus.WAITING


def test_outputs_up_to_the_payload_limit_are_allowed() -> None:
    story = started(sequence("reserve", "charge", payload_bytes_max=len(INPUT.value) + 10))
    story.reply("reserve", succeeded(b"x" * 10), 1)
    assert story.status is SagaStatus.RUNNING


def test_failure_keeps_its_details_unopened() -> None:
    detailed = failure()._replace(details=(Payload("google.rpc.ErrorInfo", b"\x01"),))
    story = started(sequence("reserve"))
    story.reply("reserve", type(rejected())(failure=detailed), 1)
    assert story.state.failure == detailed


@pytest.mark.parametrize(
    "change", [PolicyChange(attempt_timeout_us=seconds(1)), PolicyChange(execute_time_limit_us=seconds(1))], ids=["timeout", "limit"]
)
def test_policy_that_changes_while_a_call_is_under_way_does_not_shorten_the_wait_for_it(change: PolicyChange) -> None:  # R12
    story = started(parallel("reserve", "charge"))
    story.feed(ChangePolicy(step_id=StepId("charge"), change=change), 1)
    story.reply("reserve", rejected(), 2)
    story.wake(9.9)
    assert all(owed.not_before >= at(10) for owed in story.owed())


def test_clock_that_jumps_ahead_over_a_crash_does_not_shorten_the_wait() -> None:  # R12, R29
    """The calls of the dead process may be at work for as long as they could have been by its own clock."""
    story = _siblings_in_flight()
    story.recover(3_600)
    story.wake(3_600)
    assert all(owed.not_before >= at(3_610) for owed in story.owed())
