"""Commands of persons and participants: answered after the commit, refusals too (R25); sagas taken up again for a command."""

import pytest

from coordinator.core.errors import Refusal
from coordinator.core.events import IncidentOpened, LateOutcome, SagaTurnedBack, StepCompletedEarly, StepRetried
from coordinator.core.inputs import (
    Acknowledge,
    Cancel,
    ChangePolicy,
    Command,
    CompleteStep,
    Heartbeat,
    Pause,
    PolicyChange,
    ResolvedSkipped,
    ResolvedSucceeded,
    ResolveOutput,
    ResolveStep,
    Resume,
    RetryStep,
    Terminate,
)
from coordinator.core.plan import RetryPolicy, SagaPlan
from coordinator.core.values import Payload, SagaId, SagaStatus, StepId, StepKind
from coordinator.engine.commands import CommandAccepted, CommandRefused, NotLive
from tests.builders import (
    SAGA,
    Story,
    accepted,
    fails,
    graph,
    mismatched,
    rejected,
    retry_later,
    sequence,
    started,
    step,
    succeeded,
    unknown,
)
from tests.fakes import Shell, one_turn

RESERVE, CHARGE = StepId("reserve"), StepId("charge")
SAID = Payload("shop.v1.Done", b"said")
ORDER = sequence("reserve", "charge")
ONCE = RetryPolicy(attempts_max=1)


def _failed(plan: SagaPlan | None = None) -> Story:
    """A saga that FAILED: `charge`, behind the point of no return, was refused."""
    story = started(plan or sequence(step("reserve", kind=StepKind.PIVOT), step("charge", kind=StepKind.RETRIABLE)), when=900)
    story.reply("reserve", succeeded(), 901)
    story.reply("charge", rejected(), 902)
    assert story.status is SagaStatus.FAILED
    return story


def _adopted(story: Story) -> Shell:
    shell = Shell()
    shell.take_up(story)
    return shell


COMMANDS: list[Command] = [
    Cancel(),
    Pause(),
    Terminate(),
    ChangePolicy(step_id=RESERVE, change=PolicyChange(execute_retry=ONCE)),
    CompleteStep(step_id=RESERVE, round=1, result=succeeded()),
]


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: type(command).__name__)
async def test_command_is_answered_after_its_own_commit_and_not_before(command: Command) -> None:  # R25
    shell = Shell()
    await shell.run(ORDER)
    shell.command(command)
    await one_turn()
    assert shell.answers == []
    shell.journal.commit()
    (answer,) = shell.answers
    assert isinstance(answer, CommandAccepted)
    assert [event.fact for event in answer.events]


REFUSED: list[Command] = [
    RetryStep(step_id=RESERVE),
    ResolveStep(step_id=RESERVE, resolution=ResolvedSkipped()),
    ResolveOutput(output=SAID),
    Acknowledge(incident_id=1),
    CompleteStep(step_id=CHARGE, round=1, result=succeeded()),
]
NOTHING_TO_DO: list[Command] = [Resume(), Heartbeat(step_id=RESERVE, round=1, time_limit_us=None)]


@pytest.mark.parametrize("command", [*REFUSED, *NOTHING_TO_DO], ids=lambda command: type(command).__name__)
async def test_answer_without_events_waits_for_what_it_was_derived_from(command: Command) -> None:  # R25
    shell = Shell()
    await shell.run(ORDER)
    shell.command(ChangePolicy(step_id=CHARGE, change=PolicyChange(execute_retry=ONCE)))
    shell.command(command)
    await one_turn()
    assert shell.answers == []
    shell.journal.commit()
    await one_turn()
    expected = CommandAccepted if command in NOTHING_TO_DO else CommandRefused
    assert [type(answer) for answer in shell.answers] == [CommandAccepted, expected]


@pytest.mark.parametrize("command", REFUSED, ids=lambda command: type(command).__name__)
async def test_refusal_of_a_settled_saga_is_told_at_once(command: Command) -> None:
    shell = Shell()
    await shell.run(ORDER)
    shell.command(command)
    (answer,) = shell.answers
    assert isinstance(answer, CommandRefused)
    assert answer.message
    assert shell.journal.queued == []


