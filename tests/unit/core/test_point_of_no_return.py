"""The point of no return: when a saga can turn back, and how long it is tried where it cannot (R9-R13)."""

import pytest

from coordinator.core.errors import CommandRefusedError, Refusal
from coordinator.core.events import (
    AttemptFailed,
    IncidentClosed,
    IncidentOpened,
    SagaCompensated,
    SagaCompleted,
    SagaFailed,
    SagaTurnedBack,
    StepDue,
    StepRejected,
    StepRetried,
    StepSucceeded,
    StepUnknown,
    TurnBackRequested,
)
from coordinator.core.inputs import Outcome, Resolution, ResolvedRejected, ResolvedSkipped, ResolvedSucceeded
from coordinator.core.plan import RetryPolicy, SagaPlan
from coordinator.core.values import IncidentKind, Payload, SagaStatus, StepKind, StepStatus, TurnBackCause
from tests.builders import (
    ALREADY_EXISTS,
    Story,
    accepted,
    at,
    compensated,
    fails,
    graph,
    key_expired,
    mismatched,
    never,
    not_sent,
    rejected,
    retry_later,
    sequence,
    started,
    step,
    succeeded,
    unknown,
)

ONCE = RetryPolicy(attempts_max=1)
OTHER = Payload("shop.v1.PlaceOrder", b"other")


def with_pivot(*, retry: RetryPolicy | None = None, limit_s: float | None = None, step_limit_s: float = 300) -> SagaPlan:
    """`a`, then the pivot, then `c`, which must succeed."""
    policy = retry or RetryPolicy()
    pivot = step("pivot", kind=StepKind.PIVOT, retry=policy, limit_s=step_limit_s, undo_limit_s=1_000)
    return sequence("a", pivot, step("c", kind=StepKind.RETRIABLE, retry=policy, limit_s=5, undo_limit_s=60), limit_s=limit_s)


def at_pivot(plan: SagaPlan | None = None) -> Story:
    """The pivot is under way since second 1."""
    story = started(plan or with_pivot())
    story.reply("a", succeeded(), 1)
    return story


def past_pivot(plan: SagaPlan | None = None) -> Story:
    """`c` is under way since second 2."""
    story = at_pivot(plan)
    story.reply("pivot", succeeded(), 2)
    return story


# ── The pivot ────────────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_pivot_in_doubt_is_tried_beyond_the_limits_of_step_and_saga() -> None:  # R10
    story = at_pivot(with_pivot(limit_s=20, step_limit_s=10))
    assert story.effect("pivot").send_before == at(11)
    story.reply("pivot", unknown(), 5)
    assert story.effect("pivot").send_before is None
    story.wake(20)
    assert [type(fact) for fact in story.reply("pivot", unknown(), 900)] == [AttemptFailed]


def test_pivot_in_doubt_is_tried_for_its_recovery_time_since_it_first_failed() -> None:  # R10
    story = at_pivot()
    story.reply("pivot", unknown(), 5)
    assert [type(fact) for fact in story.reply("pivot", unknown(), 1_004)] == [AttemptFailed]
    facts = story.reply("pivot", unknown(), 1_005)
    assert [type(fact) for fact in facts] == [StepUnknown, IncidentOpened, SagaFailed]


def test_pivot_without_doubt_ends_with_its_step_limit() -> None:  # R13
    story = at_pivot(with_pivot(step_limit_s=10))
    facts = story.reply("pivot", retry_later(60), 5)
    assert [type(fact) for fact in facts] == [StepRejected, SagaTurnedBack]


@pytest.mark.parametrize("harmless", [retry_later(60), not_sent(), rejected(), mismatched()], ids=repr)
def test_wish_to_turn_back_is_granted_when_the_pivot_had_no_effect(harmless: Outcome) -> None:  # R10
    story = at_pivot()
    assert [type(fact) for fact in story.cancel(2)] == [TurnBackRequested]
    facts = story.reply("pivot", harmless, 3)
    (turned_back,) = [fact for fact in facts if isinstance(fact, SagaTurnedBack)]
    assert turned_back.quiet_at == at(3)
    assert not story.state.needs_person


@pytest.mark.parametrize("doubtful", [unknown(), accepted(60), key_expired()], ids=repr)
def test_wish_to_turn_back_waits_while_the_pivot_may_have_taken_effect(doubtful: Outcome) -> None:  # R10
    story = at_pivot()
    story.cancel(2)
    story.reply("pivot", doubtful, 3)
    assert story.state.cause is None
    assert story.state.turn_back_requested is not None


