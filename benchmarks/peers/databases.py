"""Which database a driver uses: a SQLite file of its own, or a PostgreSQL server that is there. Standard library only."""

import argparse
import dataclasses
import os
import secrets
from pathlib import Path
from typing import Final

POSTGRES_URL: Final = "BENCH_POSTGRES_URL"
"""Of a PostgreSQL server, with a role that may make databases. Example: postgresql://saga@127.0.0.1:5432/postgres."""
POSTGRES_PID: Final = "BENCH_POSTGRES_PID"
"""Its process id, if it runs on this machine and shall be measured."""


def add_database_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of a driver that can use either."""
    parser.add_argument("--database", choices=["sqlite", "postgresql"], default="sqlite", help="(default %(default)s)")
    parser.add_argument("--postgres-url", default=os.environ.get(POSTGRES_URL, ""), help=f"of a server; else that of {POSTGRES_URL}")
    parser.add_argument(
        "--postgres-pid", type=int, default=int(os.environ.get(POSTGRES_PID, "0")), help=f"of that server; else that of {POSTGRES_PID}"
    )


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Database:
    """Where a driver keeps its state."""

    sqlite: Path
    """The file, if there is no server."""
    server: str
    """URL of a PostgreSQL server, of a database in which others are made; empty: SQLite."""
    name: str
    """Of a database to be made on that server: a new one for each run."""
    pid: int
    """Of that server; 0: it is not measured."""

    @property
    def url(self) -> str:
        """Of the new database on the server."""
        return f"{self.server.rpartition('/')[0]}/{self.name}"

    @property
    def processes(self) -> dict[str, int]:
        """The server, if it is to be measured."""
        return {"postgres": self.pid} if self.server and self.pid else {}


def database_of(given: argparse.Namespace, directory: Path) -> Database:
    """What was asked for with those options. Ends the program if there is no such server."""
    is_server = given.database == "postgresql"
    if is_server and not given.postgres_url:
        raise SystemExit(f"expected a PostgreSQL server: give --postgres-url, set {POSTGRES_URL}, or use benchmarks.peers.with_postgres")
    return Database(
        sqlite=directory / "bench.db",
        server=given.postgres_url if is_server else "",
        name=f"bench_{secrets.token_hex(6)}",
        pid=given.postgres_pid,
    )