async def test_two_commands_in_one_turn_are_judged_in_their_order() -> None:
    shell = Shell()
    await shell.run(ORDER)
    shell.command(Terminate())
    shell.command(Cancel())
    await shell.settle()
    first, second = shell.answers
    assert isinstance(first, CommandAccepted)
    assert isinstance(second, CommandRefused)
    assert second.refusal is Refusal.SAGA_ENDED


async def test_command_whose_append_is_refused_is_not_accepted() -> None:  # R25, R28
    shell = Shell()
    await shell.run(ORDER)
    shell.command(Pause())
    shell.journal.refuse()
    assert shell.answers == [NotLive()]


# ── Looking at live sagas ────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_live_saga_can_be_looked_at_only_while_everything_is_committed() -> None:  # R25
    shell = Shell()
    await shell.run(ORDER)
    seen = shell.engine.peek(SAGA)
    assert seen is not None
    assert seen[1].status is SagaStatus.RUNNING
    await shell.dispatcher.end("reserve", succeeded())
    assert shell.engine.peek(SAGA) is None
    shell.journal.commit()
    assert shell.engine.peek(SAGA) is not None
    assert shell.engine.peek(SagaId("nobody")) is None


# ── Taking up a saga that failed or ended ────────────────────────────────────────────────────────────────────────────────────────


async def test_failed_saga_is_taken_up_and_retried() -> None:
    shell = _adopted(_failed())
    answer = await shell.command_and_commit(RetryStep(step_id=CHARGE))
    assert isinstance(answer, CommandAccepted)
    assert isinstance(answer.events[0].fact, StepRetried)
    assert shell.dispatcher.sent() == {"charge execute 2"}
    await shell.end_and_commit("charge", succeeded())
    assert (shell.seen[-1], len(shell.engine.held)) == ((SAGA, SagaStatus.COMPLETED), 0)


async def test_failed_saga_that_is_taken_up_for_a_refused_command_is_let_go() -> None:
    shell = _adopted(_failed())
    shell.command(Cancel())
    (answer,) = shell.answers
    assert isinstance(answer, CommandRefused)
    assert answer.refusal is Refusal.NO_RETURN
    assert len(shell.engine.held) == 0


async def test_failed_saga_that_stays_failed_is_let_go() -> None:
    shell = _adopted(_failed())
    await shell.command_and_commit(ChangePolicy(step_id=CHARGE, change=PolicyChange(execute_retry=ONCE)))
    assert (len(shell.engine.held), shell.dispatcher.under_way) == (0, [])


async def test_failed_saga_that_is_cancelled_undoes() -> None:
    story = started(ORDER, when=900)
    story.reply("reserve", succeeded(), 901)
    story.reply("charge", mismatched(), 902)
    shell = _adopted(story)
    await shell.command_and_commit(Cancel())
    assert shell.dispatcher.sent() == {"reserve compensate 1"}


async def test_saga_that_is_live_is_not_taken_up_a_second_time() -> None:
    shell = Shell()
    await shell.run(ORDER)
    shell.take_up(started(ORDER))
    seen = shell.engine.peek(SAGA)
    assert seen is not None
    assert seen[1].status is SagaStatus.RUNNING


async def test_saga_whose_appends_are_under_way_is_not_taken_up() -> None:  # R25
    shell = Shell()
    await shell.run(ORDER)
    await shell.dispatcher.end("reserve", succeeded())
    shell.command(Pause())
    await one_turn()
    shell.journal.refuse()  # the first of two: the saga is let go of while the second is under way
    story = _failed()
    shell.take_up(story)
    assert len(shell.engine.held) == 0


async def test_late_outcome_is_recorded_in_a_saga_that_has_ended() -> None:  # R17, R24
    story = _failed()
    story.resolve("charge", ResolvedSkipped(), 903)
    shell = _adopted(story)
    answer = await shell.command_and_commit(CompleteStep(step_id=CHARGE, round=1, result=succeeded()))
    assert isinstance(answer, CommandAccepted)
    assert [type(event.fact) for event in answer.events] == [LateOutcome, IncidentOpened]
    assert len(shell.engine.held) == 0


# ── Steps that are finished later ────────────────────────────────────────────────────────────────────────────────────────────────


