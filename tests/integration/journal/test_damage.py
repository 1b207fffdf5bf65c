"""What the lock file remembers of a journal, and what does not count as damage: nothing that the coordinator itself does to its files."""

import os
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from coordinator.engine.ports import JournalUnavailableError
from coordinator.journal import JournalOpenError, SqlJournal
from coordinator.journal.database_file import DatabaseFile
from tests.integration.journal.test_defects import sleeping_beyond_64_bits
from tests.journals import SqlWorld, Told, definition, eventually, first, new_id, new_ids, then
from tests.sqlite_faults import Faults, broken

KEPT = "a journal is kept here\n"


def beside(world: SqlWorld, suffix: str) -> Path:
    return world.path.with_name(world.path.name + suffix)


def owned_by(process: int, history: str = "") -> str:
    return f"{process:10}\n{history}"


async def write_something(world: SqlWorld) -> None:
    async with await world.open(Told()) as journal:
        await journal.put_definition(definition("a", 1))


async def refused(world: SqlWorld, found: str) -> None:
    with pytest.raises(JournalOpenError, match=found) as caught:
        await world.open(Told())
    assert f"delete {beside(world, '.lock')} and start again" in caught.value.to_do


# ── What the lock file remembers ─────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_lock_file_says_that_a_journal_is_kept_once_something_was_written(world: SqlWorld) -> None:
    async with await world.open(Told()) as journal:
        assert beside(world, ".lock").read_text() == owned_by(os.getpid())
        await journal.put_definition(definition("a", 1))
        assert beside(world, ".lock").read_text() == owned_by(os.getpid(), KEPT)


async def test_lock_file_says_so_of_a_journal_that_was_there_before(world: SqlWorld) -> None:
    await write_something(world)
    beside(world, ".lock").unlink()
    async with await world.open(Told()):
        assert beside(world, ".lock").read_text() == owned_by(os.getpid(), KEPT)


async def test_journal_that_is_missing_is_refused_until_a_person_says_that_it_may_begin_anew(world: SqlWorld) -> None:  # R32
    await write_something(world)
    world.path.rename(beside(world, "-moved"))
    await refused(world, "missing")
    world.path.touch()
    await refused(world, "empty")
    beside(world, ".lock").unlink()
    await write_something(world)


async def test_journal_put_back_or_moved_elsewhere_is_opened(world: SqlWorld, tmp_path: Path) -> None:
    await write_something(world)
    backup = world.path.rename(tmp_path / "backup.db")
    await refused(world, "missing")
    elsewhere = SqlWorld(tmp_path / "elsewhere")
    elsewhere.path.parent.mkdir()
    elsewhere.path.write_bytes(backup.read_bytes())
    backup.rename(world.path)
    for place in (world, elsewhere):
        async with await place.open(Told()) as journal:
            assert await journal.find_definition("a", 1) is not None


async def test_damage_is_remembered_though_the_files_are_back(world: SqlWorld, told: Told) -> None:
    """Somebody must look: what was committed last may stand in none of them."""
    async with await world.open(told) as journal:
        journal.append((first(new_id()),))
        await told.until(1)
        beside(world, "-wal").unlink()
        journal.append((first(new_id()),))
        reason = await told.until_lost()
        assert f"delete {beside(world, '.lock')} and start again" in reason.message
    await refused(world, "saga.db-wal was deleted while it was in use")
    beside(world, ".lock").unlink()
    async with await world.open(Told()):
        pass


async def test_lock_file_of_an_earlier_release_is_taken(world: SqlWorld) -> None:
    beside(world, ".lock").write_text("4194304\n")
    async with await world.open(Told()):
        assert beside(world, ".lock").read_text() == owned_by(os.getpid())


def test_note_of_any_owner_is_equally_long(tmp_path: Path) -> None:
    """A process killed between the two writes of a note leaves nothing that reads as damage."""
    file = DatabaseFile(tmp_path / "saga.db")
    lock = tmp_path / "saga.db.lock"
    lock.write_text(owned_by(4194304, KEPT))
    length = lock.stat().st_size
    (tmp_path / "saga.db").write_text("a journal")
    file.acquire()
    assert lock.stat().st_size == length
    file.release()


