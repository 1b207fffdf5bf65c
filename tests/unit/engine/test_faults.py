"""One poison saga, broken sink or lost journal never does more harm than it must (P5, R26)."""

import asyncio
from contextlib import suppress

import pytest

from coordinator.core.inputs import Cancel
from coordinator.core.plan import Expression, Values
from coordinator.core.values import Code, Failure, Payload, SagaId
from coordinator.engine.commands import Declined, NotLive
from coordinator.engine.declining import CLOSING
from tests.builders import SAGA, sequence, step, succeeded
from tests.fakes import Shell, one_turn

OTHER = SagaId("01900000-0000-7000-8000-000000000002")


def poison(_: Values) -> Payload:
    """An expression with a defect."""
    raise ZeroDivisionError("division by zero")


async def _run_in_background(shell: Shell) -> None:
    """Lets the engine set aside what it has to."""
    running = asyncio.create_task(shell.engine.run())
    await one_turn()
    running.cancel()
    with suppress(asyncio.CancelledError):
        await running


@pytest.mark.parametrize(("step_input", "output"), [(poison, None), (None, poison)], ids=["input of a step", "output of the saga"])
async def test_saga_whose_expression_raises_is_quarantined_and_others_go_on(  # P5
    step_input: Expression | None, output: Expression | None
) -> None:
    shell = Shell()
    last = step("charge") if step_input is None else step("charge", input=step_input)
    await shell.run(sequence("reserve", last, output=output))
    await shell.run(sequence("reserve", "charge"), OTHER)
    shell.listen_for_end()
    for _ in range(2):
        calls = list(shell.dispatcher.under_way)
        await shell.dispatcher.end_all([(call, succeeded()) for call in calls])
        shell.journal.commit()
        await one_turn()
    await _run_in_background(shell)
    why = Failure(Code.INTERNAL, "cannot be advanced: ZeroDivisionError: division by zero")
    assert shell.journal.quarantined == [(SAGA, why)]
    assert (shell.ends, len(shell.engine.held), shell.dispatcher.under_way) == ([None], 0, [])
    assert shell.seen[-1][0] == OTHER


async def test_start_whose_expression_raises_is_declined_and_others_go_on() -> None:  # P5
    shell = Shell()
    shell.start(sequence(step("reserve", input=poison, copies_input=False)))
    shell.start(sequence("reserve"), OTHER)
    shell.journal.commit()
    why = Failure(Code.INTERNAL, "cannot be started: ZeroDivisionError: division by zero")
    assert shell.starts[0] == Declined(failure=why)
    assert {call.saga_id for call in shell.dispatcher.under_way} == {OTHER}


async def test_poison_found_in_a_turn_loses_nothing_of_the_others_in_it() -> None:  # P5
    """Decided facts of other sagas in the same turn must reach the journal, else their memory is ahead of it for ever."""
    shell = Shell()
    await shell.run(sequence("reserve", step("charge", input=poison)))
    await shell.run(sequence("reserve", "charge"), OTHER)
    await shell.dispatcher.end_all([(call, succeeded()) for call in list(shell.dispatcher.under_way)])
    assert [append.saga_id for append in shell.journal.queued] == [OTHER]
    shell.journal.commit()
    assert {call.saga_id for call in shell.dispatcher.under_way} == {OTHER}
    await _run_in_background(shell)
    assert [saga_id for saga_id, _ in shell.journal.quarantined] == [SAGA]


async def test_command_for_a_quarantined_saga_decides_nothing() -> None:  # P5
    shell = Shell()
    await shell.run(sequence("reserve", step("charge", input=poison)))
    await shell.dispatcher.end("reserve", succeeded())
    assert (len(shell.engine.held), shell.dispatcher.under_way) == (0, [])
    shell.engine.command(SAGA, Cancel(), shell.answers.append)
    assert shell.answers == [NotLive()]
    assert shell.journal.queued == []


async def test_observer_that_raises_stops_nobody() -> None:  # P5
    shell = Shell()

    class Broken:
        def committed(self, *_: object) -> None:
            raise OSError("the sink is gone")

    shell.engine._observers = (Broken(), shell)
    await shell.run(sequence("reserve"))
    assert shell.dispatcher.sent() == {"reserve execute 1"}
    assert len(shell.seen) == 1


# ── Losing the journal ───────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_lost_journal_drops_all_memory_and_announces_nothing() -> None:  # R26
    shell = Shell()
    await shell.run(sequence("reserve", "charge"))
    shell.listen_for_end()
    woken: list[bool] = []
    shell.engine.subscribe(SAGA, lambda: woken.append(True))
    shell.start(sequence("reserve"), OTHER)
    await shell.dispatcher.end("reserve", succeeded())
    why = Failure(Code.UNAVAILABLE, "another process owns the journal")
    shell.engine.lost(why)
    shell.engine.lost(Failure(Code.UNAVAILABLE, "said again"))
    assert await shell.engine.lost_reason == why
    assert (len(shell.engine.held), len(shell.starts), shell.ends, shell.dispatcher.under_way) == (0, 1, [], [])
    assert (shell.clock.armed, shell.engine.is_closing, woken[:1]) == ([], True, [True])


async def test_what_comes_in_after_the_journal_is_lost_does_nothing() -> None:  # R26
    shell = Shell()
    await shell.run(sequence("reserve", "charge"))
    (call,) = shell.dispatcher.under_way
    shell.start(sequence("reserve"), OTHER)
    shell.engine.lost(Failure(Code.UNAVAILABLE, "gone"))
    await shell.dispatcher.end_all([(call, succeeded())])
    shell.journal.commit()
    shell.start(sequence("reserve"), SagaId("third"))
    shell.engine.command(SAGA, Cancel(), shell.answers.append)
    assert shell.journal.queued == []
    assert shell.starts[1:] == [Declined(failure=CLOSING)]
    assert shell.answers == [Declined(failure=CLOSING)]
    await asyncio.wait_for(shell.engine.drain(), 1)


# ── Closing ──────────────────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_drain_waits_for_calls_under_way_and_for_their_commit() -> None:
    shell = Shell()
    await shell.run(sequence("reserve", "charge"))
    drained = asyncio.create_task(shell.engine.drain())
    await one_turn()
    assert not drained.done()
    await shell.dispatcher.end("reserve", succeeded())
    assert not drained.done()
    shell.journal.commit()
    await asyncio.wait_for(drained, 1)
    assert shell.dispatcher.under_way == []  # the next step is left to whoever recovers it
    assert shell.clock.armed == []


async def test_drain_declines_new_work() -> None:
    shell = Shell()
    await shell.run(sequence("reserve"))
    drained = asyncio.create_task(shell.engine.drain())
    await one_turn()
    shell.start(sequence("reserve"), OTHER)
    shell.engine.command(SAGA, Cancel(), shell.answers.append)
    assert shell.starts[1:] == [Declined(failure=CLOSING)]
    assert shell.answers == [Declined(failure=CLOSING)]
    await shell.end_and_commit("reserve", succeeded())
    await asyncio.wait_for(drained, 1)


async def test_drain_answers_a_start_that_waits_for_its_commit() -> None:  # R25
    shell = Shell()
    shell.start(sequence("reserve"))
    drained = asyncio.create_task(shell.engine.drain())
    await one_turn()
    assert not drained.done()
    shell.journal.commit()
    await asyncio.wait_for(drained, 1)
    assert len(shell.starts) == 1
    assert shell.dispatcher.under_way == []


async def test_drain_of_an_idle_engine_returns_at_once() -> None:
    shell = Shell()
    await asyncio.wait_for(shell.engine.drain(), 1)
