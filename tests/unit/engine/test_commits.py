"""EVENTS ARE COMMITTED BEFORE ANY EFFECT THEY JUSTIFY IS RELEASED; NOTHING IS ANNOUNCED THAT IS NOT IN THE JOURNAL (R25)."""

import pytest

from coordinator.core.errors import Refusal
from coordinator.core.inputs import Cancel
from coordinator.core.values import Code, SagaId, SagaStatus
from coordinator.engine.commands import CommandAccepted, CommandRefused, Declined, Existing, NotLive, Started
from coordinator.engine.declining import CLOSING, FULL, OVERLOADED, SETTLING, STARTS_UNCOMMITTED_MAX
from tests.builders import SAGA, compensated, output_of, parallel, rejected, sequence, step, succeeded, unknown
from tests.fakes import Shell, one_turn

OTHER = SagaId("01900000-0000-7000-8000-000000000002")
ORDER = sequence("reserve", "charge")


async def test_start_before_its_commit_calls_nobody_and_answers_nothing() -> None:  # R25
    shell = Shell()
    shell.start(ORDER)
    await one_turn()
    assert (shell.dispatcher.under_way, shell.starts, shell.seen) == ([], [], [])
    shell.journal.commit()
    assert shell.dispatcher.sent() == {"reserve execute 1"}
    assert [type(answer) for answer in shell.starts] == [Started]
    assert shell.seen == [(SAGA, SagaStatus.RUNNING)]


async def test_success_before_its_commit_releases_no_successor() -> None:  # R25
    shell = Shell()
    await shell.run(ORDER)
    await shell.dispatcher.end("reserve", succeeded())
    assert shell.dispatcher.sent() == set()
    shell.journal.commit()
    assert shell.dispatcher.sent() == {"charge execute 1"}


async def test_compensation_before_the_commit_of_turning_back_is_not_released() -> None:  # R25
    shell = Shell()
    await shell.run(ORDER)
    await shell.end_and_commit("reserve", succeeded())
    await shell.dispatcher.end("charge", rejected())
    assert shell.dispatcher.sent() == set()
    shell.journal.commit()
    assert shell.dispatcher.sent() == {"reserve compensate 1"}


async def test_several_uncommitted_turns_release_only_after_the_last() -> None:  # R25
    shell = Shell()
    await shell.run(parallel("reserve", "charge", step("ship")))
    await shell.dispatcher.end("reserve", succeeded())
    await shell.dispatcher.end("charge", rejected())
    await shell.dispatcher.end("ship", rejected())
    shell.journal.commit(1)
    shell.journal.commit(1)
    assert shell.dispatcher.sent() == set()
    shell.journal.commit(1)
    assert shell.dispatcher.sent() == {"reserve compensate 1"}


async def test_end_is_told_once_and_only_after_its_commit() -> None:  # R25
    shell = Shell()
    await shell.run(sequence("reserve"))
    assert shell.listen_for_end()
    await shell.dispatcher.end("reserve", succeeded())
    assert shell.ends == []
    shell.journal.commit()
    assert (shell.ends, len(shell.engine.held)) == ([SagaStatus.COMPLETED], 0)
    assert not shell.listen_for_end()


async def test_failed_saga_is_told_as_failed_and_let_go() -> None:  # R15
    shell = Shell()
    await shell.run(sequence(step("reserve", undo_limit_s=0), "charge"))
    shell.listen_for_end()
    await shell.end_and_commit("reserve", succeeded())
    await shell.end_and_commit("charge", rejected())
    await shell.end_and_commit("reserve", unknown())
    assert (shell.ends, len(shell.engine.held)) == ([SagaStatus.FAILED], 0)


async def test_listener_that_was_taken_back_is_not_told() -> None:
    shell = Shell()
    await shell.run(sequence("reserve"))
    told: list[object] = []
    listener = told.append
    shell.engine.on_end(SAGA, listener)
    shell.engine.off_end(SAGA, listener)
    shell.engine.off_end(SAGA, listener)
    await shell.end_and_commit("reserve", succeeded())
    assert told == []


