"""Taking up what an earlier process left (P1, R29)."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import cast

from coordinator.core.events import SagaRecovered
from coordinator.core.inputs import Cancel
from coordinator.core.plan import SagaPlan
from coordinator.core.values import MICROS_PER_SECOND, DefinitionKey, SagaId, SagaStatus
from coordinator.engine.commands import CommandAccepted, Existing
from coordinator.engine.ports import Journal, StoredSaga
from coordinator.engine.recovery import HOLDING_US_MAX, Takeover
from coordinator.engine.reviver import PAGE_SAGAS, Reviver
from coordinator.engine.shards import ONE_SHARD
from coordinator.engine.sleepers import Sleepers
from tests.builders import SAGA, Story, at, attempt, parallel, rejected, sequence, started, succeeded
from tests.fakes import KnownPlans, Shell, one_turn, stored_of

OTHER = SagaId("01900000-0000-7000-8000-000000000002")
ORDER = sequence("reserve", "charge")


class SlowPlans(KnownPlans):
    """Answers when the test says so."""

    def __init__(self, *plans: SagaPlan) -> None:
        super().__init__(*plans)
        self.is_asked, self.may_answer = asyncio.Event(), asyncio.Event()

    async def plan_of(self, key: DefinitionKey, /) -> SagaPlan:
        self.is_asked.set()
        await self.may_answer.wait()
        return await super().plan_of(key)


async def _recovered(*stored: StoredSaga, plan: SagaPlan = ORDER) -> tuple[Shell, int]:
    shell = Shell(stored)
    count, _ = await shell.reviver(plan).revive_awake()
    await one_turn()
    return shell, count


async def test_recovered_saga_calls_nobody_before_its_doubt_is_committed() -> None:  # R25, R29
    story = started(ORDER, when=900)
    story.reply("reserve", succeeded(), 901)
    shell, count = await _recovered(stored_of(story))
    assert (count, shell.dispatcher.under_way) == (1, [])
    (append,) = shell.journal.queued
    assert [event.fact for event in append.events] == [SagaRecovered(in_doubt=(attempt("charge", 1),))]
    assert append.expected_sequence == 2
    shell.journal.commit()
    assert shell.dispatcher.sent() == {"charge execute 2"}


async def test_recovered_pending_saga_sleeps_on_without_an_event() -> None:
    story = Story(ORDER)
    story.start(900, start_at=1_100)
    shell, _ = await _recovered(stored_of(story))
    assert (shell.journal.queued, shell.clock.armed) == ([], [at(1_100)])
    await shell.clock.pass_time(100)
    shell.journal.commit()
    assert shell.dispatcher.sent() == {"reserve execute 1"}


async def test_recovered_saga_that_awaits_siblings_wakes_when_it_is_quiet() -> None:  # R12, R29
    plan = parallel("reserve", "charge")
    story = started(plan, when=995)
    story.reply("reserve", rejected(), 996)
    shell, _ = await _recovered(stored_of(story), plan=plan)
    shell.journal.commit()
    assert shell.clock.armed == [at(1_006.5)]
    await shell.clock.pass_time(6.5)
    shell.journal.commit()
    assert (shell.dispatcher.sent(), shell.clock.armed) == (set(), [at(1_010.5)])  # the earlier process's call may be at work until then
    await shell.clock.pass_time(4)
    assert shell.dispatcher.sent() == {"charge compensate 1"}


async def test_recovered_saga_whose_limit_is_over_turns_back() -> None:  # R13
    plan = sequence("reserve", limit_s=60)
    shell, _ = await _recovered(stored_of(started(plan, when=100)), plan=plan)
    shell.journal.commit()
    await shell.clock.pass_time(0)
    assert [append.status for append in shell.journal.queued] == [SagaStatus.COMPENSATING]


async def test_cancel_right_after_the_recovery_takes_no_earlier_call_for_unsent() -> None:  # R5, R12, R29
    """Before the recovery's own turn: the call of the earlier process may have taken effect, so its step must not count as rejected."""
    shell = Shell()
    story = started(sequence("reserve"), when=995)
    story.crash()
    shell.take_up(story, in_doubt=True)
    shell.engine.command(SAGA, Cancel(), shell.answers.append)
    await one_turn()
    shell.journal.commit()
    await one_turn()
    shell.journal.commit()
    assert [type(answer) for answer in shell.answers] == [CommandAccepted]
    assert (shell.seen[-1], shell.clock.armed) == ((SAGA, SagaStatus.COMPENSATING), [at(1_010.5)])
    await shell.clock.pass_time(10.5)
    shell.journal.commit()
    assert shell.dispatcher.sent() == {"reserve compensate 1"}


async def test_start_of_a_recovered_saga_again_is_answered_with_it() -> None:
    shell, _ = await _recovered(stored_of(started(ORDER, when=900)))
    shell.start(ORDER)
    shell.start(ORDER, asks_for="something else")
    assert shell.starts == []  # R25
    shell.journal.commit()
    assert shell.starts == [Existing(winner=SAGA, same=True, by_key=False), Existing(winner=SAGA, same=False, by_key=False)]


async def test_saga_that_cannot_be_rebuilt_is_quarantined_and_others_go_on() -> None:  # P5
    story = started(ORDER, when=900)
    torn = replace(stored_of(story, SagaId("torn")), events=(story.journal[0]._replace(sequence=2),))
    unknown_plan = replace(stored_of(story, SagaId("unknown plan")), definition=DefinitionKey("nobody", 1))
    broken_plan = replace(stored_of(story, SagaId("broken plan")), definition=KnownPlans.BROKEN)
    shell, count = await _recovered(torn, unknown_plan, broken_plan, stored_of(story))
    assert count == 1
    assert [saga_id for saga_id, _ in shell.journal.quarantined] == ["broken plan", "torn", "unknown plan"]
    assert [append.saga_id for append in shell.journal.queued] == [SAGA]


