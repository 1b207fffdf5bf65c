"""DBOS Transact: a library, so that one process is the client, the coordinator and the participants at once.

A step is a function in that process: nothing is sent anywhere, which spares DBOS what calls to participants cost the others. A workflow is
an asynchronous function, called and awaited; compensations are collected in a list and run backwards, as steps, when a step has raised.

On PostgreSQL everything is as it comes, the server with `fsync` and `synchronous_commit`. On SQLite, too, every commit reaches the disk
(`synchronous = FULL`, SQLite's default, which DBOS leaves alone); DBOS also leaves the journal mode alone, which is DELETE then. The
default here is WAL, which costs less: `--journal-mode delete` shows what DBOS does by itself.
"""

import argparse
import asyncio
import sqlite3
import tempfile
from contextlib import closing
from os import getpid
from pathlib import Path
from typing import Final, TypedDict

from dbos import DBOS, DBOSConfig

from benchmarks.measured_run import TEXTS, Run, Work, add_work_arguments, measure, tell, work_of
from benchmarks.peers.books import STEP_NAMES, Books
from benchmarks.peers.databases import Database, add_database_arguments, database_of

BOOKS: Final = Books()


class Message(TypedDict):
    """What every step carries and returns, about 200 bytes."""

    number: int
    is_refused: bool
    name: str
    root: str


class RefusedError(Exception):
    """The last step does not want to."""


@DBOS.step()
async def do(step: str, message: Message) -> Message:
    if step == STEP_NAMES[-1] and message["is_refused"]:
        raise RefusedError("refused")
    BOOKS.do(step, message["number"])
    return message


@DBOS.step()
async def undo(step: str, message: Message) -> None:
    BOOKS.undo(step, message["number"])


@DBOS.workflow()
async def saga(message: Message) -> Message:
    done: list[tuple[str, Message]] = []
    try:
        for step in STEP_NAMES:
            message = await do(step, message)
            done.append((step, message))
    except RefusedError:
        for step, output in reversed(done):
            await undo(step, output)
        raise
    return message


async def run(work: Work, database: Database) -> Run:
    async def run_one(number: int) -> None:
        message = Message(number=number, is_refused=work.is_compensated, name=TEXTS[0], root=TEXTS[1])
        try:
            await saga(message)
        except RefusedError:
            if not work.is_compensated:
                raise
            return
        if work.is_compensated:
            raise SystemExit(f"saga {number} was completed, expected a refusal")

    return await measure(work, run_one, {"application": getpid(), **database.processes})


def main(work: Work, given: argparse.Namespace) -> Run:
    with tempfile.TemporaryDirectory(prefix="bench-dbos-") as name:
        database = database_of(given, Path(name))
        if not database.server:
            with closing(sqlite3.connect(database.sqlite)) as connection:
                connection.execute(f"PRAGMA journal_mode = {given.journal_mode}")  # kept in the file
        url = database.url if database.server else f"sqlite:///{database.sqlite}"
        config: DBOSConfig = {"name": "bench", "system_database_url": url, "log_level": "ERROR", "enable_otlp": False}
        DBOS(config=config)
        DBOS.launch()
        try:
            run_told = asyncio.run(run(work, database))
        finally:
            DBOS.destroy()
        BOOKS.check(work)
        return run_told


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_work_arguments(parser)
    add_database_arguments(parser)
    parser.add_argument("--journal-mode", choices=["wal", "delete"], default="wal", help="of SQLite (default %(default)s)")
    arguments = parser.parse_args()
    tell(main(work_of(arguments), arguments))