async def test_subscriber_hears_every_commit_until_it_leaves() -> None:
    shell = Shell()
    heard: list[int] = []
    leave = shell.engine.subscribe(SAGA, lambda: heard.append(len(shell.journal.committed)))
    await shell.run(ORDER)
    await shell.dispatcher.end("reserve", succeeded())
    assert heard == [1]
    shell.journal.commit()
    leave()
    leave()
    await shell.end_and_commit("charge", succeeded())
    assert heard == [1, 2]


async def test_inputs_of_one_turn_are_one_batch() -> None:
    shell = Shell()
    for saga_id in (SAGA, OTHER):
        await shell.run(ORDER, saga_id)
    before = len(shell.journal.batches)
    await shell.dispatcher.end_all([(call, succeeded()) for call in list(shell.dispatcher.under_way)])
    assert shell.journal.batches[before:] == [2]


# ── Starts that meet another ─────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_same_start_again_before_the_commit_waits_for_it() -> None:  # R25
    shell = Shell()
    shell.start(ORDER)
    shell.start(ORDER)
    shell.start(ORDER, asks_for="something else")
    assert (len(shell.journal.queued), shell.starts) == (1, [])
    shell.journal.commit()
    assert isinstance(shell.starts[0], Started)
    assert shell.starts[1:] == [Existing(winner=SAGA, same=True, by_key=False), Existing(winner=SAGA, same=False, by_key=False)]


async def test_same_start_again_while_a_turn_is_uncommitted_waits_for_it() -> None:  # R25
    shell = Shell()
    await shell.run(ORDER)
    await shell.dispatcher.end("reserve", succeeded())
    shell.start(ORDER)
    assert len(shell.starts) == 1
    shell.journal.commit()
    assert shell.starts[1:] == [Existing(winner=SAGA, same=True, by_key=False)]


async def test_same_start_of_a_committed_saga_is_answered_at_once() -> None:
    shell = Shell()
    await shell.run(ORDER)
    shell.start(ORDER)
    assert shell.starts[1:] == [Existing(winner=SAGA, same=True, by_key=False)]


@pytest.mark.parametrize("by_key", [True, False])
async def test_lost_start_is_answered_with_the_winner_and_forgotten(by_key: bool) -> None:  # R4
    shell = Shell()
    shell.start(ORDER, key="order-42")
    shell.listen_for_end()
    winner = OTHER if by_key else SAGA
    shell.journal.lose_start(winner, same=True, by_key=by_key)
    assert shell.starts == [Existing(winner=winner, same=True, by_key=by_key)]
    assert (len(shell.engine.held), shell.dispatcher.under_way, shell.seen, shell.ends) == (0, [], [], [None])


async def test_starts_that_waited_for_a_lost_one_are_tried_for_themselves() -> None:  # R4
    shell = Shell()
    shell.start(ORDER, key="order-42")
    shell.start(ORDER, key="order-43")
    shell.journal.lose_start(OTHER, same=True, by_key=True)
    assert [append.start.key.key for append in shell.journal.queued if append.start and append.start.key] == ["order-43"]
    shell.journal.commit()
    assert isinstance(shell.starts[1], Started)


async def test_refused_start_is_declined_and_others_go_on() -> None:  # R28
    shell = Shell()
    shell.start(ORDER)
    shell.start(ORDER, OTHER)
    shell.journal.refuse()
    shell.journal.commit()
    assert [type(answer) for answer in shell.starts] == [Declined, Started]
    assert {call.saga_id for call in shell.dispatcher.under_way} == {OTHER}


async def test_refused_append_lets_go_of_its_saga_alone() -> None:  # R28
    shell = Shell()
    for saga_id in (SAGA, OTHER):
        await shell.run(ORDER, saga_id)
    shell.listen_for_end()
    await shell.dispatcher.end_all([(call, succeeded()) for call in list(shell.dispatcher.under_way)])
    shell.journal.refuse()
    shell.journal.commit()
    assert (shell.ends, len(shell.engine.held)) == ([None], 1)
    assert {(call.saga_id, call.attempt.step_id) for call in shell.dispatcher.under_way} == {(OTHER, "charge")}


