"""A COMMIT whose end nobody saw is settled by asking the database, never by guessing (R26)."""

import asyncio
import random
import sqlite3
from collections.abc import Callable

import pytest

from coordinator.core.events import IncidentClosed
from coordinator.core.values import SagaId
from coordinator.engine.ports import Committed, JournalUnavailableError, StartLost
from coordinator.journal import SqlJournal
from tests.journals import ImpatientClock, SqlWorld, Told, definition, eventually, first, incident, new_id, new_ids, start_key, then
from tests.sqlite_faults import Faults, broken

IO_ERROR = broken("SQLITE_IOERR")


class Once:
    """The next commits go wrong in these ways, then all is well."""

    def __init__(self, faults: Faults, *ways: str, error: Exception = IO_ERROR) -> None:
        self._ways = list(ways)
        self._error = error
        self.commits = 0
        faults.on_commit = self

    def __call__(self, real: Callable[[], None]) -> None:
        self.commits += 1
        way = self._ways.pop(0) if self._ways else "works"
        if way != "fails":
            real()
        if way != "works":
            raise self._error


@pytest.mark.parametrize(
    ("ways", "expected"),
    [(("happens unseen",), 3), (("fails",), 4), (("fails", "fails", "happens unseen"), 6), (("fails", "fails", "works"), 5)],
)
async def test_commit_in_doubt_takes_place_once(
    journal: SqlJournal, told: Told, world: SqlWorld, faults: Faults, ways: tuple[str, ...], expected: int
) -> None:  # R26
    """Two batches; what is more are failed tries of the first, and new epochs taken before it is asked what became of it."""
    saga, other = new_ids(2)
    journal.append((first(saga),))
    await told.until(1)
    commits = Once(faults, *ways)
    journal.append((then(saga, 2), first(other)))
    await told.until(3)
    journal.append((then(saga, 3),))
    results = await told.until(4)
    assert all(isinstance(result, Committed) for result in results)
    assert world.sequences(saga) == [1, 2, 3]
    assert world.sequences(other) == [1]
    assert commits.commits == expected


@pytest.mark.parametrize("ways", [("happens unseen",), ("fails",), ("fails", "happens unseen")])
async def test_row_that_changes_in_doubt_is_written_once_and_for_all(
    journal: SqlJournal, told: Told, world: SqlWorld, faults: Faults, ways: tuple[str, ...]
) -> None:  # R26
    saga = new_id()
    journal.append((first(saga),))
    await told.until(1)
    Once(faults, *ways)
    journal.append((then(saga, 2, incident(1), paused=True),))
    await told.until(2)
    assert world.execute("SELECT paused, needs_person, sequence FROM saga") == [(1, 1, 2)]
    journal.append((then(saga, 3, IncidentClosed(id=1), paused=True),))
    await told.until(3)
    assert world.execute("SELECT paused, needs_person, sequence FROM saga") == [(1, 0, 2)]


@pytest.mark.parametrize("way", ["happens unseen", "fails"])
async def test_commit_that_raises_what_looks_like_a_defect_is_in_doubt_too(
    journal: SqlJournal, told: Told, world: SqlWorld, faults: Faults, way: str
) -> None:  # R26
    saga = new_id()
    journal.append((first(saga),))
    await told.until(1)
    Once(faults, way, error=broken("SQLITE_CONSTRAINT", sqlite3.IntegrityError))
    journal.append((then(saga, 2),))
    assert isinstance((await told.until(2))[1], Committed)
    assert world.sequences(saga) == [1, 2]
    assert world.incidents(saga) == []


async def test_lost_start_of_a_batch_in_doubt_is_answered_with_its_winner(journal: SqlJournal, told: Told, faults: Faults) -> None:  # R4
    winner, loser = new_ids(2)
    Once(faults, "happens unseen")
    batch = first(winner, key=start_key("k")), first(loser, key=start_key("k"))
    journal.append(batch)
    assert await told.until(2) == [
        Committed(append=batch[0]),
        StartLost(append=batch[1], winner=winner, same=True, by_key=True),
    ]


