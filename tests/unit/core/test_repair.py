"""What persons do to steps that are stuck: rounds and inputs (R1), resolutions and what comes after them (R17)."""

from dataclasses import replace

import pytest

from coordinator.core.errors import CommandRefusedError, Refusal
from coordinator.core.events import (
    IncidentClosed,
    IncidentOpened,
    LateOutcome,
    SagaCompensated,
    SagaFailed,
    SagaTurnedBack,
    StepCompensationFailed,
    StepPolicyChanged,
    StepResolved,
    StepRetried,
)
from coordinator.core.inputs import (
    Acknowledge,
    ChangePolicy,
    Outcome,
    PolicyChange,
    Resolution,
    ResolvedCompensated,
    ResolvedRejected,
    ResolvedSkipped,
    ResolvedSucceeded,
    ResolveOutput,
)
from coordinator.core.late import LATE_OUTCOMES_MAX
from coordinator.core.plan import RetryPolicy
from coordinator.core.values import IncidentKind, Payload, SagaStatus, StepId, StepKind, StepStatus, TurnBackCause
from tests.builders import (
    COMPENSATE,
    SAGA,
    Story,
    accepted,
    at,
    compensated,
    fails,
    misconfigured,
    mismatched,
    not_sent,
    parallel,
    rejected,
    retry_later,
    saga_input,
    sequence,
    started,
    step,
    succeeded,
    unknown,
)

ONCE = RetryPolicy(attempts_max=1)
OTHER = Payload("shop.v1.PlaceOrder", b"other")
SAID = Payload("shop.v1.Done", b"said")


def behind_the_pivot(**options: RetryPolicy) -> Story:
    """`c`, which must succeed, is under way since second 1."""
    plan = sequence(step("pivot", kind=StepKind.PIVOT), step("c", kind=StepKind.RETRIABLE, retry=options.get("retry", RetryPolicy())))
    story = started(plan)
    story.reply("pivot", succeeded(), 1)
    return story


# ── Rounds (R1) ──────────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_new_round_has_a_new_key_and_goes_on_counting() -> None:  # R1
    story = behind_the_pivot()
    story.reply("c", not_sent(), 2)
    story.reply("c", rejected(), 3)
    story.retry("c", 4, given=OTHER)
    effect = story.effect("c")
    assert (effect.key, effect.attempt.round, effect.attempt.number) == (f"{SAGA}/c/execute/2", 2, 3)
    assert (effect.input, effect.first_attempt_at) == (OTHER, at(4))


def test_same_round_keeps_key_input_and_first_attempt() -> None:  # R1, R21
    story = behind_the_pivot(retry=ONCE)
    story.reply("c", unknown(), 2)
    story.retry("c", 50)
    effect = story.effect("c")
    assert (effect.key, effect.attempt.number, effect.first_attempt_at) == (f"{SAGA}/c/execute/1", 2, at(1))


def test_new_round_without_an_input_keeps_the_one_it_has() -> None:  # R1
    story = behind_the_pivot()
    story.reply("c", rejected(), 2)
    before = story.step("c").input
    story.retry("c", 3)
    assert (story.step("c").input, story.call("c").round) == (before, 2)


def test_sealed_refusal_frees_the_input_whatever_was_in_doubt_before() -> None:  # R1, R5
    story = behind_the_pivot()
    story.reply("c", unknown(), 2)
    story.reply("c", rejected(sealed=True), 3)
    retried, *_ = story.retry("c", 4, given=OTHER)
    assert isinstance(retried, StepRetried)
    assert retried.round == 2
    assert not story.step("c").in_doubt


def test_refusal_in_a_new_round_is_judged_by_that_round_alone() -> None:  # R5
    story = behind_the_pivot()
    story.reply("c", unknown(), 2)
    story.reply("c", rejected(sealed=True), 3)
    story.retry("c", 4)
    story.reply("c", rejected(), 5)
    assert story.step("c").status is StepStatus.REJECTED


@pytest.mark.parametrize("harmless", [retry_later(60), not_sent(), misconfigured()], ids=repr)
def test_step_in_backoff_known_without_effect_may_get_another_input(harmless: Outcome) -> None:  # R1
    story = behind_the_pivot()
    story.reply("c", harmless, 2)
    story.retry("c", 2.01, given=OTHER)
    assert (story.step("c").input, story.call("c").round) == (OTHER, 2)


def test_step_in_doubt_never_gets_another_input() -> None:  # R1
    story = behind_the_pivot()
    story.reply("c", unknown(), 2)
    with pytest.raises(CommandRefusedError) as refused:
        story.retry("c", 2.01, given=OTHER)
    assert refused.value.refusal is Refusal.INPUT_FIXED


