"""Runs a command beside a PostgreSQL server of its own, with the project's interpreter: drivers find the server through two variables.

    .venv/bin/python -m benchmarks.peers.with_postgres build/bench/dbos/bin/python -m benchmarks.peers.dbos --database postgresql

The server runs as it comes: `fsync`, `full_page_writes` and `synchronous_commit` are on.
"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.peers.databases import POSTGRES_PID, POSTGRES_URL
from benchmarks.peers.processes import end_in_good_order
from tests.postgres_server import PostgresServer


def main(command: list[str]) -> int:
    with tempfile.TemporaryDirectory(prefix="bench-postgres-") as name:
        server = PostgresServer(Path(name), settings={})
        server.start()
        environment = {POSTGRES_URL: str(server.url), POSTGRES_PID: str(server.pid)}
        try:
            with subprocess.Popen(command, env={**os.environ, **environment}) as driver:
                try:
                    return driver.wait()
                finally:
                    driver.terminate()  # if it is this process that is ended: it stops what it has started, too
        finally:
            server.stop()


if __name__ == "__main__":
    end_in_good_order()
    sys.exit(main(sys.argv[1:]))
