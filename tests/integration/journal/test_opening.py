"""A journal that cannot be opened says what was expected, what was found and what to do, and changes nothing."""

import asyncio
import errno
import os
import sqlite3
from pathlib import Path

import pytest

from coordinator.engine.clock import SystemClock
from coordinator.journal import JournalOpenError, SqlJournal
from coordinator.journal.database_file import database_path, unusable
from coordinator.journal.sqlite import SQLITE_VERSION_MIN
from tests.journals import SqlWorld, Told
from tests.sqlite_faults import Faults, broken


@pytest.mark.parametrize(
    ("url", "found"),
    [
        ("sqlite+aiosqlite:///:memory:", "in memory"),
        ("sqlite://", "in memory"),
        (":memory:", "in memory"),
        ("sqlite:///file:saga?mode=memory&uri=true", "question mark"),
        ("sqlite:///file:saga", "in memory"),
        ("sqlite:////tmp/saga.db?timeout=1", "question mark"),
        ("postgresql+asyncpg://localhost/saga", "postgresql"),
        ("no such://thing", "no URL"),
        ("", "in memory"),
    ],
)
def test_anything_but_an_sqlite_file_is_refused(url: str, found: str) -> None:
    with pytest.raises(JournalOpenError, match=found):
        database_path(url)


@pytest.mark.parametrize("url", ["{}", "sqlite:///{}", "sqlite+aiosqlite:///{}", "sqlite+pysqlite:///{}"])
def test_file_may_be_named_by_path_or_url(url: str, tmp_path: Path) -> None:
    assert database_path(url.format(tmp_path / "saga.db")) == tmp_path / "saga.db"


def test_relative_path_starts_at_the_working_directory() -> None:
    assert database_path("sqlite+aiosqlite:///saga.db") == Path.cwd() / "saga.db"


async def refused(world: SqlWorld, match: str) -> JournalOpenError:
    with pytest.raises(JournalOpenError, match=match) as caught:
        await world.open(Told())
    assert str(world.path) in str(caught.value)
    assert caught.value.to_do in str(caught.value)
    return caught.value


async def test_missing_directory_is_refused(world: SqlWorld) -> None:
    world.path = world.path.parent / "nowhere" / "saga.db"
    await refused(world, "create the directory")
    assert not world.path.parent.exists()


async def test_directory_in_place_of_the_file_is_refused(world: SqlWorld) -> None:
    world.path.mkdir()
    await refused(world, "SQLITE_CANTOPEN")


@pytest.mark.parametrize("content", [b"not a database" * 500, b"SQLite format 3\0" + b"\xff" * 4_000])
async def test_file_that_is_no_database_is_refused_and_kept(world: SqlWorld, content: bytes) -> None:
    world.path.write_bytes(content)
    await refused(world, "NOTADB|CORRUPT")
    assert world.path.read_bytes() == content


async def test_database_of_somebody_else_is_refused_and_kept(world: SqlWorld) -> None:
    world.execute("CREATE TABLE customers (name TEXT)")
    before = world.path.read_bytes()
    await refused(world, "customers")
    assert world.path.read_bytes() == before


async def test_empty_file_becomes_a_journal(world: SqlWorld) -> None:
    world.path.touch()
    async with await world.open(Told()) as journal:
        assert await journal.load_awake(None, 1) == []


async def test_locked_database_is_refused(world: SqlWorld) -> None:
    async with await world.open(Told()):
        pass
    other = sqlite3.connect(world.path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    await refused(world, "SQLITE_BUSY.*end the program")
    other.close()
    async with await world.open(Told()):
        pass


async def test_read_only_database_is_refused(world: SqlWorld, faults: Faults) -> None:
    faults.on_connect = lambda connection: connection.execute("PRAGMA query_only = ON").close()
    await refused(world, "SQLITE_READONLY.*write permission")


async def test_full_disk_is_refused_and_leaves_nothing_half_made(world: SqlWorld, faults: Faults) -> None:
    faults.on_connect = lambda connection: connection.execute("PRAGMA max_page_count = 9").close()
    await refused(world, "SQLITE_FULL.*free some space")
    assert world.execute("SELECT count(*) FROM sqlite_master") == [(0,)]
    faults.heal()
    async with await world.open(Told()) as journal:
        assert await journal.load_awake(None, 1) == []


async def test_disk_that_fails_is_refused(world: SqlWorld, faults: Faults) -> None:
    faults.fail_commits(broken("SQLITE_IOERR"), after_it_happened=False)
    await refused(world, "SQLITE_IOERR.*check the disk")


async def test_directory_without_permission_is_refused() -> None:
    clock = SystemClock(asyncio.get_running_loop())
    with pytest.raises(JournalOpenError, match=r"grant write permission|mount it for writing"):
        await SqlJournal.open("/sys/saga.db", clock=clock)  # there not even the superuser may make a file


@pytest.mark.parametrize(
    ("number", "to_do"),
    [
        (errno.ENOENT, "create the directory"),
        (errno.EACCES, "grant write permission"),
        (errno.EROFS, "mount it for writing"),
        (errno.ENOSPC, "free some space"),
        (errno.EIO, "check the directory"),
    ],
)
def test_lock_that_cannot_be_made_says_what_to_do(number: int, to_do: str) -> None:
    error = unusable(Path("saga.db"), OSError(number, os.strerror(number)))
    assert error.to_do.startswith(to_do)
    assert error.found == os.strerror(number)


async def test_connection_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    def fail(_: str) -> sqlite3.Connection:
        raise broken("SQLITE_CANTOPEN")

    clock = SystemClock(asyncio.get_running_loop())
    with pytest.raises(JournalOpenError, match="SQLITE_CANTOPEN"):
        await SqlJournal.open(str(tmp_path / "saga.db"), clock=clock, connect=fail)


def test_this_sqlite_is_new_enough() -> None:
    assert sqlite3.sqlite_version_info >= SQLITE_VERSION_MIN


@pytest.mark.parametrize("name", ["with space.db", "what?.db", "no#1.db", "100%41.db", "жур нал.db"])
async def test_file_may_have_any_name(tmp_path: Path, name: str) -> None:
    world = SqlWorld(tmp_path)
    async with await SqlJournal.open(str(tmp_path / name), clock=world.clock):
        assert {path.name for path in tmp_path.iterdir()} >= {name, f"{name}.lock"}


async def test_several_journals_of_one_process_may_be_opened_at_once(tmp_path: Path) -> None:
    clock = SystemClock(asyncio.get_running_loop())
    journals = await asyncio.gather(*(SqlJournal.open(str(tmp_path / f"{place}.db"), clock=clock) for place in range(8)))
    for journal in journals:
        assert await journal.load_awake(None, 1) == []
        await journal.aclose()


async def test_writer_keeps_what_it_promises_across_power_failures(world: SqlWorld, faults: Faults) -> None:  # P1
    async with await world.open(Told()):
        (writer,) = (connection for connection in faults.made if _is_open(connection))
        pragmas = {name: writer.execute(f"PRAGMA {name}").fetchone()[0] for name in ("journal_mode", "synchronous", "foreign_keys")}
    assert pragmas == {"journal_mode": "wal", "synchronous": 2, "foreign_keys": 1}


def _is_open(connection: sqlite3.Connection) -> bool:
    try:
        connection.execute("SELECT 1")
    except sqlite3.ProgrammingError:
        return False
    return True
