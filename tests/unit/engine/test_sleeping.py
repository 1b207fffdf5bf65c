"""Sagas that wait for long are let go of, and taken up again in time (D9)."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import cast

import pytest

from coordinator.core.events import SagaRecovered
from coordinator.core.inputs import Cancel, Pause, Resume
from coordinator.core.plan import SagaPlan
from coordinator.core.values import SagaId, SagaStatus
from coordinator.engine.commands import CommandAccepted, NotLive
from coordinator.engine.ports import Journal, JournalUnavailableError
from coordinator.engine.shards import ONE_SHARD
from coordinator.engine.sleepers import PAGE_SAGAS, Sleepers
from coordinator.engine.slot import NEVER
from tests.builders import SAGA, Story, accepted, at, attempt, compensated, parallel, retry_later, sequence, started, step, succeeded
from tests.fakes import Shell, one_turn, stored_of

ORDER = sequence(step("reserve", limit_s=100_000), "charge", limit_s=1_000_000)


def asleep_until(shell: Shell) -> list[object]:
    return [append.wake_at for append in shell.journal.committed]


async def put_away(shell: Shell) -> None:
    """Another saga comes to rest, for which this one has to leave."""
    shell.start(ORDER, SagaId("another"), start_at=50_000)
    shell.journal.commit()
    await one_turn()


@pytest.mark.parametrize(
    ("plan", "happens", "until"),
    [
        (ORDER, accepted(3_600), 4_600),
        (ORDER, retry_later(600), 1_600),
        (sequence("reserve", limit_s=80), accepted(3_600), 1_080),
    ],
    ids=["finished later", "long backoff", "the deadline comes first"],
)
async def test_saga_that_waits_for_long_may_leave(plan: SagaPlan, happens: object, until: float) -> None:
    shell = Shell(resting_max=1)
    await shell.run(plan)
    await shell.end_and_commit("reserve", happens)  # type: ignore[arg-type]
    assert asleep_until(shell) == [None, at(until)]
    assert SAGA in shell.engine.held  # what it waits for mostly comes soon
    await put_away(shell)
    assert SAGA not in shell.engine.held


@pytest.mark.parametrize("happens", [accepted(59), retry_later(59)], ids=["finished soon", "short backoff"])
async def test_saga_that_moves_soon_stays(happens: object) -> None:
    shell = Shell(resting_max=1)
    await shell.run(sequence("reserve", limit_s=100_000))
    await shell.end_and_commit("reserve", happens)  # type: ignore[arg-type]
    await put_away(shell)
    assert (asleep_until(shell)[:2], SAGA in shell.engine.held) == ([None, None], True)


async def test_saga_with_a_call_under_way_stays() -> None:
    shell = Shell(resting_max=1)
    await shell.run(parallel("reserve", "charge"))
    await shell.end_and_commit("reserve", accepted(3_600))
    await put_away(shell)
    assert (asleep_until(shell)[1], SAGA in shell.engine.held) == (None, True)


async def test_paused_saga_sleeps_until_a_person_comes() -> None:  # R15
    shell = Shell(resting_max=1)
    shell.start(ORDER, start_at=2_000)
    shell.journal.commit()
    assert isinstance(await shell.command_and_commit(Pause()), CommandAccepted)
    assert asleep_until(shell) == [at(2_000), NEVER]
    await put_away(shell)
    assert SAGA not in shell.engine.held


async def test_saga_whose_end_somebody_awaits_stays_until_they_leave() -> None:
    shell = Shell(resting_max=1)
    await shell.run(ORDER)
    await shell.end_and_commit("reserve", accepted(3_600))
    ends: list[object] = []
    shell.engine.on_end(SAGA, ends.append)
    await put_away(shell)
    assert SAGA in shell.engine.held
    shell.engine.off_end(SAGA, ends.append)
    assert (SAGA in shell.engine.held, SagaId("another") in shell.engine.held) == (True, False)  # it came to rest last
    shell.start(ORDER, SagaId("a third"), start_at=50_000)
    shell.journal.commit()
    await one_turn()
    assert (SAGA in shell.engine.held, ends) == (False, [])


async def test_saga_that_moves_again_is_not_put_away() -> None:
    shell = Shell(resting_max=1)
    shell.start(ORDER, start_at=2_000)
    shell.journal.commit()
    await shell.command_and_commit(Cancel())
    await put_away(shell)
    assert shell.seen[-2:] == [(SAGA, SagaStatus.COMPENSATED), (SagaId("another"), SagaStatus.PENDING)]


async def test_sleeper_is_taken_up_for_a_command_as_it_stood() -> None:
    """What it waits for is not put in doubt: nobody but this process can have called."""
    shell = Shell(resting_max=1)
    story = started(ORDER, when=900)
    story.reply("reserve", retry_later(600), 901)
    shell.take_up(story, asleep_until=at(1_501))
    assert (shell.journal.queued, shell.clock.armed) == ([], [at(1_501)])
    await shell.command_and_commit(Pause())
    await shell.command_and_commit(Resume())
    await shell.clock.pass_time(501)
    assert shell.dispatcher.sent() == {"reserve execute 2"}


async def test_sleeper_of_an_earlier_process_is_put_in_doubt_when_it_wakes() -> None:  # R29
    shell = Shell()
    story = started(ORDER, when=900)
    story.reply("reserve", retry_later(600), 901)
    shell.take_up(story, in_doubt=True, asleep_until=at(1_501))
    (append,) = shell.journal.queued
    assert [event.fact for event in append.events] == [SagaRecovered(in_doubt=(attempt("reserve", 2),))]


async def test_command_refused_by_a_sleeper_leaves_it_asleep() -> None:
    shell = Shell(resting_max=1)
    story = Story(ORDER)
    story.start(900, start_at=5_000)
    shell.take_up(story, asleep_until=at(5_000))
    await shell.command_and_commit(Resume())  # it was never paused
    await put_away(shell)
    assert (SAGA in shell.engine.held, shell.journal.committed[0].saga_id) == (False, "another")
    shell.command(Cancel())
    assert isinstance(shell.answers[-1], NotLive)


# ── Waking ───────────────────────────────────────────────────────────────────────────────────────────────────────────────────────


def pending(number: int, start_at: float) -> Story:
    story = Story(ORDER, SagaId(f"saga {number:04}"))
    story.start(900, start_at=start_at)
    return story


@asynccontextmanager
async def waking(shell: Shell) -> AsyncIterator[Sleepers]:
    journal = cast("Journal", shell.journal)
    sleepers = Sleepers(clock=shell.clock, engine=shell.engine, journal=journal, reviver=shell.reviver(ORDER), shards=ONE_SHARD)
    runner = asyncio.ensure_future(sleepers.run())
    try:
        yield sleepers
    finally:
        runner.cancel()
        with suppress(asyncio.CancelledError):
            await runner


async def until(holds: Callable[[], bool]) -> None:
    for _ in range(1_000):
        if holds():
            return
        await one_turn()
    raise AssertionError("it never came to that")


async def test_sleepers_are_taken_up_a_little_before_they_move() -> None:
    due, soon, later, never = pending(1, 950), pending(2, 1_030), pending(3, 1_500), pending(4, 9_000)
    instants = {due: at(950), soon: at(1_030), later: at(1_500), never: NEVER}
    shell = Shell([stored_of(story, story.state.saga_id, asleep_until=instant, in_doubt=False) for story, instant in instants.items()])
    async with waking(shell) as sleepers:
        assert shell.clock.armed == []
        sleepers.follow(0)
        await until(lambda: len(shell.engine.held) == 2)
        assert all(story.state.saga_id in shell.engine.held for story in (due, soon))
        await until(lambda: at(1_470) in shell.clock.armed)
        await shell.clock.pass_time(469)
        assert later.state.saga_id not in shell.engine.held
        await shell.clock.pass_time(1)
        await until(lambda: later.state.saga_id in shell.engine.held)
        assert at(1_500) in shell.clock.armed
        await until(lambda: len(shell.clock.armed) == 1)  # nobody is looked for who never moves by himself


async def test_saga_that_is_let_go_of_is_looked_for_in_time() -> None:
    shell = Shell(resting_max=1)
    async with waking(shell) as sleepers:
        sleepers.follow(0)
        await one_turn()
        shell.start(ORDER, start_at=3_000)
        shell.journal.commit()
        await put_away(shell)
        assert SAGA not in shell.engine.held
        assert at(2_970) in shell.clock.armed


async def test_more_sleepers_than_a_page_wake_together() -> None:
    stories = [pending(number, 1_010) for number in range(PAGE_SAGAS + 1)]
    shell = Shell([stored_of(story, story.state.saga_id, asleep_until=at(1_010), in_doubt=False) for story in stories])
    async with waking(shell) as sleepers:
        sleepers.follow(0)
        await until(lambda: len(shell.engine.held) == PAGE_SAGAS + 1)


async def test_sleepers_sleep_on_while_too_many_are_under_way() -> None:  # D7
    stories = [pending(number, 1_010) for number in range(3)]
    shell = Shell([stored_of(story, story.state.saga_id, asleep_until=at(1_010), in_doubt=False) for story in stories], live_sagas_max=1)
    await shell.run(ORDER)
    async with waking(shell) as sleepers:
        sleepers.follow(0)
        await until(lambda: shell.clock.armed != [])
        assert len(shell.engine.held) == 1
        await shell.command_and_commit(Cancel())
        await shell.end_and_commit("reserve", succeeded())
        await shell.end_and_commit("reserve", compensated())
        assert len(shell.engine.held) == 0
        await shell.clock.pass_time(5)
        await until(lambda: len(shell.engine.held) > 0)


async def test_database_that_is_away_delays_waking_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    story = pending(1, 1_010)
    shell = Shell([stored_of(story, story.state.saga_id, asleep_until=at(1_010), in_doubt=False)])
    find, tries = shell.journal.find_asleep, 0

    async def find_at_the_third_try(*arguments: object, **named: object) -> object:
        nonlocal tries
        tries += 1
        if tries == 1:
            raise JournalUnavailableError("away")
        if tries == 2:
            raise ZeroDivisionError  # a defect is no reason to stop either
        return await find(*arguments, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(shell.journal, "find_asleep", find_at_the_third_try)
    async with waking(shell) as sleepers:
        sleepers.follow(0)
        await one_turn()
        await shell.clock.pass_time(5)
        await shell.clock.pass_time(5)
        await until(lambda: story.state.saga_id in shell.engine.held)
        assert tries >= 3