def test_wish_to_turn_back_is_dropped_when_the_pivot_succeeded() -> None:  # R10
    story = at_pivot()
    story.cancel(2)
    assert [type(fact) for fact in story.reply("pivot", succeeded(), 3)] == [StepSucceeded]
    assert story.state.turn_back_requested is None
    assert story.owed_steps() == {("c", story.owed_calls()[0].attempt.direction)}


def test_saga_limit_is_recorded_once_while_the_pivot_is_under_way() -> None:  # R10
    story = at_pivot(with_pivot(limit_s=20))
    assert story.wake_at() == at(20)
    (asked,) = story.wake(20)
    assert isinstance(asked, TurnBackRequested)
    assert asked.cause is TurnBackCause.TIME_LIMIT
    assert story.wake_at() is None
    assert story.wake(21) == ()


def test_first_wish_to_turn_back_is_the_one_that_counts() -> None:  # R10
    story = at_pivot(with_pivot(limit_s=20))
    story.cancel(2)
    story.wake(20)
    story.reply("pivot", rejected(), 21)
    assert story.state.cause is TurnBackCause.STEP_REJECTED
    assert [fact.cause for fact in _facts(story) if isinstance(fact, TurnBackRequested)] == [TurnBackCause.CANCELLED]


def test_nothing_new_is_reached_while_the_saga_shall_turn_back() -> None:  # R10, R12
    pivot, check, note = step("pivot", kind=StepKind.PIVOT), step("check", kind=StepKind.READ_ONLY), step("note", kind=StepKind.READ_ONLY)
    story = started(graph([pivot, check, note], {"note": ["check"]}))
    story.cancel(1)
    story.reply("check", succeeded(), 2)
    assert story.step("note").status is StepStatus.WAITING
    story.reply("pivot", succeeded(), 3)
    assert story.journal[-1].reached == (StepDue(note.id, None),)


def test_pivot_unknown_is_asked_for_once_and_by_name() -> None:  # R10
    story = at_pivot(with_pivot(retry=ONCE))
    story.reply("pivot", unknown(), 2)
    story.cancel(3)
    story.wake(4)
    (opened,) = [fact for fact in _facts(story) if isinstance(fact, IncidentOpened)]
    assert (opened.kind, opened.step_id) == (IncidentKind.PIVOT_UNKNOWN, "pivot")


def test_unknown_pivot_that_is_tried_again_keeps_its_doubt() -> None:  # R1, R5, R10
    story = at_pivot(with_pivot(retry=ONCE))
    story.reply("pivot", unknown(), 2)
    retried, closed = story.retry("pivot", 3)
    assert isinstance(retried, StepRetried)
    assert isinstance(closed, IncidentClosed)
    assert retried.round == 1
    facts = story.reply("pivot", rejected(ALREADY_EXISTS), 4)
    assert [type(fact) for fact in facts] == [StepUnknown, IncidentOpened, SagaFailed]


def test_pivot_found_without_effect_grants_the_wish_that_was_recorded() -> None:  # R10
    story = at_pivot(with_pivot(retry=ONCE))
    story.reply("pivot", unknown(), 2)
    story.cancel(3)
    story.resolve("pivot", ResolvedRejected(), 4)
    assert (story.status, story.state.cause) == (SagaStatus.COMPENSATING, TurnBackCause.STEP_REJECTED)


def test_pivot_left_out_by_a_person_lets_the_saga_go_on() -> None:  # R9
    story = at_pivot(with_pivot(retry=ONCE))
    story.reply("pivot", unknown(), 2)
    story.resolve("pivot", ResolvedSkipped(), 4)
    assert story.owed()[0].step_id == "c"


def test_pivot_is_not_left_out_over_a_wish_to_turn_back() -> None:  # R10
    story = at_pivot(with_pivot(retry=ONCE))
    story.reply("pivot", unknown(), 2)
    story.cancel(3)
    with pytest.raises(CommandRefusedError, match="resolving it as rejected does") as refused:
        story.resolve("pivot", ResolvedSkipped(), 4)
    assert refused.value.refusal is Refusal.STEP_STATUS


def beside_pivot(*, is_cancelled: bool) -> Story:
    """`check` is refused while the pivot is under way, so that the saga shall turn back."""
    pivot, check = step("pivot", kind=StepKind.PIVOT), step("check", kind=StepKind.READ_ONLY)
    story = started(graph([pivot, check, step("c", kind=StepKind.RETRIABLE)], {"c": ["pivot", "check"]}))
    story.reply("check", rejected(), 1)
    if is_cancelled:
        story.cancel(2)
    return story


