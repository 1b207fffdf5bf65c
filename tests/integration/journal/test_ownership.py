"""One coordinator owns one file, and only the file that it opened (R32)."""

import asyncio
import os
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from coordinator.core.values import SagaId
from coordinator.engine.ports import Appended, Committed, JournalUnavailableError, SagaFilter
from coordinator.journal import JournalOpenError, SqlJournal
from tests.journals import WAIT_S, SqlWorld, Told, definition, first, new_id, new_ids, then
from tests.processes import ROOT, python_environment
from tests.sqlite_faults import Faults


async def test_second_journal_on_one_file_is_refused_with_the_owner(journal: SqlJournal, world: SqlWorld) -> None:  # P6, R32
    with pytest.raises(JournalOpenError, match=f"in use by process {os.getpid()}"):
        await world.open(Told())
    assert await journal.load_awake(None, 1) == []


async def test_second_journal_through_a_link_is_refused(journal: SqlJournal, world: SqlWorld) -> None:  # P6, R32
    link = world.path.with_name("link.db")
    link.symlink_to(world.path)
    with pytest.raises(JournalOpenError, match="in use by process"):
        await SqlJournal.open(str(link), clock=world.clock)


async def test_closed_journal_leaves_the_file_to_the_next(world: SqlWorld) -> None:
    for _ in range(3):
        async with await world.open(Told()):
            pass
    assert world.execute("SELECT epoch FROM shard") == [(3,)]
    assert world.execute("SELECT pid FROM node") == [(os.getpid(),)]


async def test_refused_opening_leaves_the_file_unlocked(world: SqlWorld) -> None:
    world.path.write_bytes(b"no database" * 1_000)
    for _ in range(2):
        with pytest.raises(JournalOpenError, match="SQLite database"):
            await world.open(Told())


def delete(path: Path) -> None:
    for suffix in ("", "-wal", "-shm"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)


def replace(path: Path) -> None:
    delete(path)
    path.touch()


@pytest.mark.parametrize("happens", [delete, replace])
async def test_missing_or_other_file_is_a_clear_end(
    journal: SqlJournal, told: Told, world: SqlWorld, happens: Callable[[Path], None]
) -> None:  # R32
    saga = new_id()
    journal.append((first(saga),))
    await told.until(1)
    happens(world.path)
    journal.append((then(saga, 2),))
    reason = await told.until_lost()
    assert str(world.path) in reason.message
    assert len(told.results) == 1
    with pytest.raises(JournalUnavailableError, match="in use"):
        await journal.find_saga(saga)
    with pytest.raises(JournalUnavailableError, match="in use"):
        await journal.put_definition(definition("a", 1))
    assert not world.path.exists() or world.path.stat().st_size == 0  # nothing is made in its place


async def test_file_deleted_during_the_commit_announces_nothing(
    journal: SqlJournal, told: Told, world: SqlWorld, faults: Faults
) -> None:  # R32
    def commit_and_vanish(real: Callable[[], None]) -> None:
        real()
        delete(world.path)

    faults.on_commit = commit_and_vanish
    journal.append((first(new_id()),))
    await told.until_lost()
    assert told.results == []


async def test_deleted_file_is_not_made_again_by_a_read(journal: SqlJournal, world: SqlWorld) -> None:  # R32
    delete(world.path)
    with pytest.raises(JournalUnavailableError, match="unable to open"):
        await journal.load_awake(None, 10)
    assert not world.path.exists()


async def test_other_journal_in_its_place_is_not_read(journal: SqlJournal, world: SqlWorld, tmp_path: Path) -> None:  # R32
    other = SqlWorld(tmp_path / "elsewhere")
    other.path.parent.mkdir()
    async with await other.open(Told()):
        pass
    delete(world.path)
    other.path.rename(world.path)
    with pytest.raises(JournalUnavailableError, match="replaced"):
        await journal.load_awake(None, 10)


async def test_dropped_table_is_a_clear_end(journal: SqlJournal, told: Told, world: SqlWorld) -> None:
    world.execute("DROP TABLE event")
    journal.append((first(new_id()),))
    reason = await told.until_lost()
    assert "no such table" in reason.message


async def test_listener_named_after_the_end_is_told(world: SqlWorld) -> None:
    async with await SqlJournal.open(str(world.path), clock=world.clock) as journal:
        delete(world.path)
        with pytest.raises(JournalUnavailableError):
            await journal.put_definition(definition("a", 1))
        told = Told()
        journal.listen(told)
        await told.until_lost()


async def test_listener_that_raises_ends_the_journal(world: SqlWorld) -> None:
    def raise_(_: Sequence[Appended]) -> None:
        raise ZeroDivisionError

    told = Told(raise_)
    async with await world.open(told) as journal:
        journal.append((first(new_id()),))
        assert "ZeroDivisionError" in (await told.until_lost()).message


@pytest.mark.parametrize("round_", range(3))
async def test_killed_process_loses_nothing_that_it_announced(world: SqlWorld, round_: int) -> None:  # P1, R25
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.journal_process", str(world.path), cwd=ROOT, env=python_environment(), stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    announced: dict[SagaId, int] = {}
    try:
        async with asyncio.timeout(WAIT_S):
            while len(announced) < 150 + 100 * round_:
                saga, sequence = (await process.stdout.readline()).split()
                announced[SagaId(saga.decode())] = int(sequence)
    finally:
        process.send_signal(signal.SIGKILL)
        rest, _ = await process.communicate()
    for line in rest.splitlines(keepends=True):
        if line.endswith(b"\n"):
            saga, sequence = line.split()
            announced[SagaId(saga.decode())] = int(sequence)
    told = Told()
    async with await world.open(told) as journal:  # at once: the lock went with the process
        found = {saga.saga_id: len(saga.events) for saga in await journal.load_awake(None, 100_000)}
        assert {saga: found[saga] >= sequence for saga, sequence in announced.items()} == dict.fromkeys(announced, True)
        journal.append([then(saga, found[saga] + 1) for saga in list(found)[:50]])
        assert all(isinstance(result, Committed) for result in await told.until(50))
    assert world.execute("PRAGMA integrity_check") == [("ok",)]


async def test_errors_of_reads_say_nothing_of_what_was_asked(journal: SqlJournal, world: SqlWorld) -> None:
    world.execute("DROP TABLE saga_label")
    with pytest.raises(JournalUnavailableError) as caught:
        await journal.list_sagas(SagaFilter(labels=(("card", "4111-1111"),)), None, 10)
    assert "no such table: saga_label" in str(caught.value)
    assert "4111" not in f"{caught.value} {caught.value.__cause__}"
    assert "SELECT" not in str(caught.value)


async def test_payloads_do_not_get_into_errors(world: SqlWorld, told: Told, caplog: pytest.LogCaptureFixture) -> None:
    async with await world.open(told) as journal:
        world.execute("CREATE TRIGGER no BEFORE INSERT ON event BEGIN SELECT RAISE(ABORT, 'not today'); END")
        saga, other = new_ids(2)
        journal.append((first(saga, labels=[("card", "4111-1111")]), first(other)))
        results = await told.until(2)
    words = " ".join(f"{result} {caplog.text}" for result in results if not isinstance(result, Committed))
    assert "not today" in words
    assert "INSERT" not in words
    assert "4111-1111" not in caplog.text