async def test_start_of_a_dropped_saga_waits_until_its_appends_are_settled() -> None:  # R25
    """Else a commit of the dropped one would be taken for that of the new one, and release what is in no journal."""
    shell = Shell()
    await shell.run(parallel("reserve", "charge"))
    await shell.dispatcher.end("reserve", succeeded())
    await shell.dispatcher.end("charge", succeeded())
    shell.journal.refuse()
    shell.start(ORDER)
    assert shell.starts[1:] == [Declined(failure=SETTLING)]
    shell.journal.refuse()
    shell.start(ORDER)
    assert (len(shell.journal.queued), shell.dispatcher.under_way) == (1, [])
    shell.journal.lose_start(SAGA, same=True, by_key=False)
    assert shell.starts[2:] == [Existing(winner=SAGA, same=True, by_key=False)]


async def test_start_is_declined_while_too_many_sagas_are_under_way() -> None:  # D7
    shell = Shell(live_sagas_max=2)
    for number in range(3):
        shell.start(ORDER, SagaId(f"saga {number}"))
    assert shell.starts == [Declined(failure=FULL)]
    shell.journal.commit()
    shell.start(ORDER, SagaId("saga 3"))
    assert shell.starts[-1] == Declined(failure=FULL)
    await shell.end_and_commit("reserve", rejected(sealed=True), saga_id=SagaId("saga 0"))
    shell.start(ORDER, SagaId("saga 4"))
    assert len(shell.journal.queued) == 1


async def test_too_many_uncommitted_starts_are_declined() -> None:
    shell = Shell()
    for number in range(STARTS_UNCOMMITTED_MAX):
        shell.start(ORDER, SagaId(f"saga {number}"))
    assert shell.starts == []
    shell.start(ORDER)
    assert shell.starts == [Declined(failure=OVERLOADED)]
    shell.journal.commit(1)
    shell.start(ORDER)
    assert len(shell.journal.queued) == STARTS_UNCOMMITTED_MAX


# ── Cancel ───────────────────────────────────────────────────────────────────────────────────────────────────────────────────────


def _cancel(shell: Shell, saga_id: SagaId = SAGA) -> None:
    shell.engine.command(saga_id, Cancel(actor="alice"), shell.answers.append)


async def test_cancel_is_accepted_after_its_commit_and_withdraws_what_is_under_way() -> None:  # R12, R25
    shell = Shell()
    await shell.run(ORDER)
    (call,) = shell.dispatcher.under_way
    _cancel(shell)
    assert (shell.answers, shell.dispatcher.withdrawn) == ([], [(SAGA, (call.attempt,))])
    shell.journal.commit()
    assert [type(answer) for answer in shell.answers] == [CommandAccepted]


async def test_cancel_before_the_commit_of_the_start_sends_nothing() -> None:  # R25
    shell = Shell()
    shell.start(ORDER)
    _cancel(shell)
    shell.journal.commit()
    assert (shell.answers, shell.dispatcher.under_way) == ([], [])
    await one_turn()
    shell.journal.commit()
    assert [type(answer) for answer in shell.answers] == [CommandAccepted]
    assert (shell.dispatcher.under_way, len(shell.engine.held)) == ([], 0)
    assert shell.seen[-1] == (SAGA, SagaStatus.COMPENSATED)


async def test_cancel_of_a_start_that_is_lost_touches_no_events_of_the_winner() -> None:  # R4, R27
    shell = Shell()
    shell.start(ORDER)
    _cancel(shell)
    assert len(shell.journal.queued) == 1
    shell.journal.lose_start(SAGA, same=True, by_key=False)
    assert [type(answer) for answer in shell.answers] == [NotLive]
    assert shell.journal.queued == []


async def test_cancel_refused_waits_for_the_commit_it_was_derived_from() -> None:  # R25
    shell = Shell()
    await shell.run(sequence("reserve"))
    await shell.dispatcher.end("reserve", succeeded())
    _cancel(shell)
    assert shell.answers == []
    shell.journal.commit()
    (answer,) = shell.answers
    assert isinstance(answer, CommandRefused)
    assert (answer.status, answer.refusal) == (SagaStatus.COMPLETED, Refusal.SAGA_ENDED)