@pytest.mark.parametrize("resolution", [None, ResolvedSucceeded(Payload("shop.v1.Done", b"said")), ResolvedSkipped()])
def test_step_that_was_mended_turns_nothing_back(resolution: Resolution | None) -> None:  # R10
    story = beside_pivot(is_cancelled=False)
    if resolution is None:
        story.retry("check", 3)
        story.reply("check", succeeded(), 4)
    else:
        story.resolve("check", resolution, 3)
    story.reply("pivot", retry_later(1), 5)
    assert (story.status, story.state.turn_back_requested) == (SagaStatus.RUNNING, None)
    story.reply("pivot", succeeded(), 6)
    assert story.owed()[0].step_id == "c"


def test_step_that_a_person_gives_up_turns_the_saga_back_as_before() -> None:  # R10
    story = beside_pivot(is_cancelled=False)
    story.resolve("check", ResolvedRejected(), 3)
    story.reply("pivot", retry_later(1), 5)
    assert story.state.cause is TurnBackCause.STEP_REJECTED


def test_person_who_cancelled_is_heard_although_the_step_is_mended() -> None:  # R10
    story = beside_pivot(is_cancelled=True)
    story.retry("check", 3)
    story.reply("check", succeeded(), 4)
    story.reply("pivot", retry_later(1), 5)
    assert story.state.cause is TurnBackCause.CANCELLED


def test_time_that_ran_out_is_heard_although_the_step_is_mended() -> None:  # R10
    pivot, check = step("pivot", kind=StepKind.PIVOT), step("check", kind=StepKind.READ_ONLY)
    story = started(graph([pivot, check], {}, limit_s=20))
    story.reply("check", rejected(), 1)
    story.wake(20)
    story.retry("check", 21)
    assert story.wake_at() == at(20)
    story.wake(21)
    story.reply("pivot", retry_later(1), 22)
    assert story.state.cause is TurnBackCause.TIME_LIMIT


def test_pivot_whose_expression_fails_turns_the_saga_back() -> None:  # R9
    plan = sequence("a", step("pivot", kind=StepKind.PIVOT, input=fails, copies_input=False))
    story = started(plan)
    facts = story.reply("a", succeeded(), 1)
    assert [type(fact) for fact in facts] == [StepSucceeded, SagaTurnedBack]
    assert story.state.cause is TurnBackCause.EXPRESSION_FAILED


def test_pivot_left_out_by_its_condition_is_passed() -> None:  # R9
    story = started(sequence("a", step("pivot", kind=StepKind.PIVOT, when=never), step("c", kind=StepKind.RETRIABLE)))
    story.reply("a", succeeded(), 1)
    with pytest.raises(CommandRefusedError) as refused:
        story.cancel(2)
    assert refused.value.refusal is Refusal.NO_RETURN


# ── Behind it ────────────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_limits_bound_nothing_behind_the_pivot() -> None:  # R13
    story = past_pivot(with_pivot(limit_s=20))
    assert story.effect("c").send_before is None
    assert story.wake_at() is None
    assert story.wake(20) == ()


def test_retriable_step_is_tried_for_its_recovery_time_since_it_first_failed() -> None:  # R13
    story = past_pivot()
    story.reply("c", unknown(), 10)
    assert [type(fact) for fact in story.reply("c", unknown(), 69)] == [AttemptFailed]
    facts = story.reply("c", unknown(), 70)
    assert [type(fact) for fact in facts] == [StepUnknown, IncidentOpened, SagaFailed]
    assert _last_incident(story).kind is IncidentKind.STEP_EXHAUSTED


def test_time_to_recover_counts_anew_when_a_person_has_it_tried_again() -> None:
    story = past_pivot()
    story.reply("c", unknown(), 10)
    story.reply("c", unknown(), 70)
    story.retry("c", 100)
    story.reply("c", unknown(), 110)
    assert [type(fact) for fact in story.reply("c", unknown(), 169)] == [AttemptFailed]


def test_attempts_count_anew_when_a_person_has_it_tried_again() -> None:
    story = past_pivot(with_pivot(retry=RetryPolicy(attempts_max=2)))
    story.reply("c", unknown(), 3)
    story.reply("c", unknown(), 4)
    story.retry("c", 5)
    assert [type(fact) for fact in story.reply("c", unknown(), 6)] == [AttemptFailed]