async def test_completion_before_the_commit_of_the_acceptance_is_kept() -> None:  # R24, R25
    shell = Shell()
    await shell.run(ORDER)
    await shell.dispatcher.end("reserve", accepted(60))
    shell.command(CompleteStep(step_id=RESERVE, round=1, result=succeeded()))
    await one_turn()
    assert shell.answers == []
    await shell.settle()
    assert [type(answer) for answer in shell.answers] == [CommandAccepted]
    assert shell.dispatcher.sent() == {"charge execute 1"}


async def test_completion_before_the_end_of_its_call_lets_nothing_overtake_the_call() -> None:  # R24
    shell = Shell()
    await shell.run(ORDER)
    answer = await shell.command_and_commit(CompleteStep(step_id=RESERVE, round=1, result=succeeded()))
    assert isinstance(answer, CommandAccepted)
    assert [type(event.fact) for event in answer.events] == [StepCompletedEarly]
    assert shell.dispatcher.sent() == {"reserve execute 1"}
    await shell.end_and_commit("reserve", unknown())
    assert shell.dispatcher.sent() == {"charge execute 1"}


async def test_accepted_step_that_is_not_completed_expires() -> None:  # R24
    shell = Shell()
    await shell.run(ORDER)
    await shell.end_and_commit("reserve", accepted(60))
    await shell.clock.pass_time(59)
    assert shell.journal.queued == []
    await shell.clock.pass_time(1)
    await shell.settle()
    assert shell.dispatcher.sent() == {"reserve compensate 1"}


async def test_heartbeat_moves_the_timer() -> None:
    shell = Shell()
    await shell.run(ORDER)
    await shell.end_and_commit("reserve", accepted(60))
    await shell.clock.pass_time(30)
    await shell.command_and_commit(Heartbeat(step_id=RESERVE, round=1, time_limit_us=None))
    await shell.clock.pass_time(59)
    assert shell.journal.queued == []
    await shell.clock.pass_time(1)
    assert [append.status for append in shell.journal.queued] == [SagaStatus.COMPENSATING]


# ── Calls that come back after persons have spoken ───────────────────────────────────────────────────────────────────────────────


async def test_terminated_saga_is_held_until_its_calls_have_come_back() -> None:  # R17
    shell = Shell()
    await shell.run(ORDER)
    await shell.command_and_commit(Terminate())
    assert (len(shell.engine.held), shell.seen[-1]) == (1, (SAGA, SagaStatus.FAILED))
    assert [withdrawn for _, withdrawn in shell.dispatcher.withdrawn] == [(shell.dispatcher.under_way[0].attempt,)]
    await shell.dispatcher.end("reserve", succeeded())
    (append,) = shell.journal.queued
    assert [type(event.fact) for event in append.events] == [LateOutcome]
    shell.journal.commit()
    assert len(shell.engine.held) == 0


@pytest.mark.parametrize("kind", [StepKind.PIVOT, StepKind.COMPENSATABLE], ids=lambda kind: kind.name)
async def test_saga_that_turns_back_from_its_very_start_sends_nothing(kind: StepKind) -> None:  # R10, R12
    unfit = step("check", kind=StepKind.READ_ONLY, input=fails, copies_input=False)
    shell = Shell()
    shell.start(graph([step("reserve", kind=kind), unfit], {}))
    await shell.settle()
    assert shell.dispatcher.under_way == []
    assert shell.seen[-1] == (SAGA, SagaStatus.COMPENSATED)
    assert any(isinstance(event.fact, SagaTurnedBack) for append in shell.journal.committed for event in append.events)


async def test_step_that_is_retried_now_is_sent_at_once_and_not_again_at_its_old_time() -> None:
    shell = Shell()
    await shell.run(ORDER)
    await shell.end_and_commit("reserve", retry_later(60))
    await shell.command_and_commit(RetryStep(step_id=RESERVE))
    assert shell.dispatcher.sent() == {"reserve execute 2"}
    await shell.clock.pass_time(120)
    assert shell.dispatcher.sent() == {"reserve execute 2"}


async def test_resolved_step_is_not_sent_at_its_old_time() -> None:  # R17
    shell = Shell()
    await shell.run(ORDER)
    await shell.end_and_commit("reserve", retry_later(60))
    await shell.command_and_commit(ResolveStep(step_id=RESERVE, resolution=ResolvedSucceeded(SAID)))
    await shell.clock.pass_time(120)
    assert shell.dispatcher.sent() == {"charge execute 1"}
