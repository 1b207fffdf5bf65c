"""A relay whose database goes away waits for it, and goes on where it was."""

import sqlite3
from contextlib import closing
from pathlib import Path

from sqlalchemy import create_engine
from sqlalchemy.ext.asyncio import create_async_engine

from tests.outboxes import OutboxWorld, Recorder, until
from tests.postgres_server import PostgresServer


async def test_relay_goes_on_when_postgresql_is_back(tmp_path: Path) -> None:
    server = PostgresServer(tmp_path / "postgres")
    server.start()
    try:
        world = OutboxWorld(create_async_engine(server.url.set(drivername="postgresql+asyncpg"), pool_pre_ping=True))
        await world.open()
        recorder = Recorder()
        async with world.relay(recorder) as relay:
            await world.place("one")
            await recorder.until(1)
            await world.place("two")
            recorder.gate.clear()
            await world.place("three")
            await until(lambda: len(recorder.tries) >= 2)
            server.stop()
            recorder.gate.set()  # What was under way ends while nobody can write it down.
            await until(lambda: relay._faults >= 3)
            server.start()
            await recorder.until(3)
            await world.until_statistics(lambda statistics: statistics.published == 3)
        await world.close()
    finally:
        server.stop()
    assert set(recorder.names) == {"one", "two", "three"}


async def test_relay_waits_for_a_sqlite_file_that_another_process_writes(tmp_path: Path) -> None:
    path = tmp_path / "service.db"
    world = OutboxWorld(create_engine(f"sqlite:///{path}", connect_args={"timeout": 0.01}))
    await world.open()
    await world.place("one")
    recorder = Recorder()
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        async with world.relay(recorder) as relay:
            await until(lambda: relay._faults >= 3)
            assert recorder.tries == []
            other.execute("COMMIT")
            await recorder.until(1)
    await world.close()


async def test_relays_on_an_engine_in_autocommit_take_no_row_twice(tmp_path: Path) -> None:
    path = tmp_path / "service.db"
    with closing(sqlite3.connect(path)) as database:
        database.execute("PRAGMA journal_mode = WAL")
    engine = create_engine(f"sqlite:///{path}", isolation_level="AUTOCOMMIT", connect_args={"timeout": 20})
    world = OutboxWorld(engine)
    await world.open()
    recorder = Recorder()
    await world.place(*[str(number) for number in range(150)])
    relays = [world.relay(recorder, rows_max=20) for _ in range(3)]
    async with relays[0], relays[1], relays[2]:
        await world.until_statistics(lambda statistics: statistics.published == 150)
    assert len(recorder.events) == 150
    await world.close()