def test_refusal_behind_the_pivot_is_an_incident_at_once() -> None:  # R11
    story = past_pivot()
    facts = story.reply("c", rejected(), 3)
    assert [type(fact) for fact in facts] == [StepRejected, IncidentOpened, SagaFailed]
    assert _last_incident(story).kind is IncidentKind.STEP_REJECTED


def test_expression_that_fails_behind_the_pivot_is_an_incident() -> None:  # R11
    plan = sequence(step("pivot", kind=StepKind.PIVOT), step("c", kind=StepKind.RETRIABLE, input=fails, copies_input=False))
    story = started(plan)
    facts = story.reply("pivot", succeeded(), 1)
    assert [type(fact) for fact in facts] == [StepSucceeded, IncidentOpened, SagaFailed]
    assert _last_incident(story).kind is IncidentKind.EXPRESSION_FAILED


def test_best_effort_step_behind_the_pivot_is_bounded_by_its_own_limit() -> None:  # R13, R14
    gift = step("gift", kind=StepKind.BEST_EFFORT, limit_s=20)
    story = started(sequence(step("pivot", kind=StepKind.PIVOT), gift, step("c", kind=StepKind.RETRIABLE)))
    story.reply("pivot", succeeded(), 1)
    assert story.effect("gift").send_before == at(21)
    facts = story.reply("gift", unknown(), 20.9)
    assert [type(fact) for fact in facts] == [StepUnknown]
    assert story.owed()[0].step_id == "c"


def test_payload_limit_turns_nothing_back_behind_the_pivot() -> None:
    plan = sequence(step("pivot", kind=StepKind.PIVOT), step("c", kind=StepKind.RETRIABLE), payload_bytes_max=20)
    story = started(plan)
    story.reply("pivot", succeeded(b"x" * 30), 1)
    facts = story.reply("c", succeeded(b"x" * 30), 2)
    assert [type(fact) for fact in facts] == [StepSucceeded, SagaCompleted]


def test_others_go_on_while_a_person_is_asked() -> None:  # R11, R15
    after = {"c": ["pivot"], "d": ["pivot"]}
    kinds = {"pivot": StepKind.PIVOT, "c": StepKind.RETRIABLE, "d": StepKind.RETRIABLE}
    story = started(graph([step(name, kind=kind) for name, kind in kinds.items()], after))
    story.reply("pivot", succeeded(), 1)
    assert [type(fact) for fact in story.reply("c", rejected(), 2)] == [StepRejected, IncidentOpened]
    assert story.status is SagaStatus.RUNNING
    assert [type(fact) for fact in story.reply("d", succeeded(), 3)] == [StepSucceeded, SagaFailed]


def test_each_refused_step_is_an_incident_of_its_own_and_closed_alone() -> None:  # R11
    after = {"c": ["pivot"], "d": ["pivot"]}
    kinds = {"pivot": StepKind.PIVOT, "c": StepKind.RETRIABLE, "d": StepKind.RETRIABLE}
    story = started(graph([step(name, kind=kind) for name, kind in kinds.items()], after))
    story.reply("pivot", succeeded(), 1)
    story.reply("c", rejected(), 2)
    story.reply("d", rejected(), 3)
    story.resolve("c", ResolvedSucceeded(OTHER), 4)
    assert [(one.fact.step_id, one.closed_at) for one in story.state.incidents] == [("c", at(4)), ("d", None)]
    assert story.status is SagaStatus.FAILED


# ── Without a pivot ──────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_retriable_step_that_is_due_is_the_point_of_no_return() -> None:  # R9
    story = started(sequence("a", step("c", kind=StepKind.RETRIABLE)))
    story.reply("a", succeeded(), 1)
    with pytest.raises(CommandRefusedError) as refused:
        story.cancel(2)
    assert refused.value.refusal is Refusal.NO_RETURN


def test_retriable_step_that_is_left_out_or_unfit_is_not() -> None:  # R9
    left_out = step("c", kind=StepKind.RETRIABLE, when=never)
    unfit = step("d", kind=StepKind.RETRIABLE, input=fails, copies_input=False)
    story = started(sequence("a", left_out, unfit))
    facts = story.reply("a", succeeded(), 1)
    assert [type(fact) for fact in facts] == [StepSucceeded, SagaTurnedBack]
    story.undo("a", compensated(), 2)
    assert isinstance(_facts(story)[-1], SagaCompensated)


def _facts(story: Story) -> list[object]:
    return [event.fact for event in story.journal]


def _last_incident(story: Story) -> IncidentOpened:
    return story.state.incidents[-1].fact
