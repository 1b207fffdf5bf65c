"""Steps that their participants finish later: limits, heartbeats, completions at any time (R24)."""

import pytest

from coordinator.core.errors import CommandRefusedError, Refusal
from coordinator.core.events import (
    IncidentOpened,
    LateOutcome,
    SagaCompleted,
    SagaTurnedBack,
    StepAccepted,
    StepCompletedEarly,
    StepHeartbeat,
    StepRejected,
    StepSucceeded,
    StepUnknown,
)
from coordinator.core.inputs import Outcome, Rejected, ResolvedSkipped, Succeeded
from coordinator.core.plan import RetryPolicy
from coordinator.core.values import Code, IncidentKind, Payload, SagaStatus, StepKind, StepStatus
from tests.builders import (
    COMPENSATE,
    Story,
    accepted,
    at,
    attempt,
    compensated,
    key_expired,
    misconfigured,
    mismatched,
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

HALF = Payload("shop.v1.Progress", b"half")


def waiting(limit_s: float = 100) -> Story:
    """`approve` was accepted at second 10."""
    story = started(sequence("approve", "ship"))
    story.reply("approve", accepted(limit_s), 10)
    return story


# ── Accepted ─────────────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_time_of_an_accepted_step_counts_from_the_answer() -> None:
    story = started(sequence("approve"))
    assert story.reply("approve", accepted(100), 10) == (
        StepAccepted(attempt=attempt("approve", 1), sent_at=at(10), accepted_until=at(110)),
    )
    assert (story.owed(), story.wake_at()) == ((), at(110))
    assert story.step("approve").in_doubt  # R5


def test_accepted_step_is_not_bounded_by_its_step_limit() -> None:  # R13, R24
    story = started(sequence(step("approve", limit_s=20)))
    story.reply("approve", accepted(1_000), 10)
    assert story.wake(20) == story.wake(1_009) == ()


def test_accepted_step_is_bounded_by_the_limit_of_the_saga() -> None:  # R13
    story = started(sequence("approve", limit_s=60))
    story.reply("approve", accepted(1_000), 10)
    assert story.wake_at() == at(60)
    story.wake(60)
    assert story.owed_steps() == {("approve", COMPENSATE)}


def test_earliest_of_several_accepted_steps_wakes() -> None:
    story = started(parallel("a", "b"))
    story.reply("a", accepted(100), 1)
    story.reply("b", accepted(50), 1)
    assert story.wake_at() == at(51)
    assert [fact.attempt.step_id for fact in story.wake(51) if isinstance(fact, StepUnknown)] == ["b"]


def test_expiry_is_unknown_without_a_further_attempt() -> None:  # R24
    story = waiting()
    assert story.wake(109.999_999) == ()
    unknown_, turned_back = story.wake(110)
    assert isinstance(unknown_, StepUnknown)
    assert (unknown_.attempt, unknown_.failure.code) == (attempt("approve", 1), Code.DEADLINE_EXCEEDED)
    assert isinstance(turned_back, SagaTurnedBack)
    assert story.owed_steps() == {("approve", COMPENSATE)}


def test_expiry_of_a_best_effort_step_lets_the_saga_go_on() -> None:  # R14
    story = started(sequence(step("gift", kind=StepKind.BEST_EFFORT), "ship"))
    story.reply("gift", accepted(10), 1)
    story.wake(11)
    assert {step_id for step_id, _ in story.owed_steps()} == {"ship"}


def test_expiry_behind_the_pivot_is_an_incident() -> None:  # R11
    story = started(sequence(step("pivot", kind=StepKind.PIVOT), step("ship", kind=StepKind.RETRIABLE)))
    story.reply("pivot", succeeded(), 1)
    story.reply("ship", accepted(10), 2)
    story.wake(12)
    assert [one.fact.kind for one in story.state.incidents] == [IncidentKind.STEP_EXHAUSTED]


def test_doubt_of_an_expired_acceptance_outlives_a_retry() -> None:  # R5, R24
    story = started(sequence(step("pivot", kind=StepKind.PIVOT), step("ship", kind=StepKind.RETRIABLE)))
    story.reply("pivot", succeeded(), 1)
    story.reply("ship", accepted(10), 2)
    story.wake(12)
    story.retry("ship", 13)
    story.reply("ship", rejected(), 14)
    assert story.step("ship").status is StepStatus.UNKNOWN


def test_token_of_a_round_that_is_tried_again_still_counts() -> None:  # R1, R24
    story = started(sequence(step("pivot", kind=StepKind.PIVOT), step("ship", kind=StepKind.RETRIABLE)))
    story.reply("pivot", succeeded(), 1)
    story.reply("ship", accepted(10), 2)
    story.wake(12)
    story.retry("ship", 13)
    assert [type(fact) for fact in story.complete("ship", succeeded(), 14)] == [StepCompletedEarly]
    assert [type(fact) for fact in story.reply("ship", unknown(), 15)] == [StepSucceeded, SagaCompleted]


# ── Heartbeats ───────────────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(("when", "is_journalled"), [(34.9, False), (35, True)])
def test_heartbeat_without_news_is_journalled_from_a_quarter_of_the_time_on(when: float, is_journalled: bool) -> None:
    story = waiting()
    facts = story.beat("approve", when)
    assert bool(facts) == is_journalled
    assert story.wake_at() == (at(when + 100) if is_journalled else at(110))


def test_heartbeat_that_is_not_journalled_takes_no_time_away() -> None:
    story = waiting()
    story.beat("approve", 20)
    story.beat("approve", 30)
    assert story.beat("approve", 40) == (StepHeartbeat(step_id=story.step("approve").plan.id, accepted_until=at(140), progress=None),)


def test_heartbeat_never_shortens_the_time() -> None:
    story = waiting()
    (beaten,) = story.beat("approve", 20, limit_s=1, progress=HALF)
    assert isinstance(beaten, StepHeartbeat)
    assert beaten.accepted_until == at(110)


def test_progress_is_kept_and_journalled_once() -> None:
    story = waiting()
    assert story.beat("approve", 11, progress=HALF)
    assert story.beat("approve", 11.5, progress=HALF) == ()
    story.beat("approve", 60)
    assert story.step("approve").progress == HALF


def test_progress_that_changes_with_every_heartbeat_does_not_fill_the_journal() -> None:
    story = waiting(400)
    said = [story.beat("approve", 10 + number / 10, progress=Payload("shop.v1.Progress", b"%d" % number)) for number in range(1_000)]
    assert len([facts for facts in said if facts]) == 25, "every 4 s of 100 s: a hundredth of the limit"
    assert said[0], "the first is not kept waiting"


def test_progress_that_comes_too_soon_goes_with_a_later_heartbeat() -> None:
    story = waiting()
    story.beat("approve", 11, progress=HALF)
    more = Payload("shop.v1.Progress", b"more")
    assert story.beat("approve", 11.5, progress=more) == ()
    assert story.beat("approve", 12, progress=more)
    assert story.step("approve").progress == more


def test_heartbeat_asks_for_its_own_time() -> None:
    story = waiting()
    story.beat("approve", 20, limit_s=1_000)
    assert story.wake_at() == at(1_020)


def test_heartbeat_after_the_time_but_before_anybody_noticed_counts() -> None:
    story = waiting()
    story.pause(100)
    assert story.beat("approve", 120)
    story.resume(121)
    assert story.wake_at() == at(220)


def test_heartbeat_before_the_acceptance_is_recorded_says_nothing() -> None:
    story = started(sequence("approve"))
    assert story.beat("approve", 1, progress=HALF) == ()


def test_heartbeat_of_a_step_that_the_saga_undoes_is_taken_so_that_its_participant_can_be_told() -> None:  # R12
    story = waiting()
    story.cancel(20)
    assert story.beat("approve", 21) == ()


# ── Completions ──────────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_completion_names_the_attempt_that_was_accepted() -> None:
    story = started(sequence("approve", "ship"))
    story.reply("approve", retry_later(1), 1)
    story.reply("approve", accepted(100), 3)
    assert story.complete("approve", succeeded(), 4) == (
        StepSucceeded(attempt=attempt("approve", 2), sent_at=None, output=succeeded().output),
    )


@pytest.mark.parametrize(("sealed", "status"), [(True, StepStatus.REJECTED), (False, StepStatus.UNKNOWN)])
def test_refusal_after_an_acceptance_is_clean_only_if_it_is_sealed(sealed: bool, status: StepStatus) -> None:  # R5, R24
    story = waiting()
    story.pause(11)  # so that the step can be looked at before it is undone
    story.complete("approve", rejected(sealed=sealed), 12)
    assert story.step("approve").status is status


def test_same_completion_again_changes_nothing() -> None:
    story = waiting()
    story.complete("approve", succeeded(), 20)
    assert story.complete("approve", succeeded(), 21) == ()


@pytest.mark.parametrize("sealed", [True, False])
def test_same_refusal_again_changes_nothing_however_far_its_undo_is(sealed: bool) -> None:  # R5, R24
    story = waiting()
    story.complete("approve", rejected(sealed=sealed), 20)
    assert story.complete("approve", rejected(sealed=sealed), 21) == ()
    if not sealed:
        story.undo("approve", compensated(), 22)
    assert story.status is SagaStatus.COMPENSATED
    assert story.complete("approve", rejected(sealed=sealed), 23) == ()


def test_refusal_that_is_said_to_be_clean_afterwards_is_news() -> None:  # R5, R24
    story = waiting()
    story.complete("approve", rejected(), 20)
    (late,) = story.complete("approve", rejected(sealed=True), 21)
    assert isinstance(late, LateOutcome)


def test_other_completion_afterwards_is_recorded_and_changes_nothing() -> None:  # R24
    story = waiting()
    story.complete("approve", succeeded(), 20)
    (late,) = story.complete("approve", succeeded(b"other"), 21)
    assert isinstance(late, LateOutcome)
    assert story.step("approve").output == succeeded().output


def test_completion_of_a_round_that_never_was_is_not_recorded() -> None:  # R1, R24
    story = waiting()
    with pytest.raises(CommandRefusedError) as refused:
        story.complete("approve", succeeded(), 20, round_=2)
    assert refused.value.refusal is Refusal.TOO_LATE


def given_up_and_tried_anew() -> Story:
    """A step past the point of no return, refused in its first round and under way in its second."""
    story = started(sequence(step("charge", kind=StepKind.PIVOT), step("ship", kind=StepKind.RETRIABLE)))
    story.reply("charge", succeeded(), 1)
    story.reply("ship", accepted(60), 2)
    story.complete("ship", rejected(sealed=True), 3)
    story.retry("ship", 4)
    return story


def test_completion_of_an_earlier_round_is_recorded_and_does_not_settle_the_step() -> None:  # R1, R24
    story = given_up_and_tried_anew()
    (late,) = story.complete("ship", rejected(sealed=True), 5)
    assert isinstance(late, LateOutcome)
    assert late.attempt == attempt("ship", 1)
    assert story.step("ship").status is StepStatus.EXECUTING


def test_earlier_round_that_took_effect_after_all_asks_for_a_person() -> None:  # R1, R24
    story = given_up_and_tried_anew()
    late, incident = story.complete("ship", succeeded(), 5)
    assert isinstance(late, LateOutcome)
    assert isinstance(incident, IncidentOpened)
    assert incident.kind is IncidentKind.LATE_OUTCOME
    story.reply("ship", succeeded(), 6)
    assert story.status is SagaStatus.COMPLETED


ENDINGS: list[Outcome] = [
    unknown(), retry_later(60), not_sent(), rejected(), rejected(sealed=True), misconfigured(), mismatched(), key_expired(), accepted(60),
]  # fmt: skip


@pytest.mark.parametrize("ending", ENDINGS, ids=repr)
@pytest.mark.parametrize(
    ("result", "fact"), [(succeeded(), StepSucceeded), (rejected(sealed=True), StepRejected), (rejected(), StepUnknown)], ids=repr
)
def test_early_completion_counts_however_the_call_ends(
    ending: Outcome, result: Succeeded | Rejected, fact: type[StepSucceeded]
) -> None:  # R24
    story = started(sequence("approve", "ship"))
    story.complete("approve", result, 1)
    assert story.step("approve").status is StepStatus.EXECUTING
    first, *_ = story.reply("approve", ending, 2)
    assert isinstance(first, fact)
    assert not any(isinstance(one.fact, IncidentOpened) for one in story.journal)


def test_call_that_succeeds_by_itself_is_believed_before_its_early_completion() -> None:  # R24
    story = started(sequence("approve", "ship"))
    story.complete("approve", rejected(), 1)
    story.reply("approve", succeeded(), 2)
    assert story.step("approve").status is StepStatus.SUCCEEDED


def test_early_completion_of_a_saga_that_turned_back_is_undone_with_its_output() -> None:  # R12, R24
    story = started(parallel("approve", "charge"))
    story.complete("approve", succeeded(), 1)
    story.reply("charge", rejected(), 2)
    story.wake(12.5)
    assert story.effect("approve", COMPENSATE).output == succeeded().output


def test_completion_in_backoff_counts_at_once_and_its_call_is_not_owed_any_more() -> None:
    story = started(sequence("approve"))
    story.reply("approve", unknown(), 1)
    assert [type(fact) for fact in story.complete("approve", succeeded(), 1.05)] == [StepSucceeded, SagaCompleted]
    assert story.owed() == ()


def test_attempt_numbers_go_on_after_a_refusal_by_token() -> None:  # R1
    story = started(sequence(step("pivot", kind=StepKind.PIVOT), step("ship", kind=StepKind.RETRIABLE, retry=RetryPolicy(attempts_max=3))))
    story.reply("pivot", succeeded(), 1)
    story.reply("ship", retry_later(60), 2)
    story.complete("ship", rejected(sealed=True), 3)
    story.retry("ship", 4)
    (owed,) = story.owed_calls()
    assert (owed.attempt.round, owed.attempt.number) == (2, 2)


def test_acceptance_after_the_saga_turned_back_is_at_rest_at_once() -> None:  # R12
    story = started(parallel("approve", "charge"))
    story.reply("charge", rejected(), 1)
    (fact,) = story.reply("approve", accepted(60), 2)
    assert isinstance(fact, StepUnknown)
    assert story.owed_steps() == {("approve", COMPENSATE)}


def test_nobody_speaks_over_an_early_completion_however_long_it_waits() -> None:  # R17, R24
    story = started(sequence("approve", "ship"))
    story.complete("approve", succeeded(), 1)
    story.pause(2)
    story.recover(3)
    with pytest.raises(CommandRefusedError) as refused:
        story.resolve("approve", ResolvedSkipped(), 3_600)
    assert refused.value.refusal is Refusal.UNDER_WAY
    with pytest.raises(CommandRefusedError) as refused:
        story.retry("approve", 3_600)
    assert refused.value.refusal is Refusal.UNDER_WAY
    story.resume(3_601)
    story.reply("approve", unknown(), 3_602)
    assert story.step("approve").status is StepStatus.SUCCEEDED
