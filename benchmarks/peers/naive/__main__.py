"""What a team writes by itself in a week: asyncio, SQLAlchemy's async engine, unary gRPC calls, a commit before and after each.

Two processes: the coordinator, in the process that wants the sagas, and the three participants. Five commits for a completed saga, seven
for a compensated one, one statement each. SQLite: aiosqlite on one connection, write-ahead log, synchronous=FULL. PostgreSQL: asyncpg, a
pool of 20 connections, the server as it comes (`fsync`, `synchronous_commit`): commits of many connections share a write to the disk.

It cannot recover: a saga that was under way when the process died stays as it is.
"""

import argparse
import tempfile
from contextlib import ExitStack
from pathlib import Path

from benchmarks.measured_run import Run, Work, add_work_arguments, tell, work_of
from benchmarks.peers.databases import Database, add_database_arguments, database_of
from benchmarks.peers.processes import check_books, child, end_in_good_order, free_port, python, run_client


def main(work: Work, given: argparse.Namespace) -> Run:
    with tempfile.TemporaryDirectory(prefix="bench-naive-") as name, ExitStack() as processes:
        directory = Path(name)
        database, books, port = database_of(given, directory), directory / "books.json", free_port()
        command = python("benchmarks.peers.naive.participants", "--port", str(port), "--books", str(books))
        command += ["--refusing"] if work.is_compensated else []
        participants = processes.enter_context(child(command, directory / "participants.log"))
        participants.wait_until_listening(port)
        pids = {"participants": participants.pid, **database.processes}
        run = run_client("benchmarks.peers.naive.coordinator", work, pids, "--port", str(port), *_urls(database))
        check_books(participants, books, work)
        return run


def _urls(database: Database) -> list[str]:
    if not database.server:
        return ["--url", f"sqlite+aiosqlite:///{database.sqlite}"]
    asynchronous = [url.replace("postgresql://", "postgresql+asyncpg://") for url in (database.url, database.server)]
    return ["--url", asynchronous[0], "--server-url", asynchronous[1]]


if __name__ == "__main__":
    end_in_good_order()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_work_arguments(parser)
    add_database_arguments(parser)
    arguments = parser.parse_args()
    tell(main(work_of(arguments), arguments))
