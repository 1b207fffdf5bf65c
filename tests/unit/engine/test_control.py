"""Pause, resume and hooks of live sagas; recovery of paused and of ended ones; clocks that jump (R15, R16, R29)."""

from dataclasses import replace

from coordinator.core.events import SagaRecovered
from coordinator.core.inputs import Cancel, Pause, Resume, RetryStep, Terminate
from coordinator.core.plan import RetryPolicy, SagaPlan
from coordinator.core.values import SagaStatus, StepId, StepKind
from coordinator.engine.commands import CommandAccepted
from tests.builders import (
    SAGA,
    Story,
    at,
    attempt,
    compensated,
    hook,
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
from tests.fakes import Shell, one_turn, stored_of

ORDER = sequence("reserve", "charge")


def _hooked(plan: SagaPlan = ORDER, *, attempts_max: int = 0) -> SagaPlan:
    retry = RetryPolicy(attempts_max=attempts_max)
    on_success, on_failure = (replace(hook(name), execute_retry=retry) for name in ("on_success", "on_failure"))
    return replace(plan, on_success=on_success, on_failure=on_failure)


async def _recovered(story: Story) -> Shell:
    shell = Shell([stored_of(story)])
    assert await shell.reviver(story.plan).revive_awake() == (1, ())
    await one_turn()
    return shell


# ── Pause ────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_pause_takes_back_what_waits_and_resume_sends_it() -> None:
    shell = Shell()
    await shell.run(parallel("reserve", "charge"))
    await shell.command_and_commit(Pause())
    ((saga_id, attempts),) = shell.dispatcher.withdrawn
    assert (saga_id, set(attempts)) == (SAGA, {attempt("reserve", 1), attempt("charge", 1)})
    await shell.end_and_commit("reserve", not_sent())  # it waited in the dispatcher; `charge` was under way and goes on
    assert shell.dispatcher.sent() == {"charge execute 1"}
    await shell.clock.pass_time(60)
    assert shell.dispatcher.sent() == {"charge execute 1"}
    await shell.command_and_commit(Resume())
    assert shell.dispatcher.sent() == {"charge execute 1", "reserve execute 2"}


async def test_paused_saga_stays_live_and_sets_no_timer() -> None:
    shell = Shell()
    await shell.run(sequence("reserve", limit_s=60))
    await shell.command_and_commit(Pause())
    assert (len(shell.engine.held), shell.clock.armed) == (1, [])
    assert shell.journal.committed[-1].is_paused
    assert shell.journal.committed[-1].is_unfinished


async def test_success_during_a_pause_begins_the_next_step_after_it() -> None:
    shell = Shell()
    await shell.run(ORDER)
    await shell.command_and_commit(Pause())
    await shell.end_and_commit("reserve", succeeded())
    assert shell.dispatcher.under_way == []
    await shell.command_and_commit(Resume())
    assert shell.dispatcher.sent() == {"charge execute 1"}


async def test_call_that_was_decided_but_not_committed_at_the_pause_is_not_sent() -> None:  # R25
    shell = Shell()
    await shell.run(ORDER)
    await shell.dispatcher.end("reserve", succeeded())
    await shell.command_and_commit(Pause())
    assert shell.dispatcher.under_way == []
    await shell.command_and_commit(Resume())
    assert shell.dispatcher.sent() == {"charge execute 1"}


async def test_cancel_of_a_paused_saga_before_its_pivot_was_sent_never_sends_it() -> None:  # R10
    shell = Shell()
    await shell.run(sequence("reserve", step("charge", kind=StepKind.PIVOT)))
    await shell.dispatcher.end("reserve", succeeded())
    await shell.command_and_commit(Pause())
    await shell.command_and_commit(Cancel())
    await shell.clock.pass_time(60)
    await shell.command_and_commit(Resume())
    assert shell.dispatcher.sent() == {"reserve compensate 1"}


async def test_resume_before_the_taken_back_call_has_answered_does_not_send_it_twice() -> None:
    shell = Shell()
    await shell.run(ORDER)
    await shell.command_and_commit(Pause())
    await shell.command_and_commit(Resume())
    assert shell.dispatcher.sent() == {"reserve execute 1"}
    await shell.end_and_commit("reserve", not_sent())
    await shell.clock.pass_time(1)
    assert shell.dispatcher.sent() == {"reserve execute 2"}


async def test_limit_that_passed_during_a_pause_is_judged_as_soon_as_it_is_over() -> None:
    shell = Shell()
    await shell.run(sequence("reserve", "charge", limit_s=60))
    await shell.command_and_commit(Pause())
    await shell.end_and_commit("reserve", succeeded())
    await shell.clock.pass_time(100)
    shell.command(Resume())
    await shell.settle()
    await shell.clock.pass_time(0)
    await shell.settle()
    assert shell.dispatcher.sent() == {"reserve compensate 1"}
    assert shell.seen[-1] == (SAGA, SagaStatus.COMPENSATING)


async def test_compensation_is_taken_back_by_a_pause_and_sent_after_it() -> None:
    shell = Shell()
    await shell.run(ORDER)
    await shell.end_and_commit("reserve", succeeded())
    await shell.end_and_commit("charge", rejected())
    await shell.command_and_commit(Pause())
    await shell.end_and_commit("reserve", not_sent())
    await shell.clock.pass_time(60)
    assert shell.dispatcher.under_way == []
    await shell.command_and_commit(Resume())
    assert shell.dispatcher.sent() == {"reserve compensate 2"}


async def test_recovered_saga_that_is_paused_calls_nobody_until_it_is_resumed() -> None:  # R29
    story = started(ORDER, when=900)
    story.pause(901)
    shell = await _recovered(story)
    (append,) = shell.journal.queued
    assert [event.fact for event in append.events] == [SagaRecovered(in_doubt=(attempt("reserve", 1),))]
    assert append.is_paused
    await shell.settle()
    assert (shell.dispatcher.under_way, len(shell.engine.held)) == ([], 1)
    await shell.command_and_commit(Resume())
    assert shell.dispatcher.sent() == {"reserve execute 2"}


async def test_recovered_saga_that_is_paused_and_cancelled_undoes_when_the_dead_process_is_over() -> None:  # R12, R29
    story = started(sequence("reserve"), when=995)
    story.pause(996)
    shell = await _recovered(story)
    await shell.settle()
    await shell.command_and_commit(Cancel())
    await shell.command_and_commit(Resume())
    assert (shell.dispatcher.under_way, shell.clock.armed) == ([], [at(1_010.5)])
    await shell.clock.pass_time(10.5)
    assert shell.dispatcher.sent() == {"reserve compensate 1"}


# ── Hooks ────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_end_is_told_before_the_hook_is_at_rest_and_the_saga_stays_live() -> None:  # R16
    shell = Shell()
    await shell.run(_hooked())
    shell.listen_for_end()
    await shell.end_and_commit("reserve", succeeded())
    await shell.end_and_commit("charge", succeeded())
    assert (shell.ends, len(shell.engine.held)) == ([SagaStatus.COMPLETED], 1)
    assert shell.dispatcher.sent() == {"on_success execute 1"}
    last = shell.journal.committed[-1]
    assert (last.has_ended, last.is_unfinished) == (True, True)
    assert not shell.listen_for_end()
    await shell.end_and_commit("on_success", succeeded())
    assert (len(shell.engine.held), shell.journal.committed[-1].is_unfinished) == (0, False)


async def test_hook_is_not_sent_before_the_end_is_committed() -> None:  # R25
    shell = Shell()
    await shell.run(_hooked(sequence("reserve")))
    await shell.dispatcher.end("reserve", rejected())
    assert shell.dispatcher.under_way == []
    await shell.settle()
    assert shell.dispatcher.sent() == {"on_failure execute 1"}


async def test_hook_in_backoff_is_sent_again() -> None:  # R16
    shell = Shell()
    await shell.run(_hooked(sequence("reserve")))
    await shell.end_and_commit("reserve", succeeded())
    await shell.end_and_commit("on_success", retry_later(60))
    assert len(shell.engine.held) == 1
    await shell.clock.pass_time(60)
    assert shell.dispatcher.sent() == {"on_success execute 2"}


async def test_failed_hook_lets_the_saga_go_and_is_taken_up_for_a_person() -> None:  # R16
    story = started(_hooked(sequence("reserve"), attempts_max=1), when=900)
    story.reply("reserve", succeeded(), 901)
    story.reply("on_success", unknown(), 902)
    shell = Shell()
    shell.take_up(story)
    answer = await shell.command_and_commit(RetryStep(step_id=StepId("on_success")))
    assert isinstance(answer, CommandAccepted)
    assert shell.dispatcher.sent() == {"on_success execute 2"}
    await shell.end_and_commit("on_success", succeeded())
    assert (shell.seen[-1], len(shell.engine.held)) == ((SAGA, SagaStatus.COMPLETED), 0)


async def test_recovered_saga_that_has_ended_goes_on_with_its_hook() -> None:  # R16, R29
    story = started(_hooked(sequence("reserve")), when=900)
    story.reply("reserve", succeeded(), 901)
    shell = await _recovered(story)
    await shell.settle()
    assert shell.dispatcher.sent() == {"on_success execute 2"}


async def test_terminated_saga_calls_its_hook_beside_what_is_still_under_way() -> None:  # R16, R17
    shell = Shell()
    await shell.run(_hooked(sequence("reserve")))
    shell.listen_for_end()
    await shell.command_and_commit(Terminate())
    assert shell.ends == [SagaStatus.FAILED]
    assert shell.dispatcher.sent() == {"reserve execute 1", "on_failure execute 1"}
    await shell.end_and_commit("on_failure", succeeded())
    assert len(shell.engine.held) == 1
    await shell.end_and_commit("reserve", succeeded())
    assert len(shell.engine.held) == 0


# ── Clocks ───────────────────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_clock_that_was_ahead_before_a_restart_turns_no_history_around_and_delays_at_most_by_its_step() -> None:
    story = started(ORDER, when=1_005)  # an earlier process, whose clock was ahead; this one begins at 1,000
    story.reply("reserve", retry_later(1), 1_006)
    shell = await _recovered(story)
    await shell.settle()
    recovered = shell.journal.committed[-1].events[-1]
    assert recovered.occurred_at == at(1_006)
    assert shell.dispatcher.under_way == []
    await shell.clock.pass_time(7)
    assert shell.dispatcher.sent() == {"reserve execute 3"}


async def test_what_is_told_of_a_saga_is_told_in_its_own_time() -> None:
    story = started(ORDER, when=4_600)
    shell = await _recovered(story)  # its clock begins at 1,000
    await shell.settle()
    await shell.clock.pass_time(7)
    seen = shell.engine.peek(SAGA)
    assert seen is not None
    assert seen[2] == at(4_607)
    await shell.command_and_commit(Pause())
    (answer,) = shell.answers
    assert isinstance(answer, CommandAccepted)
    assert answer.now == at(4_607)


async def test_clock_that_jumps_ahead_fires_everything_that_is_due_once() -> None:
    shell = Shell()
    await shell.run(sequence("reserve", "charge", limit_s=3_600))
    await shell.end_and_commit("reserve", retry_later(60))
    shell.clock.fire_at(at(1_000 + 90_000))
    await shell.settle()
    assert shell.seen[-1] == (SAGA, SagaStatus.COMPENSATED)
    assert shell.dispatcher.under_way == []


async def test_saga_undone_under_a_clock_that_stepped_back_ends() -> None:  # R12
    story = started(parallel("reserve", "charge"), when=1_050)
    story.reply("reserve", rejected(), 1_051)
    shell = await _recovered(story)
    await shell.settle()
    await shell.clock.pass_time(62)
    await shell.settle()
    assert shell.dispatcher.sent() == {"charge compensate 1"}
    await shell.end_and_commit("charge", compensated())
    assert shell.seen[-1] == (SAGA, SagaStatus.COMPENSATED)
