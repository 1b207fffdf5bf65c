"""Temporal: its development server, a worker and a client, as processes of their own.

The server is `temporal server start-dev`, the one that comes in one binary, with its state in a SQLite file (`--db-filename`), as it sets
that up. It is meant for development: a real installation has Cassandra, PostgreSQL or MySQL, and several services. Take its figures for
what one has on a laptop, not for what Temporal can do.

The saga is a workflow, each step an activity with a time limit, in one worker with default settings.
"""

import argparse
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

from benchmarks.measured_run import Run, Work, add_work_arguments, tell, work_of
from benchmarks.peers.processes import check_books, child, end_in_good_order, free_port, python, run_client


def main(work: Work) -> Run:
    with tempfile.TemporaryDirectory(prefix="bench-temporal-") as name, ExitStack() as processes:
        directory = Path(name)
        books, port = directory / "books.json", free_port()
        command = [str(Path(sys.executable).parent / "temporal"), "server", "start-dev", "--headless", "--ip", "127.0.0.1"]
        command += ["--port", str(port), "--db-filename", str(directory / "temporal.db"), "--log-level", "error"]
        server = processes.enter_context(child(command, directory / "server.log"))
        server.wait_until_listening(port)
        command = python("benchmarks.peers.temporal.worker", "--port", str(port), "--books", str(books))
        worker = processes.enter_context(child(command, directory / "worker.log"))
        run = run_client("benchmarks.peers.temporal.client", work, {"server": server.pid, "worker": worker.pid}, "--port", str(port))
        check_books(worker, books, work)
        return run


if __name__ == "__main__":
    end_in_good_order()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_work_arguments(parser)
    tell(main(work_of(parser.parse_args())))
