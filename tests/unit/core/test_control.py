"""Pausing, resuming and terminating whole sagas; hooks at their end (R15, R16)."""

from dataclasses import replace

import pytest

from coordinator.core.errors import CommandRefusedError, Refusal
from coordinator.core.events import (
    IncidentClosed,
    IncidentOpened,
    LateOutcome,
    SagaCompensated,
    SagaCompleted,
    SagaPaused,
    SagaRecovered,
    SagaResumed,
    SagaTerminated,
    SagaTurnedBack,
    StepCompensated,
    StepDue,
    StepRetried,
    StepSucceeded,
    StepUnfit,
    TurnBackRequested,
)
from coordinator.core.inputs import ResolvedRejected, ResolvedSkipped
from coordinator.core.pending import pending
from coordinator.core.plan import RetryPolicy, SagaPlan, Values
from coordinator.core.state import QUIET_GRACE_US
from coordinator.core.values import (
    MICROS_PER_SECOND,
    Code,
    Failure,
    IncidentKind,
    Payload,
    SagaStatus,
    StepId,
    StepKind,
    StepStatus,
    TurnBackCause,
)
from tests.builders import (
    COMPENSATE,
    EXECUTE,
    Owed,
    Story,
    accepted,
    at,
    attempt,
    compensated,
    fails,
    hook,
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
NOTHING = ((), None)
GRACE_S = QUIET_GRACE_US / MICROS_PER_SECOND


# ── Pause ────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_paused_saga_owes_nothing_and_wakes_for_nothing() -> None:
    story = started(sequence("a", limit_s=60))
    assert story.pause(1) == (SagaPaused(reason="", actor="alice"),)
    assert pending(story.plan, story.state) == NOTHING
    assert story.wake(60) == ()


def test_what_was_under_way_is_recorded_and_goes_on_after_the_pause() -> None:
    story = started(sequence("a", "b"))
    story.pause(1)
    assert [type(fact) for fact in story.reply("a", succeeded(), 2)] == [StepSucceeded]
    assert story.step("b").status is StepStatus.WAITING
    story.resume(3)
    assert story.owed() == (Owed("b", EXECUTE, 1, at(3)),)
    assert story.journal[-1].reached == (StepDue(story.plan.steps[1].id, None),)


def test_failed_step_turns_the_saga_back_when_it_is_resumed() -> None:
    story = started(sequence("a", "b"))
    story.reply("a", succeeded(), 1)
    story.pause(2)
    story.reply("b", rejected(), 3)
    assert story.status is SagaStatus.RUNNING
    assert [type(fact) for fact in story.resume(4)] == [SagaTurnedBack, SagaResumed]
    assert story.owed_steps() == {("a", COMPENSATE)}


def test_last_step_that_succeeds_during_a_pause_completes_the_saga_after_it() -> None:
    story = started(sequence("a"))
    story.pause(1)
    story.reply("a", succeeded(), 2)
    assert [type(fact) for fact in story.resume(3)] == [SagaResumed, SagaCompleted]


def test_limits_run_on_during_a_pause_and_are_judged_after_it() -> None:
    story = started(sequence("a", "b", limit_s=60))
    story.pause(1)
    story.reply("a", succeeded(), 2)
    assert [type(fact) for fact in story.resume(70)] == [SagaTurnedBack, SagaResumed]
    assert story.state.cause is TurnBackCause.TIME_LIMIT


def test_limit_that_passed_during_a_pause_is_judged_before_the_point_of_no_return_is_reached() -> None:  # R9, R13
    story = started(sequence(step("a"), step("b", kind=StepKind.RETRIABLE), limit_s=60))
    story.pause(1)
    story.reply("a", succeeded(), 2)
    assert [type(fact) for fact in story.resume(3_600)] == [SagaTurnedBack, SagaResumed]
    assert story.step("b").status is StepStatus.WAITING


def test_limit_that_passed_before_a_delayed_start_is_judged_before_anything_is_reached() -> None:  # R9, R13
    story = Story(sequence(step("a", kind=StepKind.RETRIABLE), limit_s=60))
    story.start(0, start_at=10)
    assert [type(fact) for fact in story.wake(1_000)] == [SagaTurnedBack, SagaCompensated]
    assert story.step("a").status is StepStatus.WAITING


def test_backoff_runs_on_during_a_pause() -> None:
    story = started(sequence("a"))
    story.pause(1)
    story.reply("a", retry_later(10), 2)
    story.resume(100)
    assert story.owed() == (Owed("a", EXECUTE, 2, at(12)),)


def test_pause_in_the_middle_of_undoing_stops_it() -> None:
    story = started(sequence("a", "b", "c"))
    story.reply("a", succeeded(), 1)
    story.reply("b", succeeded(), 1)
    story.reply("c", rejected(), 2)
    story.pause(3)
    assert [type(fact) for fact in story.undo("b", compensated(), 4)] == [StepCompensated]
    assert story.step("a").status is StepStatus.SUCCEEDED
    story.resume(5)
    assert story.owed_steps() == {("a", COMPENSATE)}


def test_saga_that_is_quiet_when_it_is_resumed_undoes_at_once() -> None:  # R12
    story = started(parallel("a", "b"))
    story.reply("a", rejected(), 1)
    story.pause(2)
    story.reply("b", succeeded(), 3)
    assert story.step("b").status is StepStatus.SUCCEEDED
    story.resume(4)
    assert story.owed_steps() == {("b", COMPENSATE)}


def test_silence_during_a_pause_is_judged_after_it() -> None:  # R12
    story = started(parallel("a", "b"))
    story.reply("a", rejected(), 1)
    story.pause(2)
    assert story.wake(50) == ()
    story.resume(51)
    story.wake(51)
    assert story.owed_steps() == {("b", COMPENSATE)}


def test_cancel_during_a_pause_before_the_pivot_was_sent_is_granted() -> None:  # R10
    story = started(sequence("a", step("pivot", kind=StepKind.PIVOT)))
    story.reply("a", succeeded(), 1)
    story.pause(2)
    assert [type(fact) for fact in story.cancel(3)] == [TurnBackRequested]
    story.reply("pivot", not_sent(), 4)
    assert [type(fact) for fact in story.resume(100)] == [SagaTurnedBack, SagaResumed]
    assert story.owed_steps() == {("a", COMPENSATE)}


@pytest.mark.parametrize(("when", "may_be_resolved"), [(11 + GRACE_S - 0.1, False), (11 + GRACE_S, True)])
def test_call_that_nobody_heard_of_since_the_pause_is_over_with_its_time(when: float, may_be_resolved: bool) -> None:  # R17
    story = started(sequence("a", "b"))
    story.pause(1)
    if may_be_resolved:
        story.resolve("a", ResolvedSkipped(), when)
        return
    with pytest.raises(CommandRefusedError) as refused:
        story.resolve("a", ResolvedSkipped(), when)
    assert refused.value.refusal is Refusal.UNDER_WAY


def test_pause_and_resume_twice_change_nothing() -> None:
    story = started(sequence("a"))
    story.pause(1)
    assert story.pause(2) == ()
    story.resume(3)
    assert story.resume(4) == ()


def test_crash_of_a_paused_saga_puts_in_doubt_what_it_had_under_way() -> None:  # R29
    story = started(sequence("a", step("pivot", kind=StepKind.PIVOT)))
    story.reply("a", succeeded(), 1)
    story.pause(2)
    assert story.recover(3) == (SagaRecovered(in_doubt=(attempt("pivot", 1),)),)
    assert pending(story.plan, story.state) == NOTHING
    story.cancel(4)
    assert story.state.cause is None
    story.resume(5)
    assert story.owed() == (Owed("pivot", EXECUTE, 2, at(3)),)


def test_call_from_before_a_long_pause_may_have_taken_effect_although_its_time_is_over() -> None:  # P4, R12
    """Its answer may be in the inbox behind the wish to turn back: the process was stopped, and woke up to both."""
    story = started(sequence("a"))
    story.pause(1)
    story.cancel(60)
    story.reply("a", unknown(), 60)
    story.resume(61)
    assert story.owed() == (Owed("a", COMPENSATE, 1, at(61)),)


def test_pivot_from_before_a_long_pause_keeps_the_saga_from_turning_back() -> None:  # R10
    story = started(sequence("a", step("pivot", kind=StepKind.PIVOT)))
    story.reply("a", succeeded(), 1)
    story.pause(2)
    story.cancel(600)
    assert story.state.cause is None
    story.reply("pivot", succeeded(), 600)
    story.resume(601)
    assert story.status is SagaStatus.COMPLETED


def test_call_that_was_in_backoff_when_the_pause_began_was_not_sent() -> None:  # R12
    story = started(sequence("a"))
    story.reply("a", retry_later(30), 1)
    story.pause(2)
    story.cancel(600)
    assert story.status is SagaStatus.COMPENSATING
    story.resume(601)
    assert (story.status, story.owed()) == (SagaStatus.COMPENSATED, ())


def test_call_of_a_dead_process_is_not_overtaken_by_its_undo() -> None:  # R12, R29
    story = started(sequence("a"))
    story.pause(1)
    story.recover(2)
    story.cancel(3)
    story.resume(4)
    assert story.owed() == (Owed("a", COMPENSATE, 1, at(12 + GRACE_S)),)
    with pytest.raises(CommandRefusedError) as refused:
        story.retry("a", 5)
    assert refused.value.refusal is Refusal.UNDER_WAY


def test_nobody_says_how_a_pivot_ended_while_a_call_of_a_dead_process_may_be_at_work() -> None:  # R17, R29
    story = started(sequence(step("pivot", kind=StepKind.PIVOT, retry=ONCE)))
    story.recover(1)
    story.reply("pivot", unknown(), 2)
    with pytest.raises(CommandRefusedError) as refused:
        story.resolve("pivot", ResolvedRejected(), 3)
    assert refused.value.refusal is Refusal.UNDER_WAY
    story.resolve("pivot", ResolvedRejected(), 11 + GRACE_S)
    assert story.status is SagaStatus.COMPENSATED


# ── Terminate ────────────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_terminated_saga_stands_as_it_stood() -> None:  # R15
    story = started(parallel("a", "b", "c", "d", "e"))
    story.reply("a", succeeded(), 1)
    story.reply("c", accepted(60), 1)
    story.reply("d", retry_later(60), 1)
    story.reply("e", unknown(), 1.9)
    assert story.terminate(2) == (SagaTerminated(reason="given up", actor="alice"),)
    assert story.statuses() == {
        "a": StepStatus.SUCCEEDED,
        "b": StepStatus.UNKNOWN,
        "c": StepStatus.UNKNOWN,
        "d": StepStatus.REJECTED,
        "e": StepStatus.UNKNOWN,
    }
    assert (story.status, story.state.has_ended, story.state.ended_at) == (SagaStatus.FAILED, True, at(2))
    assert story.state.failure == Failure(Code.CANCELLED, "given up")
    assert pending(story.plan, story.state) == NOTHING


def test_terminated_saga_keeps_why_it_turned_back() -> None:
    story = started(sequence("a", "b"))
    story.reply("a", succeeded(), 1)
    story.reply("b", rejected(), 2)
    why = story.state.failure
    story.terminate(3)
    assert story.state.failure == why
    assert story.step("a").status is StepStatus.COMPENSATION_FAILED


def test_terminating_closes_every_incident() -> None:
    story = started(sequence(step("pivot", kind=StepKind.PIVOT), step("c", kind=StepKind.RETRIABLE)))
    story.reply("pivot", succeeded(), 1)
    story.reply("c", rejected(), 2)
    assert [type(fact) for fact in story.terminate(3)] == [SagaTerminated, IncidentClosed]
    assert not story.state.needs_person
    assert story.terminate(4) == ()


def test_terminated_saga_does_not_turn_back_for_a_wish_that_was_recorded() -> None:
    story = started(sequence("a", step("pivot", kind=StepKind.PIVOT)))
    story.reply("a", succeeded(), 1)
    story.cancel(2)
    story.terminate(3)
    assert [type(fact) for fact in story.reply("pivot", rejected(), 4)] == [LateOutcome]
    assert story.state.cause is None


# ── Hooks (R16) ──────────────────────────────────────────────────────────────────────────────────────────────────────────────────


def hooked(plan: SagaPlan, *, retry: RetryPolicy | None = None) -> SagaPlan:
    """The plan with both hooks."""
    on_success, on_failure = (replace(hook(name), execute_retry=retry or RetryPolicy()) for name in ("on_success", "on_failure"))
    return replace(plan, on_success=on_success, on_failure=on_failure)


def test_hook_is_reached_by_the_event_that_ends_the_saga() -> None:
    story = started(hooked(sequence("a")))
    story.reply("a", succeeded(), 1)
    assert story.journal[-1].reached == (StepDue(StepId("on_success"), None),)
    assert (story.status, story.state.is_unfinished, story.state.has_ended) == (SagaStatus.COMPLETED, True, True)
    assert story.owed() == (Owed("on_success", EXECUTE, 1, at(1)),)


def test_saga_is_finished_when_its_hook_is_at_rest() -> None:
    story = started(hooked(sequence("a")))
    story.reply("a", succeeded(), 1)
    story.reply("on_success", succeeded(), 2)
    assert not story.state.is_unfinished
    assert pending(story.plan, story.state) == NOTHING


def test_hook_reads_how_the_saga_ended() -> None:
    def tell(values: Values) -> Payload:
        return Payload("shop.v1.Told", repr((values.output, values.failure)).encode())

    plan = hooked(sequence("a", output=saga_input))
    assert plan.on_success is not None
    assert plan.on_failure is not None
    plan = replace(
        plan,
        on_success=replace(plan.on_success, input=tell, copies_input=False),
        on_failure=replace(plan.on_failure, input=tell, copies_input=False),
    )
    story = started(plan)
    story.reply("a", succeeded(), 1)
    assert b"order-42" in story.effect("on_success").input.value
    other = started(plan)
    other.reply("a", rejected(), 1)
    assert b"said so" in other.effect("on_failure").input.value


@pytest.mark.parametrize("sibling", [succeeded(), rejected(), unknown()], ids=repr)
def test_hook_runs_also_if_siblings_were_awaited(sibling: object) -> None:
    story = started(hooked(parallel("a", "b")))
    plan = replace(story.plan, steps=(*story.plan.steps, step("c")), predecessors=(*story.plan.predecessors, (1,)))
    story = started(plan)
    story.reply("a", rejected(), 1)
    assert isinstance(sibling, type(succeeded()) | type(rejected()) | type(unknown()))
    story.reply("b", sibling, 2)
    if story.status is SagaStatus.COMPENSATING:
        story.undo("b", compensated(), 3)
    assert story.status is SagaStatus.COMPENSATED
    assert story.owed_steps() == {("on_failure", EXECUTE)}


def test_hook_runs_when_a_pending_saga_is_cancelled() -> None:  # R15, R16
    story = Story(hooked(sequence("a")))
    story.start(0, start_at=60)
    assert [type(fact) for fact in story.cancel(1)] == [SagaTurnedBack, SagaCompensated]
    assert story.owed_steps() == {("on_failure", EXECUTE)}


def test_failed_hook_is_an_incident_of_its_own_and_changes_no_outcome() -> None:
    story = started(hooked(sequence("a"), retry=ONCE))
    story.reply("a", succeeded(), 1)
    _, opened = story.reply("on_success", unknown(), 2)
    assert isinstance(opened, IncidentOpened)
    assert (opened.kind, opened.step_id) == (IncidentKind.HOOK_FAILED, "on_success")
    assert (story.status, story.state.is_unfinished) == (SagaStatus.COMPLETED, False)


def test_failed_hook_is_tried_again_by_a_person_with_its_key_if_it_may_have_had_an_effect() -> None:
    story = started(hooked(sequence("a"), retry=ONCE))
    story.reply("a", succeeded(), 1)
    story.reply("on_success", unknown(), 2)
    retried, *_ = story.retry("on_success", 3)
    assert isinstance(retried, StepRetried)
    assert retried.round == 1
    assert story.state.is_unfinished


def test_hook_whose_input_cannot_be_evaluated_is_an_incident() -> None:
    plan = hooked(sequence("a"))
    assert plan.on_success is not None
    story = started(replace(plan, on_success=replace(plan.on_success, input=fails, copies_input=False)))
    story.reply("a", succeeded(), 1)
    assert [type(one) for event in story.journal for one in event.reached] == [StepDue, StepUnfit]
    assert [one.fact.kind for one in story.state.incidents] == [IncidentKind.HOOK_FAILED]


def test_hook_is_tried_for_its_recovery_time() -> None:  # R13
    story = started(hooked(sequence("a")))
    story.reply("a", succeeded(), 1)
    assert story.effect("on_success").send_before is None
    story.reply("on_success", unknown(), 2)
    story.reply("on_success", unknown(), 86_400)
    assert not story.state.needs_person
    story.reply("on_success", unknown(), 86_402)
    assert story.state.needs_person


def test_crash_between_end_and_hook_goes_on_with_the_hook() -> None:  # R16, R29
    story = started(hooked(sequence("a")))
    story.reply("a", succeeded(), 1)
    assert story.recover(2) == (SagaRecovered(in_doubt=(attempt("on_success", 1),)),)
    assert story.owed() == (Owed("on_success", EXECUTE, 2, at(2)),)


def test_terminated_saga_calls_the_hook_for_failures_while_its_calls_end() -> None:  # R16, R17
    story = started(hooked(sequence("a")))
    story.terminate(1)
    assert story.owed_steps() == {("on_failure", EXECUTE)}
    story.reply("a", succeeded(), 2)
    story.reply("on_failure", succeeded(), 3)
    assert story.step("on_failure").status is StepStatus.SUCCEEDED
    assert story.step("a").status is StepStatus.UNKNOWN


def test_cause_of_a_cancelled_saga_is_kept() -> None:
    story = started(sequence("a"))
    story.cancel(1)
    assert story.state.cause is TurnBackCause.CANCELLED