def test_retry_in_backoff_is_due_at_once_and_uses_up_nothing() -> None:
    story = behind_the_pivot()
    story.reply("c", retry_later(60), 2)
    story.retry("c", 5)
    (owed,) = story.owed()
    assert (owed.number, owed.not_before) == (2, at(5))


def test_compensation_that_is_tried_again_keeps_its_key() -> None:  # R1, R15
    story = started(sequence(step("a", undo=ONCE), "b"))
    story.reply("a", succeeded(), 1)
    story.reply("b", rejected(), 2)
    facts = story.undo("a", unknown(), 3)
    assert [type(fact) for fact in facts] == [StepCompensationFailed, IncidentOpened, SagaFailed]
    story.retry("a", 4)
    effect = story.effect("a", COMPENSATE)
    assert (effect.key, effect.attempt.number) == (f"{SAGA}/a/compensate/1", 2)
    assert story.status is SagaStatus.COMPENSATING


def test_compensation_of_a_second_round_names_its_key() -> None:  # R1
    story = started(parallel("a", "b"))
    story.reply("a", retry_later(60), 1)
    story.retry("a", 2, given=OTHER)
    story.reply("a", succeeded(), 3)
    story.reply("b", rejected(), 4)
    effect = story.effect("a", COMPENSATE)
    assert (effect.execute_key, effect.input) == (f"{SAGA}/a/execute/2", OTHER)


def test_step_whose_expression_failed_needs_an_input_and_begins_its_first_round() -> None:  # R11
    plan = sequence(step("pivot", kind=StepKind.PIVOT), step("c", kind=StepKind.RETRIABLE, input=fails, copies_input=False))
    story = started(plan)
    story.reply("pivot", succeeded(), 1)
    with pytest.raises(CommandRefusedError) as refused:
        story.retry("c", 2)
    assert refused.value.refusal is Refusal.STEP_STATUS
    story.retry("c", 3, given=OTHER)
    assert (story.call("c").round, story.owed()[0].number, story.effect("c").input) == (1, 1, OTHER)


def test_input_that_a_person_gives_counts_for_the_payload_limit() -> None:
    story = behind_the_pivot()
    story.reply("c", rejected(), 2)
    before = story.state.payload_bytes
    story.retry("c", 3, given=OTHER)
    assert story.state.payload_bytes == before + len(OTHER.value)


# ── Resolving (R17) ──────────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("resolution", [ResolvedSucceeded(SAID), ResolvedSkipped(), ResolvedRejected(), ResolvedCompensated()], ids=repr)
def test_nobody_resolves_what_is_under_way_or_accepted(resolution: Resolution) -> None:  # R17
    story = started(parallel("a", "b"))
    story.reply("b", accepted(60), 1)
    for step_id in ("a", "b"):
        with pytest.raises(CommandRefusedError) as refused:
            story.resolve(step_id, resolution, 2)
        assert refused.value.refusal is Refusal.UNDER_WAY


def test_step_resolved_as_succeeded_is_undone_with_that_output() -> None:  # R17, R20
    story = started(parallel("a", "b"))
    story.reply("a", unknown(), 1)
    story.resolve("a", ResolvedSucceeded(SAID), 1.05)
    story.reply("b", rejected(), 2)
    assert story.effect("a", COMPENSATE).output == SAID


def test_step_resolved_as_succeeded_hands_its_output_on() -> None:
    taken = step("b", input=lambda values: values.output_of(0) or OTHER, copies_input=False)
    story = started(sequence("a", taken))
    story.reply("a", retry_later(60), 1)
    story.resolve("a", ResolvedSucceeded(SAID), 2)
    assert story.effect("b").input == SAID


def test_output_of_the_wrong_type_is_refused() -> None:
    story = started(sequence(step("a", check_output=lambda payload: f"expected shop.v1.Other, found {payload.type_name}")))
    story.reply("a", retry_later(60), 1)
    with pytest.raises(CommandRefusedError) as refused:
        story.resolve("a", ResolvedSucceeded(SAID), 2)
    assert refused.value.refusal is Refusal.TYPE_MISMATCH
    assert "shop.v1.Other" in str(refused.value)


def test_step_resolved_as_rejected_turns_the_saga_back() -> None:
    story = started(sequence("a", "b"))
    story.reply("a", succeeded(), 1)
    story.reply("b", retry_later(60), 2)
    facts = story.resolve("b", ResolvedRejected(), 3)
    assert [type(fact) for fact in facts] == [StepResolved, SagaTurnedBack]
    assert (story.state.cause, story.state.failed_step) == (TurnBackCause.STEP_REJECTED, "b")