# ── What does not count as damage ────────────────────────────────────────────────────────────────────────────────────────────────────


def looks(caplog: pytest.LogCaptureFixture) -> int:
    """How often the coordinator read all of its database because it believed that somebody else had written to it."""
    return sum("another program has written" in record.message for record in caplog.records)


async def test_own_checkpoints_and_readers_and_backups_are_no_reason_to_look(
    journal: SqlJournal, told: Told, world: SqlWorld, faults: Faults, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    faults.set_on_all("wal_autocheckpoint = 10")
    ids = new_ids(1_500)
    for start in range(0, len(ids), 100):
        journal.append([first(saga) for saga in ids[start : start + 100]])
        await told.until(start + 100)
        assert await journal.find_saga(ids[start]) is not None
        if start % 500 == 0:
            with closing(sqlite3.connect(world.path)) as other, closing(sqlite3.connect(tmp_path / f"backup{start}.db")) as backup:
                other.backup(backup)
    assert world.path.stat().st_size > 100 * 4096  # checkpoints have been made
    assert looks(caplog) == 0


async def test_rows_that_were_rolled_back_are_no_reason_to_look(
    journal: SqlJournal, told: Told, faults: Faults, caplog: pytest.LogCaptureFixture
) -> None:
    """What does not fit into memory is written into the log before the end of the database transaction."""
    faults.set_on_all("cache_size = 1")
    ids = new_ids(300)
    journal.append([first(saga) for saga in ids])
    await told.until(300)
    journal.append([*(then(saga, 2) for saga in ids[1:]), sleeping_beyond_64_bits(ids[0])])
    await told.until(600)
    assert looks(caplog) == 0


async def test_database_that_was_away_is_no_reason_to_look(
    journal: SqlJournal, told: Told, faults: Faults, caplog: pytest.LogCaptureFixture
) -> None:
    for error in (broken("SQLITE_FULL"), broken("SQLITE_IOERR"), broken("SQLITE_BUSY")):
        for after_it_happened in (True, False):
            faults.fail_commits(error, after_it_happened=after_it_happened)
            expected = len(told.results) + 1
            journal.append((first(new_id()),))
            await eventually(lambda: journal.stalled_for_us > 0)
            faults.heal()
            await told.until(expected)
    assert looks(caplog) == 0


async def test_files_that_others_have_touched_are_looked_at_once(
    journal: SqlJournal, told: Told, world: SqlWorld, caplog: pytest.LogCaptureFixture
) -> None:
    journal.append((first(new_id()),))
    await told.until(1)
    os.utime(world.path)
    journal.append((first(new_id()),))
    await told.until(2)
    journal.append((first(new_id()),))
    await told.until(3)
    assert looks(caplog) == 1


async def test_vacuum_by_hand_is_looked_at_and_goes_on(journal: SqlJournal, told: Told, world: SqlWorld) -> None:
    """It makes the database smaller, which nothing else does."""
    ids = new_ids(500)
    journal.append([first(saga) for saga in ids])
    await told.until(500)
    world.execute("CREATE TABLE filler AS SELECT randomblob(4000) FROM event")
    world.execute("DROP TABLE filler")
    world.execute("VACUUM")
    world.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    journal.append([then(saga, 2) for saga in ids])
    await told.until(1_000)
    assert told.lost_reason is None


async def test_read_of_a_damaged_page_ends_the_journal(world: SqlWorld, told: Told) -> None:
    """Nobody writes for hours; the damage is not to wait for that."""
    async with await world.open(told) as journal:
        journal.append([first(saga) for saga in new_ids(200)])
        await told.until(200)
        world.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        await journal.put_definition(definition("a", 1))
        os.truncate(world.path, 8 * 4096)
        with pytest.raises(JournalUnavailableError):
            await journal.load_awake(None, 1_000)
        assert "damaged" in (await told.until_lost()).message
