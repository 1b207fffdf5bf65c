"""The database of a driver of ours: an SQLite file in its folder, a new database on a server, or on a server that is started for it."""

import argparse
import subprocess
import sys
from pathlib import Path

import asyncpg

from benchmarks.peers.databases import database_of
from benchmarks.peers.processes import ROOT, python


async def journal_of(given: argparse.Namespace, directory: Path) -> tuple[str, dict[str, int]]:
    """The URL of a new database, empty for an SQLite file; and the processes that belong to it, by name."""
    database = database_of(given, directory)
    if not database.server:
        return "", {}
    connection = await asyncpg.connect(dsn=database.server)
    try:
        await connection.execute(f'CREATE DATABASE "{database.name}"')
    finally:
        await connection.close()
    return database.url, database.processes


def with_postgres_of_its_own(given: argparse.Namespace, module: str) -> None:
    """Runs this program again beside a PostgreSQL server, if it needs one and was told of none, and ends with what that one ended with."""
    if given.database == "postgresql" and not given.postgres_url:
        again = python(module, *sys.argv[1:])
        sys.exit(subprocess.run(python("benchmarks.peers.with_postgres", *again), cwd=ROOT, check=False).returncode)