def test_step_resolved_as_skipped_lets_its_successors_begin() -> None:  # R14
    story = started(sequence("a", "b"))
    story.reply("a", unknown(), 1)
    story.resolve("a", ResolvedSkipped(), 1.05)
    assert {step_id for step_id, _ in story.owed_steps()} == {"b"}


def test_step_that_was_never_executed_can_have_succeeded_if_there_is_nothing_to_undo() -> None:
    story = started(parallel(step("a", input=fails, copies_input=False, kind=StepKind.READ_ONLY), step("pivot", kind=StepKind.PIVOT)))
    story.reply("pivot", succeeded(), 1)
    story.resolve("a", ResolvedSucceeded(SAID), 2)  # nothing of a step that only reads is ever undone
    assert story.step("a").status is StepStatus.SUCCEEDED


def test_undone_by_hand_ends_the_saga() -> None:  # R17
    story = started(sequence(step("a", undo=ONCE), "b"))
    story.reply("a", succeeded(), 1)
    story.reply("b", rejected(), 2)
    story.undo("a", unknown(), 3)
    facts = story.resolve("a", ResolvedCompensated(), 4)
    assert [type(fact) for fact in facts] == [StepResolved, IncidentClosed, SagaCompensated]


def test_known_success_can_only_be_resolved_as_undone() -> None:  # R17
    story = started(sequence(step("a", undo=ONCE), "b"))
    story.reply("a", succeeded(), 1)
    story.reply("b", rejected(), 2)
    story.undo("a", unknown(), 3)
    for resolution in (ResolvedSucceeded(SAID), ResolvedSkipped(), ResolvedRejected()):
        with pytest.raises(CommandRefusedError) as refused:
            story.resolve("a", resolution, 4)
        assert refused.value.refusal is Refusal.STEP_STATUS


def test_unknown_step_that_a_person_says_succeeded_is_undone_again_with_its_output() -> None:  # R17, R20
    story = started(sequence(step("a", retry=ONCE, undo=ONCE)))
    story.reply("a", unknown(), 1)
    story.undo("a", unknown(), 2)
    story.resolve("a", ResolvedSucceeded(SAID), 3)
    effect = story.effect("a", COMPENSATE)
    assert (effect.output, effect.attempt.number) == (SAID, 2)
    story.undo("a", compensated(), 4)
    assert story.status is SagaStatus.COMPENSATED


# ── What comes later (R17) ───────────────────────────────────────────────────────────────────────────────────────────────────────


def _resolved(resolution: Resolution) -> Story:
    story = behind_the_pivot()
    story.reply("c", retry_later(60), 2)
    story.resolve("c", resolution, 3)
    return story


@pytest.mark.parametrize(
    ("resolution", "said", "contradicts"),
    [
        (ResolvedSkipped(), succeeded(), True),
        (ResolvedSkipped(), rejected(), False),
        (ResolvedSucceeded(SAID), rejected(), True),
        (ResolvedSucceeded(SAID), succeeded(b"other"), False),
    ],
    ids=repr,
)
def test_late_completion_is_recorded_and_is_an_incident_only_if_it_contradicts(
    resolution: Resolution, said: Outcome, contradicts: bool
) -> None:  # R17
    story = _resolved(resolution)
    assert isinstance(said, type(succeeded()) | type(rejected()))
    facts = story.complete("c", said, 4)
    assert [type(fact) for fact in facts] == [LateOutcome, *([IncidentOpened] if contradicts else [])]
    assert story.status is SagaStatus.COMPLETED
    assert story.state.needs_person == contradicts


def test_late_outcomes_are_recorded_up_to_a_bound() -> None:
    story = _resolved(ResolvedSucceeded(SAID))
    for when in range(LATE_OUTCOMES_MAX):
        assert story.complete("c", succeeded(b"other"), 4 + when)
    with pytest.raises(CommandRefusedError) as refused:
        story.complete("c", succeeded(b"other"), 40)
    assert refused.value.refusal is Refusal.TOO_LATE


def test_late_refusal_to_compensate_contradicts_nobody() -> None:  # R8, R17
    story = started(sequence("a", "b"))
    story.reply("a", unknown(), 1)
    story.cancel(1.05)
    story.undo("a", unknown(), 2)
    story.resolve("a", ResolvedSucceeded(SAID), 2.01)
    story.terminate(3)
    assert [type(fact) for fact in story.undo("a", rejected(), 4)] == [LateOutcome]


