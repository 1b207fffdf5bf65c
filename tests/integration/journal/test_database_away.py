"""The database cannot be written for a while: appends wait, nothing is announced, and everything goes on."""

import asyncio
import logging
import sqlite3
import threading
from contextlib import closing
from itertools import pairwise

import pytest

from coordinator.core.values import Failure
from coordinator.engine.ports import Committed, JournalUnavailableError
from coordinator.journal import SqlJournal
from coordinator.journal.commit_loop import BATCH_APPENDS_MAX, RETRY_DELAY_MAX_US, RETRY_DELAY_MIN_US
from tests.fakes import VirtualClock
from tests.journals import SqlWorld, Told, definition, eventually, first, new_id, new_ids, participant, then
from tests.sqlite_faults import CommitGate, Faults, broken

BUSY = broken("SQLITE_BUSY")


async def test_locked_database_is_waited_for(journal: SqlJournal, told: Told, world: SqlWorld, caplog: pytest.LogCaptureFixture) -> None:
    there, new = new_ids(2)
    journal.append((first(there),))
    await told.until(1)
    with closing(sqlite3.connect(world.path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        journal.append((first(new), then(there, 2)))
        await eventually(lambda: journal.stalled_for_us > 0)
        assert len(told.results) == 1
        assert await journal.find_saga(new) is None  # reading goes on
        with pytest.raises(JournalUnavailableError, match=r"locked|BUSY"):
            await journal.put_definition(definition("a", 1))
        other.execute("ROLLBACK")
    assert [type(result) for result in await told.until(3)] == [Committed] * 3
    assert journal.stalled_for_us == 0
    assert await journal.put_definition(definition("a", 1)) == definition("a", 1)
    assert world.sequences(there) == [1, 2]
    lines = [record for record in caplog.records if record.name.startswith("coordinator.journal")]
    assert [(line.levelno, line.__dict__["condition"]) for line in lines] == [(logging.WARNING, "SQLITE_BUSY")] * 2


@pytest.mark.parametrize(
    ("ail", "heal"),
    [("query_only = ON", "query_only = OFF"), ("max_page_count = 1", "max_page_count = 1073741823")],
    ids=["read-only", "disk full"],
)
async def test_unwritable_database_is_waited_for(
    journal: SqlJournal, told: Told, world: SqlWorld, faults: Faults, ail: str, heal: str
) -> None:
    ids = new_ids(100)
    journal.append([first(saga) for saga in ids])
    await told.until(100)
    faults.set_on_all(ail)
    # enough to need a new page
    journal.append([then(saga, 2) for saga in ids])
    await eventually(lambda: journal.stalled_for_us > 0)
    assert len(told.results) == 100
    assert len(await journal.load_awake(None, 200)) == 100
    faults.on_connect = lambda connection: connection.execute(f"PRAGMA {heal}").close()
    results = await told.until(200)
    assert all(isinstance(result, Committed) for result in results)
    assert all(world.sequences(saga) == [1, 2] for saga in ids)
    assert journal.stalled_for_us == 0


async def test_quarantine_waits_for_the_database(journal: SqlJournal, told: Told, faults: Faults) -> None:
    saga = new_id()
    journal.append((first(saga),))
    await told.until(1)
    faults.fail_commits(BUSY, after_it_happened=False)
    setting_aside = asyncio.create_task(journal.quarantine(saga, Failure(13, "poison")))
    await eventually(lambda: journal.stalled_for_us > 0)
    assert not setting_aside.done()
    faults.heal()
    await setting_aside
    assert await journal.load_awake(None, 10) == []


async def test_registration_does_not_wait_for_the_database(journal: SqlJournal, faults: Faults) -> None:
    faults.fail_commits(BUSY, after_it_happened=False)
    with pytest.raises(JournalUnavailableError, match="cannot be written now"):
        await journal.put_participant(participant("pay", "a:1"))
    faults.heal()
    await journal.put_participant(participant("pay", "a:1"))
    assert await journal.list_participants() == [participant("pay", "a:1")]


async def test_waiting_registrations_fail_when_the_database_goes_away(journal: SqlJournal, told: Told, faults: Faults) -> None:
    gate = CommitGate(faults)
    journal.append((first(new_id()),))
    await eventually(gate.reached.is_set)
    waiting = [asyncio.create_task(journal.put_definition(definition("a", version))) for version in (1, 2)]
    journal.append((first(new_id()),))
    faults.fail_commits(BUSY, after_it_happened=False)
    gate.let_through()
    results = await asyncio.gather(*waiting, return_exceptions=True)
    assert [type(result) for result in results] == [JournalUnavailableError] * 2
    faults.heal()
    await told.until(2)


async def test_caller_of_a_registration_may_go_away(journal: SqlJournal, told: Told, faults: Faults) -> None:
    gate = CommitGate(faults)
    journal.append((first(new_id()),))
    await eventually(gate.reached.is_set)
    leaving = asyncio.create_task(journal.put_definition(definition("a", 1)))
    await asyncio.sleep(0)
    leaving.cancel()
    gate.let_through()
    await told.until(1)
    assert await journal.put_definition(definition("b", 1)) == definition("b", 1)


async def test_tries_come_slower_and_slower_up_to_a_bound(
    world: SqlWorld, told: Told, faults: Faults, caplog: pytest.LogCaptureFixture
) -> None:
    clock = world.clock = VirtualClock()
    tries: list[int] = []

    def fail(_: object) -> None:
        tries.append(clock.now())
        raise BUSY

    async with await world.open(told) as journal:
        faults.on_commit = fail
        journal.append((first(new_id()),))
        for expected in range(1, 9):
            await eventually(lambda: len(tries) == expected and bool(clock.armed))  # noqa: B023 - awaited at once
            clock.fire_at(clock.armed[0])
        await eventually(lambda: len(tries) == 9)
        assert journal.stalled_for_us == clock.now() - tries[0]
        faults.heal()
        await eventually(lambda: bool(clock.armed))
        clock.fire_at(clock.armed[0])
        await told.until(1)
    assert len([record for record in caplog.records if record.name.startswith("coordinator.journal")]) == 2  # not one per try
    delays = [later - earlier for earlier, later in pairwise(tries)]
    assert delays == [min(RETRY_DELAY_MIN_US * 2**place, RETRY_DELAY_MAX_US) for place in range(8)]


async def test_commit_that_hangs_counts_as_stalled(world: SqlWorld, told: Told, faults: Faults) -> None:
    clock = world.clock = VirtualClock()
    gate = CommitGate(faults)
    faults.on_commit, hold = None, faults.on_commit
    async with await world.open(told) as journal:
        faults.on_commit = hold
        journal.append((first(new_id()),))
        await eventually(gate.reached.is_set)
        assert journal.stalled_for_us == 0
        await clock.pass_time(5)
        assert journal.stalled_for_us == 5_000_000
        gate.let_through()
        await told.until(1)
        assert journal.stalled_for_us == 0


async def test_what_comes_while_a_commit_is_under_way_goes_into_the_next(journal: SqlJournal, told: Told, faults: Faults) -> None:
    gate = CommitGate(faults)
    ids = new_ids(101)
    journal.append((first(ids[0]),))
    await eventually(gate.reached.is_set)
    for saga in ids[1:]:
        journal.append((first(saga),))
    gate.let_through()
    await told.until(101)
    assert told.batches == [1, 100]


async def test_closing_while_the_database_is_away_announces_nothing(world: SqlWorld, told: Told, faults: Faults) -> None:
    there, new = new_ids(2)
    async with await world.open(told) as journal:
        journal.append((first(there),))
        await told.until(1)
        faults.fail_commits(BUSY, after_it_happened=False)
        journal.append((first(new), then(there, 2)))
        await eventually(lambda: journal.stalled_for_us > 0)
    assert len(told.results) == 1
    faults.heal()
    async with await world.open(Told()) as again:  # it is not locked any more
        assert [saga.saga_id for saga in await again.load_awake(None, 10)] == [there]


async def test_closing_writes_nothing_behind_a_batch_that_failed(world: SqlWorld, told: Told, faults: Faults) -> None:
    saga = new_id()
    failing, closing = threading.Event(), threading.Event()

    def fail_once(_: object) -> None:
        failing.set()
        assert closing.wait(60)
        faults.on_commit = None
        raise BUSY

    async with await world.open(told) as journal:
        journal.append((first(saga),))
        await told.until(1)
        faults.on_commit = fail_once
        journal.append([then(saga, sequence) for sequence in range(2, BATCH_APPENDS_MAX + 10)])
        await eventually(failing.is_set)
        ending = asyncio.create_task(journal.aclose())
        await asyncio.sleep(0)
        closing.set()
        await ending
    assert len(told.results) == 1
    assert world.sequences(saga) == [1]
    assert world.incidents(saga) == []


async def test_closing_twice_at_once_is_harmless(journal: SqlJournal, told: Told) -> None:
    journal.append((first(new_id()),))
    await asyncio.gather(journal.aclose(), journal.aclose())
    assert len(told.results) == 1