async def test_definition_of_a_commit_in_doubt_may_be_put_again(journal: SqlJournal, faults: Faults) -> None:
    Once(faults, "happens unseen")
    with pytest.raises(JournalUnavailableError, match="cannot be written now"):
        await journal.put_definition(definition("a", 1))
    assert await journal.put_definition(definition("a", 1)) == definition("a", 1)


async def test_database_that_cannot_be_opened_again_is_waited_for(journal: SqlJournal, told: Told, world: SqlWorld, faults: Faults) -> None:
    saga = new_id()
    Once(faults, "happens unseen")
    refused = 0

    def refuse(_: sqlite3.Connection) -> None:
        nonlocal refused
        refused += 1
        if refused <= 3:
            raise broken("SQLITE_CANTOPEN")

    faults.on_connect = refuse
    journal.append((first(saga),))
    assert isinstance((await told.until(1))[0], Committed)
    assert refused == 4
    assert world.sequences(saga) == [1]


async def test_other_writer_while_a_commit_was_in_doubt_means_lost_ownership(
    journal: SqlJournal, told: Told, world: SqlWorld, faults: Faults
) -> None:  # R26
    def fail_and_be_overtaken(_: Callable[[], None]) -> None:
        faults.on_commit = None
        raise IO_ERROR

    faults.on_commit = fail_and_be_overtaken
    faults.on_connect = lambda connection: connection.execute("UPDATE shard SET epoch = epoch + 1, owner = 'another'").close()
    journal.append((first(new_id()),))
    reason = await told.until_lost()
    assert "somebody else" in reason.message
    assert told.results == []


@pytest.mark.parametrize("seed", range(8))
async def test_random_faults_lose_and_double_nothing(world: SqlWorld, faults: Faults, seed: int) -> None:  # P1, R26
    chance = random.Random(seed)
    world.clock = ImpatientClock(asyncio.get_running_loop())
    told, ids = Told(), new_ids(12)
    last: dict[SagaId, int] = dict.fromkeys(ids, 0)
    sent = 0

    def maybe(real: Callable[[], None]) -> None:
        way = chance.choice(["works", "works", "fails", "happens unseen"])
        if way != "fails":
            real()
        if way != "works":
            raise IO_ERROR

    async with await world.open(told) as journal:
        faults.on_commit = maybe
        for _ in range(60):
            saga = chance.choice(ids)
            last[saga] += 1
            journal.append((first(saga) if last[saga] == 1 else then(saga, last[saga]),))
            sent += 1
            if chance.random() < 0.3:
                await told.until(max(1, sent - chance.randrange(10)))
        await told.until(sent)
        faults.heal()
    assert all(isinstance(result, Committed) for result in told.results)
    assert len(told.results) == sent
    assert {saga: world.sequences(saga) for saga in ids} == {saga: list(range(1, count + 1)) for saga, count in last.items()}


async def test_shard_of_a_newer_epoch_is_not_written(journal: SqlJournal, told: Told, world: SqlWorld) -> None:  # P6
    saga = new_id()
    journal.append((first(saga),))
    await told.until(1)
    world.execute("UPDATE shard SET epoch = epoch + 1")
    journal.append((then(saga, 2),))
    reason = await told.until_lost()
    assert "epoch" in reason.message
    assert world.sequences(saga) == [1]
    await eventually(lambda: journal.stalled_for_us == 0)


@pytest.mark.parametrize("changed", ["epoch", "position"])
async def test_definition_is_not_written_by_a_fenced_journal(journal: SqlJournal, told: Told, world: SqlWorld, changed: str) -> None:  # P6
    world.execute(f"UPDATE shard SET {changed} = {changed} + 1")
    with pytest.raises(JournalUnavailableError, match="was expected at epoch"):
        await journal.put_definition(definition("a", 1))
    await told.until_lost()
    assert world.execute("SELECT count(*) FROM definition") == [(0,)]