def test_answer_to_a_call_of_a_terminated_saga_is_recorded() -> None:  # R17
    story = started(sequence("a"))
    story.terminate(1)
    (late,) = story.reply("a", succeeded(), 2)
    assert isinstance(late, LateOutcome)
    assert late.outcome == succeeded().output
    assert story.step("a").status is StepStatus.UNKNOWN


def test_late_outcome_is_closed_by_acknowledging_it_and_by_nothing_else() -> None:
    story = _resolved(ResolvedSkipped())
    story.complete("c", succeeded(), 4)
    closed = IncidentClosed(id=1, reason="told the shop", actor="alice")
    assert story.feed(Acknowledge(incident_id=1, reason="told the shop", actor="alice"), 5) == (closed,)
    assert story.feed(Acknowledge(incident_id=1), 6) == ()


def test_incident_that_asks_for_something_cannot_be_acknowledged() -> None:
    story = behind_the_pivot()
    story.reply("c", rejected(), 2)
    with pytest.raises(CommandRefusedError) as refused:
        story.feed(Acknowledge(incident_id=1), 3)
    assert refused.value.refusal is Refusal.SAGA_STATUS


def test_late_outcome_does_not_answer_for_a_step_that_was_refused() -> None:  # P1
    story = started(sequence("a", "b"))
    story.reply("a", retry_later(60), 1)
    story.pause(2)
    story.resolve("a", ResolvedRejected(), 3)
    story.complete("a", succeeded(), 4)
    story.resume(5)
    assert story.status is SagaStatus.COMPENSATED


# ── Policies, types, outputs ─────────────────────────────────────────────────────────────────────────────────────────────────────


def test_policy_of_a_step_is_changed_for_this_saga_alone_and_only_where_said() -> None:
    story = started(sequence("a"))
    plan = story.plan.steps[0]
    change = PolicyChange(execute_retry=ONCE, attempt_timeout_us=3)
    (changed,) = story.feed(ChangePolicy(step_id=StepId("a"), change=change, reason="too slow", actor="alice"), 1)
    assert changed == StepPolicyChanged(step_id=StepId("a"), change=change, reason="too slow", actor="alice")
    assert story.step("a").plan == replace(plan, execute_retry=ONCE, attempt_timeout_us=3)
    assert story.plan.steps[0] is plan
    assert story.effect("a").timeout_us == 3


def test_types_that_do_not_fit_are_an_incident_and_turn_nothing_back() -> None:
    story = started(sequence("a", "b"))
    facts = story.reply("a", mismatched(), 1)
    assert [fact.kind for fact in facts if isinstance(fact, IncidentOpened)] == [IncidentKind.TYPE_MISMATCH]
    assert (story.status, story.step("a").status) == (SagaStatus.FAILED, StepStatus.REJECTED)


def test_types_that_do_not_fit_after_doubt_leave_the_step_unknown() -> None:  # R5
    story = started(sequence("a", "b"))
    story.reply("a", unknown(), 1)
    story.reply("a", mismatched(), 2)
    assert story.step("a").status is StepStatus.UNKNOWN
    story.cancel(3)
    assert story.owed_steps() == {("a", COMPENSATE)}


def test_best_effort_step_whose_types_do_not_fit_is_no_incident() -> None:
    story = started(parallel(step("a", kind=StepKind.BEST_EFFORT), "b"))
    story.reply("a", mismatched(), 1)
    assert not story.state.needs_person


def test_output_that_a_person_gives_is_checked() -> None:
    plan = replace(sequence("a", output=fails), check_saga_output=lambda payload: "" if payload == SAID else "expected what was said")
    story = started(plan)
    story.reply("a", succeeded(), 1)
    with pytest.raises(CommandRefusedError) as refused:
        story.feed(ResolveOutput(output=OTHER), 2)
    assert refused.value.refusal is Refusal.TYPE_MISMATCH
    story.feed(ResolveOutput(output=SAID), 3)
    assert (story.status, story.state.output) == (SagaStatus.COMPLETED, SAID)


def test_incident_numbers_go_on() -> None:
    story = behind_the_pivot()
    for number in (1, 2, 3):
        story.reply("c", rejected(), 10 * number)
        story.retry("c", 10 * number + 1)
    assert [(one.fact.id, one.closed_at) for one in story.state.incidents] == [(1, at(11)), (2, at(21)), (3, at(31))]
    assert saga_input(story.state) == story.step("c").input