async def test_cancel_of_a_saga_that_is_not_held_says_so() -> None:
    shell = Shell()
    _cancel(shell)
    assert [type(answer) for answer in shell.answers] == [NotLive]


async def test_cancel_whose_append_is_refused_is_not_accepted() -> None:  # R25
    shell = Shell()
    await shell.run(ORDER)
    _cancel(shell)
    shell.journal.refuse()
    assert [type(answer) for answer in shell.answers] == [NotLive]


async def test_cancel_asked_for_in_the_answer_of_another_waits_for_its_own_commit() -> None:  # R25
    shell = Shell()
    await shell.run(ORDER)
    await shell.dispatcher.end("reserve", succeeded())
    shell.start(ORDER)
    shell.engine.command(SAGA, Cancel(), lambda _: _cancel(shell))
    shell.journal.commit()
    await one_turn()
    assert (shell.answers, shell.dispatcher.sent()) == ([], set())
    shell.journal.commit()
    assert [type(answer) for answer in shell.answers] == [CommandAccepted]
    assert shell.dispatcher.sent() == {"reserve compensate 1"}


# ── Turning back ─────────────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_step_that_was_released_nowhere_is_not_awaited_when_the_saga_turns_back() -> None:  # R12
    shell = Shell()
    await shell.run(parallel("reserve", "charge"))
    shell.engine.command(SAGA, Cancel(), shell.answers.append)
    shell.journal.commit()
    await shell.end_and_commit("reserve", rejected())
    await shell.end_and_commit("charge", succeeded())
    assert shell.dispatcher.sent() == {"charge compensate 1"}


async def test_successor_decided_in_the_turn_that_turns_back_is_never_sent() -> None:  # R12
    shell = Shell()
    await shell.run(parallel("a", "b"))
    plan = sequence("reserve", "charge")
    await shell.run(plan, OTHER)
    await shell.dispatcher.end("reserve", succeeded(), OTHER)
    _cancel(shell, OTHER)
    await one_turn()
    shell.journal.commit()
    await one_turn()
    assert {call.attempt.step_id for call in shell.dispatcher.under_way if call.saga_id == OTHER} == {"reserve"}
    assert shell.dispatcher.withdrawn == []


async def test_call_released_in_the_turn_that_turns_back_is_never_sent() -> None:  # R12
    """A timer makes a retry due, and the same turn brings the sibling's rejection: the dispatcher must not get the call afterwards."""
    shell = Shell()
    await shell.run(parallel("reserve", "charge"))
    await shell.end_and_commit("reserve", unknown())
    (retry_at,) = shell.clock.armed
    (charge,) = shell.dispatcher.under_way
    shell.clock.fire_at(retry_at)
    await shell.dispatcher.end_all([(charge, rejected())])  # no turn in between
    assert shell.dispatcher.under_way == []
    shell.journal.commit()
    await one_turn()
    assert shell.dispatcher.sent() == {"reserve compensate 1"}


async def test_undone_saga_is_announced_whole() -> None:
    shell = Shell()
    await shell.run(ORDER)
    shell.listen_for_end()
    await shell.end_and_commit("reserve", succeeded())
    await shell.end_and_commit("charge", rejected())
    await shell.end_and_commit("reserve", compensated())
    assert (shell.ends, [status for _, status in shell.seen]) == (
        [SagaStatus.COMPENSATED],
        [SagaStatus.RUNNING, SagaStatus.RUNNING, SagaStatus.COMPENSATING, SagaStatus.COMPENSATED],
    )
    assert len(shell.engine.held) == 0


async def test_output_of_an_earlier_step_is_sent_as_committed() -> None:  # R3
    shell = Shell()
    await shell.run(sequence("reserve", step("charge", input=output_of(0))))
    await shell.end_and_commit("reserve", succeeded(b"receipt"))
    (call,) = shell.dispatcher.under_way
    assert call.input == succeeded(b"receipt").output


async def test_closing_engine_declines_with_a_code_that_may_be_retried() -> None:
    assert CLOSING.code == SETTLING.code == Code.UNAVAILABLE
    assert OVERLOADED.code == FULL.code == Code.RESOURCE_EXHAUSTED
