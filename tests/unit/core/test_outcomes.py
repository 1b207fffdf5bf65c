"""What an answer to Execute makes of its step: R5, R6, R7."""

import pytest

from coordinator.core.events import AttemptFailed, SagaTurnedBack, StepRejected, StepSucceeded, StepUnknown
from coordinator.core.inputs import Outcome
from coordinator.core.plan import RetryPolicy
from coordinator.core.values import AttemptOutcome, Code, Failure, IncidentKind, SagaStatus, StepStatus, TurnBackCause
from tests.builders import (
    ALREADY_EXISTS,
    COMPENSATE,
    PERMISSION_DENIED,
    Story,
    at,
    attempt,
    compensated,
    failure,
    key_expired,
    misconfigured,
    not_sent,
    parallel,
    rejected,
    retry_later,
    sequence,
    started,
    step,
    succeeded,
    unknown,
)


def test_first_attempt_rejected_is_clean_and_nothing_is_compensated() -> None:  # R5
    story = started(sequence("charge"))
    facts = story.reply("charge", rejected(), 1)
    assert facts[:2] == (
        StepRejected(attempt=attempt("charge", 1), sent_at=at(1), failure=rejected().failure, sealed=False),
        SagaTurnedBack(cause=TurnBackCause.STEP_REJECTED, step_id=attempt("charge", 1).step_id, failure=rejected().failure, quiet_at=at(1)),
    )
    assert story.status is SagaStatus.COMPENSATED
    assert story.owed() == ()


def test_rejection_after_an_unknown_attempt_leaves_the_step_unknown_and_is_compensated() -> None:  # R5
    story = started(sequence("charge"))
    story.reply("charge", unknown(), 1)
    facts = story.reply("charge", rejected(ALREADY_EXISTS), 2)
    assert facts[0] == StepUnknown(attempt=attempt("charge", 2), sent_at=at(2), failure=failure(ALREADY_EXISTS))
    assert story.owed_steps() == {("charge", COMPENSATE)}


def test_sealed_rejection_after_an_unknown_attempt_is_clean() -> None:  # R5
    story = started(sequence("charge"))
    story.reply("charge", unknown(), 1)
    facts = story.reply("charge", rejected(sealed=True), 2)
    assert facts[0] == StepRejected(attempt=attempt("charge", 2), sent_at=at(2), failure=rejected().failure, sealed=True)
    assert story.status is SagaStatus.COMPENSATED


@pytest.mark.parametrize("harmless", [retry_later(0), not_sent(), misconfigured()])
def test_rejection_after_attempts_known_without_effect_is_clean(harmless: Outcome) -> None:  # R5, R7
    story = started(sequence("charge"))
    story.reply("charge", harmless, 1)
    story.reply("charge", rejected(), 2)
    assert story.statuses() == {"charge": StepStatus.REJECTED}


def test_rejection_after_a_crash_leaves_the_step_unknown() -> None:  # R5, R29
    story = started(sequence("charge"))
    story.recover(1)
    facts = story.reply("charge", rejected(), 2)
    assert facts[0] == StepUnknown(attempt=attempt("charge", 2), sent_at=at(2), failure=rejected().failure)
    assert story.owed_steps() == {("charge", COMPENSATE)}


def test_doubt_about_one_step_does_not_touch_another() -> None:  # R5
    story = started(parallel("charge", "reserve"))
    story.reply("charge", unknown(), 1)
    facts = story.reply("reserve", rejected(), 1)
    assert isinstance(facts[0], StepRejected)


@pytest.mark.parametrize("code", [Code.DEADLINE_EXCEEDED, Code.UNAVAILABLE, Code.CANCELLED, Code.INTERNAL, Code.UNKNOWN])
def test_unknown_outcome_is_retried_and_the_step_stays_executing(code: Code) -> None:  # R6, R7
    story = started(sequence("charge"))
    (fact,) = story.reply("charge", unknown(code), 1)
    assert isinstance(fact, AttemptFailed)
    assert (fact.attempt, fact.outcome, fact.failure) == (attempt("charge", 1), AttemptOutcome.UNKNOWN, failure(code))
    assert story.statuses() == {"charge": StepStatus.EXECUTING}


def test_compensated_as_answer_to_execute_is_unknown() -> None:  # R6
    story = started(sequence("charge"))
    (fact,) = story.reply("charge", compensated(), 1)
    assert isinstance(fact, AttemptFailed)
    assert fact.outcome is AttemptOutcome.UNKNOWN
    assert fact.failure == Failure(Code.UNKNOWN, "the participant answered Compensated to the other kind of call")


def test_configuration_fault_every_time_gives_up_after_three_attempts_cleanly() -> None:  # R6
    story = started(sequence("charge"))
    assert isinstance(story.reply("charge", misconfigured(), 1)[0], AttemptFailed)
    assert isinstance(story.reply("charge", misconfigured(), 2)[0], AttemptFailed)
    assert isinstance(story.reply("charge", misconfigured(PERMISSION_DENIED), 3)[0], StepRejected)
    assert story.status is SagaStatus.COMPENSATED


def test_configuration_fault_after_an_unknown_attempt_is_not_clean() -> None:  # R6
    story = started(sequence("charge"))
    story.reply("charge", unknown(), 1)
    for when in (2, 3):
        story.reply("charge", misconfigured(), when)
    assert isinstance(story.reply("charge", misconfigured(), 4)[0], StepUnknown)
    assert story.owed_steps() == {("charge", COMPENSATE)}