@asynccontextmanager
async def taking_up_a_page() -> AsyncIterator[Shell]:
    """A start that has read one page of two, and cannot read on yet."""
    stored = [stored_of(started(ORDER, when=900), SagaId(f"saga {number:04}")) for number in range(PAGE_SAGAS + 1)]
    shell = Shell(stored)
    shell.journal.may_read_on.clear()
    reviver = shell.reviver(ORDER)
    sleepers = Sleepers(clock=shell.clock, engine=shell.engine, journal=cast("Journal", shell.journal), reviver=reviver, shards=ONE_SHARD)
    takeover = Takeover(clock=shell.clock, engine=shell.engine, reviver=reviver, sleepers=sleepers, shards=ONE_SHARD)
    beginning = asyncio.ensure_future(takeover.begin())
    while len(shell.journal.queued) < PAGE_SAGAS:
        await one_turn()
    shell.journal.commit()
    yield shell
    shell.journal.may_read_on.set()
    assert await beginning == PAGE_SAGAS + 1


async def test_first_sagas_of_a_start_let_the_last_be_read_before_they_go_on() -> None:
    async with taking_up_a_page() as shell:
        assert shell.dispatcher.under_way == []
    await shell.settle()
    assert len(shell.dispatcher.under_way) == PAGE_SAGAS + 1


async def test_first_sagas_of_a_start_wait_for_the_last_no_longer_than_they_may() -> None:
    async with taking_up_a_page() as shell:
        await shell.clock.pass_time(HOLDING_US_MAX / MICROS_PER_SECOND)
        assert len(shell.dispatcher.under_way) == PAGE_SAGAS
    assert shell.clock.armed == []


async def test_call_that_is_held_is_not_sent_once_its_saga_has_turned_back() -> None:  # R12
    shell = Shell()
    shell.engine.hold_calls(is_holding=True)
    await shell.run(ORDER)
    assert shell.dispatcher.under_way == []
    await shell.command_and_commit(Cancel())
    shell.engine.hold_calls(is_holding=False)
    await shell.settle()
    assert (shell.dispatcher.under_way, shell.seen[-1]) == ([], (SAGA, SagaStatus.COMPENSATED))


async def test_more_sagas_than_a_page_are_all_recovered() -> None:  # P1
    stored = []
    for number in range(PAGE_SAGAS + 1):
        story = Story(ORDER, SagaId(f"saga {number:04}"))
        story.start(900)
        stored.append(stored_of(story, story.state.saga_id))
    shell, count = await _recovered(*stored)
    assert (count, len(shell.engine.held), len(shell.journal.queued)) == (PAGE_SAGAS + 1, PAGE_SAGAS + 1, PAGE_SAGAS + 1)


async def test_saga_whose_start_is_sent_again_while_it_is_taken_over_is_looked_at_again() -> None:  # P1
    """Its client repeats the start where its shard is taken over; the start is lost to the saga itself, and nobody would drive it."""
    story = started(ORDER, when=900)
    shell = Shell([stored_of(story)])
    shell.start(ORDER)
    reviver = shell.reviver(ORDER)
    assert await reviver.revive_awake() == (0, (SAGA,))
    assert await reviver.revive_passed_over((SAGA,)) == (SAGA,)
    shell.journal.lose_start(SAGA, same=True, by_key=False)
    assert await reviver.revive_passed_over((SAGA,)) == ()
    shell.journal.commit()
    assert shell.dispatcher.sent() == {"reserve execute 2"}


async def test_takeover_looks_again_at_what_was_passed_over_until_it_is_driven() -> None:  # P1
    shell = Shell([stored_of(started(ORDER, when=900))])
    shell.start(ORDER)
    reviver = shell.reviver(ORDER)
    sleepers = Sleepers(clock=shell.clock, engine=shell.engine, journal=cast("Journal", shell.journal), reviver=reviver, shards=ONE_SHARD)
    takeover = Takeover(clock=shell.clock, engine=shell.engine, reviver=reviver, sleepers=sleepers, shards=ONE_SHARD)
    assert await takeover.begin() == 0
    running = asyncio.ensure_future(takeover.run())
    await shell.clock.pass_time(1)
    assert shell.dispatcher.sent() == set()
    shell.journal.lose_start(SAGA, same=True, by_key=False)
    await shell.clock.pass_time(1)
    shell.journal.commit()
    assert shell.dispatcher.sent() == {"reserve execute 2"}
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def test_saga_that_moves_while_its_plan_is_read_is_left_as_it_is_now() -> None:  # R27
    """A command ends it between reading and taking up: as it was read it must not be held, or its next event would be there twice."""
    asleep = Story(ORDER)
    asleep.start(900, start_at=5_000)
    shell = Shell([stored_of(asleep, asleep_until=at(5_000))])
    plans = SlowPlans(ORDER)
    reviving = asyncio.ensure_future(Reviver(shell.engine, cast("Journal", shell.journal), plans).revive_asleep([SAGA]))
    await plans.is_asked.wait()
    shell.take_up(asleep, asleep_until=at(5_000))
    shell.engine.command(SAGA, Cancel(), shell.answers.append)
    await one_turn()
    shell.journal.commit()
    assert SAGA not in shell.engine.held
    plans.may_answer.set()
    await reviving
    assert SAGA not in shell.engine.held
