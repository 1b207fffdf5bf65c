"""The ceiling: the frames and the rows of our coordinator without its logic, so what Python, gRPC and SQL allow on this machine.

Client, coordinator and participants are three processes, with the interpreter and the wire contract of the project. The client starts sagas
on `SagaService.StartSagas` streams and the coordinator calls on `ParticipantService.Exchange` streams: one frame for each turn of the loop,
nothing waits for company. Before a call leaves, what it follows from is committed, with whatever else is there then: for a completed
saga one row of `saga`, five of `event`, and one update of `saga`; for a compensated one eight events and two updates. The tables have the
columns of the journal and one key each: `--tables journal` adds the keys and indexes that the journal has beside that, for which a commit
must write many more pages.

SQLite: write-ahead log, synchronous=FULL, SQLAlchemy Core on one connection in one thread. PostgreSQL: asyncpg, one statement for a batch,
sequential scans off, the server as it comes (`fsync`, `synchronous_commit`).
"""

import argparse
import asyncio
import sqlite3
import tempfile
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Final

import asyncpg

from benchmarks.measured_run import WARM_UP_SAGAS, Run, Work, add_work_arguments, tell, work_of
from benchmarks.peers.databases import Database, add_database_arguments, database_of
from benchmarks.peers.processes import ROOT, check_books, child, end_in_good_order, free_port, python, run_client
from saga.v1 import saga_pb2

EVENTS_COMPLETED: Final = 5
EVENTS_COMPENSATED: Final = 8
ENVIRONMENT: Final = {"PYTHONPATH": f"{ROOT}:{ROOT / 'protos'}"}


def main(work: Work, given: argparse.Namespace) -> Run:
    with tempfile.TemporaryDirectory(prefix="bench-ceiling-") as name, ExitStack() as processes:
        directory = Path(name)
        database, books = database_of(given, directory), directory / "books.json"
        ports = [str(free_port()) for _ in range(given.participants)]
        command = python("benchmarks.peers.ceiling.participants", "--ports", *ports, "--books", str(books))
        command += ["--refusing"] if work.is_compensated else []
        participants = processes.enter_context(child(command, directory / "participants.log", ENVIRONMENT))
        participants.wait_until_listening(*map(int, ports))

        port = free_port()
        command = python("benchmarks.peers.ceiling.coordinator", "--port", str(port), "--participants", *ports, "--tables", given.tables)
        command += ["--postgres-url", database.url] if database.server else ["--sqlite", str(database.sqlite)]
        coordinator = processes.enter_context(child(command, directory / "coordinator.log", ENVIRONMENT))
        coordinator.wait_until_listening(port)

        pids = {"coordinator": coordinator.pid, "participants": participants.pid, **database.processes}
        run = run_client("benchmarks.peers.ceiling.client", work, pids, "--port", str(port), "--streams", str(given.streams))
        check_books(participants, books, work)
        coordinator.stop()
        _check_rows(database, work)
        return run


def _check_rows(database: Database, work: Work) -> None:
    """Ends the program with a message unless the database has the rows that it should."""
    sagas = work.sagas + min(WARM_UP_SAGAS, work.sagas)
    events, status = (
        (EVENTS_COMPENSATED, saga_pb2.SAGA_STATUS_COMPENSATED)
        if work.is_compensated
        else (EVENTS_COMPLETED, saga_pb2.SAGA_STATUS_COMPLETED)
    )
    question = f"SELECT (SELECT count(*) FROM saga WHERE status = {int(status)} AND NOT unfinished), (SELECT count(*) FROM event)"
    if database.server:
        found = asyncio.run(_ask_and_drop(database, question))
    else:
        with closing(sqlite3.connect(database.sqlite)) as connection:
            found = tuple(connection.execute(question).fetchone())
    if found != (sagas, sagas * events):
        raise SystemExit(f"found {found} sagas that have ended and events, expected {(sagas, sagas * events)}: nothing is measured")


async def _ask_and_drop(database: Database, question: str) -> tuple[int, int]:
    connection = await asyncpg.connect(database.url)
    sagas, events = await connection.fetchrow(question)
    await connection.close()
    server = await asyncpg.connect(database.server)
    await server.execute(f'DROP DATABASE "{database.name}"')
    await server.close()
    return int(sagas), int(events)


if __name__ == "__main__":
    end_in_good_order()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_work_arguments(parser)
    add_database_arguments(parser)
    parser.add_argument("--streams", type=int, default=1, help="of the client (default %(default)s)")
    parser.add_argument("--participants", type=int, default=1, help="in one process, each with a stream (default %(default)s)")
    parser.add_argument("--tables", choices=["lean", "journal"], default="lean", help="(default %(default)s)")
    arguments = parser.parse_args()
    tell(main(work_of(arguments), arguments))