def test_attempts_used_up_while_unknown_leave_the_step_unknown() -> None:  # R7
    story = started(sequence(step("charge", retry=RetryPolicy(attempts_max=2))))
    story.reply("charge", unknown(), 1)
    facts = story.reply("charge", unknown(Code.DEADLINE_EXCEEDED), 2)
    assert facts[0] == StepUnknown(attempt=attempt("charge", 2), sent_at=at(2), failure=failure(Code.DEADLINE_EXCEEDED))
    assert story.state.cause is TurnBackCause.STEP_UNKNOWN
    assert story.owed_steps() == {("charge", COMPENSATE)}


def test_code_that_is_not_retried_ends_the_step_but_says_nothing_about_its_effect() -> None:  # R7
    policy = RetryPolicy(non_retryable_codes=frozenset({Code.INTERNAL}))
    story = started(sequence(step("charge", retry=policy)))
    assert isinstance(story.reply("charge", unknown(Code.INTERNAL), 1)[0], StepUnknown)


@pytest.mark.parametrize("postponed", [retry_later(0.5), not_sent()])
def test_call_that_is_no_attempt_uses_up_none(postponed: Outcome) -> None:  # R7
    story = started(sequence(step("charge", retry=RetryPolicy(attempts_max=2))))
    for when in range(1, 6):
        (fact,) = story.reply("charge", postponed, when)
        assert isinstance(fact, AttemptFailed)
    assert (story.call("charge").failures, story.call("charge").postponed, story.call("charge").number) == (0, 5, 5)
    assert isinstance(story.reply("charge", unknown(), 7)[0], AttemptFailed)  # the first of two
    assert isinstance(story.reply("charge", unknown(), 8)[0], StepUnknown)


def test_retry_later_beyond_the_step_limit_ends_the_step_cleanly() -> None:  # R7
    story = started(sequence(step("charge", limit_s=60)))
    facts = story.reply("charge", retry_later(60), 1)
    assert isinstance(facts[0], StepRejected)


def test_retry_later_beyond_the_step_limit_after_doubt_ends_it_unknown() -> None:  # R5, R7
    story = started(sequence(step("charge", limit_s=60)))
    story.reply("charge", unknown(), 1)
    assert isinstance(story.reply("charge", retry_later(60), 2)[0], StepUnknown)


def test_expired_key_leaves_the_step_unknown() -> None:  # R21
    story = started(sequence("charge"))
    facts = story.reply("charge", key_expired(), 1)
    assert facts[0] == StepUnknown(attempt=attempt("charge", 1), sent_at=at(1), failure=key_expired().failure)
    story.undo("charge", key_expired(), 2)
    assert [incident.fact.kind for incident in story.state.incidents] == [IncidentKind.KEY_EXPIRED]
    assert story.status is SagaStatus.FAILED


def test_success_after_unknown_attempts_counts() -> None:
    story = started(sequence("charge", "ship"))
    story.reply("charge", unknown(), 1)
    (fact,) = story.reply("charge", succeeded(), 2)
    assert fact == StepSucceeded(attempt=attempt("charge", 2), sent_at=at(2), output=succeeded().output)
    assert story.statuses() == {"charge": StepStatus.SUCCEEDED, "ship": StepStatus.EXECUTING}


# ── Inputs that no longer matter decide nothing ───────────────────────────────────────────────────────────────────────


def _undoing() -> Story:
    story = started(sequence("reserve", "charge"))
    story.reply("reserve", succeeded(), 1)
    story.reply("charge", rejected(), 2)
    return story


def test_reply_twice_decides_once() -> None:
    story = started(sequence("charge", "ship"))
    story.reply("charge", succeeded(), 1)
    assert story.reply("charge", succeeded(), 1, number=1) == ()


def test_late_reply_of_an_earlier_attempt_decides_nothing() -> None:
    story = started(sequence("charge", "ship"))
    story.reply("charge", unknown(), 1)
    assert story.reply("charge", succeeded(), 2, number=1) == ()
    assert story.statuses()["charge"] is StepStatus.EXECUTING


def test_reply_of_an_attempt_that_is_not_owed_yet_decides_nothing() -> None:
    assert started(sequence("charge")).reply("charge", succeeded(), 1, number=2) == ()


def test_reply_of_a_step_that_waits_decides_nothing() -> None:
    assert started(sequence("charge", "ship")).reply("ship", succeeded(), 1, number=1) == ()


def test_reply_of_an_unknown_step_decides_nothing() -> None:
    assert started(sequence("charge")).reply("nobody", succeeded(), 1, number=1) == ()
    assert _undoing().reply("nobody", compensated(), 3, direction=COMPENSATE, number=1) == ()


def test_compensation_reply_of_a_step_that_is_not_compensated_decides_nothing() -> None:
    assert _undoing().reply("charge", compensated(), 3, direction=COMPENSATE, number=1) == ()


def test_execution_reply_after_its_compensation_began_decides_nothing() -> None:
    story = _undoing()
    assert story.reply("reserve", succeeded(), 3, number=1) == ()
    assert story.reply("reserve", succeeded(), 3, number=2) == ()


def test_reply_after_the_end_decides_nothing() -> None:
    story = _undoing()
    story.undo("reserve", compensated(), 3)
    assert story.status is SagaStatus.COMPENSATED
    assert story.reply("reserve", compensated(), 4, direction=COMPENSATE, number=1) == ()
    assert story.wake(5) == ()
    assert story.recover(6) == ()


def test_start_of_a_saga_that_is_there_decides_nothing() -> None:
    assert started(sequence("charge")).start(1) == ()
