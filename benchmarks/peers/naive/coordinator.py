"""What one writes first: a function that calls one participant after the other, and commits a row before and after each call.

It runs in the process that wants the saga, as such code does. It has no recovery: the rows are what one could be written from.
"""

import argparse
import asyncio
import json
import sqlite3
from collections.abc import Awaitable, Callable
from typing import Any, Final

import grpc
from sqlalchemy import BigInteger, Column, Integer, LargeBinary, MetaData, String, Table, event, insert, text, update
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from benchmarks.measured_run import TEXTS, add_work_arguments, measure, tell, work_of
from benchmarks.peers.books import STEP_NAMES
from benchmarks.peers.naive.participants import SERVICE, method
from benchmarks.peers.processes import add_client_arguments, processes_of

CALL_TIMEOUT_S: Final = 60.0
POSTGRES_CONNECTIONS: Final = 20
Call = Callable[..., Awaitable[bytes]]
METADATA: Final = MetaData()
SAGA: Final = Table("saga", METADATA, Column("number", BigInteger, primary_key=True, autoincrement=False), Column("status", String(20)))
STEP: Final = Table(
    "step",
    METADATA,
    Column("number", BigInteger, primary_key=True, autoincrement=False),
    Column("place", Integer, primary_key=True, autoincrement=False),
    Column("status", String(20)),
    Column("output", LargeBinary),
)


class Coordinator:
    """One connection to the participants, a pool of them to the database."""

    def __init__(self, engine: AsyncEngine, channel: grpc.aio.Channel) -> None:
        self._engine = engine
        self._do: list[Call] = [channel.unary_unary(f"/{SERVICE}/{method(step)}") for step in STEP_NAMES]
        self._undo: list[Call] = [channel.unary_unary(f"/{SERVICE}/{method(step, is_undoing=True)}") for step in STEP_NAMES]

    async def run(self, number: int, message: bytes) -> str:
        """Does a saga to its end; returns its status."""
        await self._commit(insert(SAGA).values(number=number, status="running"))
        outputs: list[bytes] = []
        for place, do in enumerate(self._do):
            try:
                message = await do(message, timeout=CALL_TIMEOUT_S)
            except grpc.aio.AioRpcError as error:
                if error.code() != grpc.StatusCode.FAILED_PRECONDITION:
                    raise
                return await self._turn_back(number, place, outputs)
            outputs.append(message)
            await self._commit(insert(STEP).values(number=number, place=place, status="done", output=message))
        return await self._end(number, "completed")

    async def _turn_back(self, number: int, refused: int, outputs: list[bytes]) -> str:
        await self._commit(insert(STEP).values(number=number, place=refused, status="refused"))
        for place in reversed(range(refused)):
            await self._undo[place](outputs[place], timeout=CALL_TIMEOUT_S)
            await self._commit(update(STEP).where(STEP.c.number == number, STEP.c.place == place).values(status="undone"))
        return await self._end(number, "compensated")

    async def _end(self, number: int, status: str) -> str:
        await self._commit(update(SAGA).where(SAGA.c.number == number).values(status=status))
        return status

    async def _commit(self, statement: Any) -> None:
        async with self._engine.begin() as connection:
            await connection.execute(statement)


def make_engine(url: str) -> AsyncEngine:
    """SQLite: one connection, since only one can write, with a write-ahead log and synchronous=FULL."""
    if not url.startswith("sqlite"):
        return create_async_engine(url, pool_size=POSTGRES_CONNECTIONS, max_overflow=0, pool_timeout=CALL_TIMEOUT_S)
    engine = create_async_engine(url, pool_size=1, max_overflow=0, pool_timeout=CALL_TIMEOUT_S)

    @event.listens_for(engine.sync_engine, "connect")
    def set_up(connection: sqlite3.Connection, _: object) -> None:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")

    return engine


async def main(given: argparse.Namespace) -> None:
    work = work_of(given)
    if given.server_url:
        server = create_async_engine(given.server_url, isolation_level="AUTOCOMMIT")
        async with server.connect() as connection:
            await connection.execute(text(f'CREATE DATABASE "{given.url.rpartition("/")[2]}"'))
        await server.dispose()
    engine = make_engine(given.url)
    async with engine.begin() as connection:
        await connection.run_sync(METADATA.create_all)
    expected = "compensated" if work.is_compensated else "completed"
    async with grpc.aio.insecure_channel(f"127.0.0.1:{given.port}") as channel:
        coordinator = Coordinator(engine, channel)

        async def run_one(number: int) -> None:
            message = json.dumps({"number": number, "name": TEXTS[0], "root": TEXTS[1]}).encode()
            status = await coordinator.run(number, message)
            if status != expected:
                raise SystemExit(f"saga {number} ended {status}, expected {expected}")

        processes = processes_of(given)
        tell(await measure(work, run_one, {"coordinator": processes.pop("client"), **processes}))
    await engine.dispose()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    add_work_arguments(parser)
    add_client_arguments(parser)
    parser.add_argument("--port", type=int, required=True, help="of the participants")
    parser.add_argument("--url", required=True, help="of the database")
    parser.add_argument("--server-url", default="", help="of a server on which the database is made first")
    asyncio.run(main(parser.parse_args()))
