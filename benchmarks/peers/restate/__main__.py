"""Restate: its server, a service in Python, and a client, as processes of their own.

The server runs as it comes: one node, 24 partitions, and a log whose every write reaches the disk before an invocation goes on
(`rocksdb-disable-wal-fsync = false`, its default). Only its telemetry to its makers is off, and its own log is at warnings. The service is
served by Hypercorn over HTTP/2 without TLS, with the limits that the templates of the SDK set; the client keeps its connections to the
ingress open. Starts carry no idempotency key, which spares the server a look-up.

`--form run`, the default, is how Restate's guide to sagas writes one: a handler with a `ctx.run` for each step. It is also the form that
costs least, the more so as the action is a function of that very process, where the guide has a call to somebody. With `--form calls` the
handler calls a handler of another Restate service for each step, so that the call itself is durable, which costs three times as much.
Compensations are collected in a list and run backwards when a step has refused, as that guide shows.
"""

import argparse
import json
import socket
import tempfile
import urllib.request
from contextlib import ExitStack
from pathlib import Path
from typing import Final

from benchmarks.measured_run import Run, Work, add_work_arguments, tell, work_of
from benchmarks.peers.processes import ROOT, Child, check_books, child, end_in_good_order, free_port, python, run_client

ENVIRONMENT: Final = ROOT / "build" / "bench" / "restate"
SERVER_PATTERN: Final = "node_modules/@restatedev/restate-server-*/bin/restate-server"
REGISTRATION_LIMIT_S: Final = 60.0


def main(work: Work, form: str) -> Run:
    with tempfile.TemporaryDirectory(prefix="bench-restate-") as name, ExitStack() as processes:
        directory = Path(name)
        books = directory / "books.json"
        service, service_port = _start_service(directory, books, processes)
        server, ingress_port, admin_port = _start_server(directory, processes)
        _register(admin_port, service_port)
        url = f"http://127.0.0.1:{ingress_port}/Saga/{form}"
        run = run_client("benchmarks.peers.restate.client", work, {"server": server.pid, "service": service.pid}, "--url", url)
        check_books(service, books, work)
        return run


def _start_service(directory: Path, books: Path, processes: ExitStack) -> tuple[Child, int]:
    listener = processes.enter_context(socket.socket())
    listener.bind(("127.0.0.1", 0))
    listener.listen(1024)
    command = python("benchmarks.peers.restate.service", "--descriptor", str(listener.fileno()), "--books", str(books))
    service = processes.enter_context(child(command, directory / "service.log", pass_fds=[listener.fileno()]))
    port: int = listener.getsockname()[1]
    return service, port


def _start_server(directory: Path, processes: ExitStack) -> tuple[Child, int, int]:
    found = list(ENVIRONMENT.glob(SERVER_PATTERN))
    if len(found) != 1:
        raise SystemExit(f"expected Restate's server in {ENVIRONMENT}, found {len(found)}: run make bench-peers")
    ingress_port, admin_port = free_port(), free_port()
    environment = {
        "RESTATE_BASE_DIR": str(directory / "restate-data"),
        "RESTATE_BIND_ADDRESS": f"127.0.0.1:{free_port()}",
        "RESTATE_INGRESS__BIND_ADDRESS": f"127.0.0.1:{ingress_port}",
        "RESTATE_ADMIN__BIND_ADDRESS": f"127.0.0.1:{admin_port}",
        "RESTATE_LISTEN_MODE": "tcp",
        "RESTATE_DISABLE_TELEMETRY": "true",
        "RESTATE_LOG_FILTER": "warn",
        "RESTATE_LOG_DISABLE_ANSI_CODES": "true",
    }
    server = processes.enter_context(child([str(found[0]), "--node-name", "bench"], directory / "server.log", environment))
    server.wait_until_listening(ingress_port, admin_port)
    return server, ingress_port, admin_port


def _register(admin_port: int, service_port: int) -> None:
    """Tells the server where the services are; returns when it has asked them what they can do."""
    body = json.dumps({"uri": f"http://127.0.0.1:{service_port}"}).encode()
    request = urllib.request.Request(
        f"http://127.0.0.1:{admin_port}/deployments", data=body, headers={"content-type": "application/json"}, method="POST"
    )
    with urllib.request.urlopen(request, timeout=REGISTRATION_LIMIT_S) as answer:
        answer.read()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_work_arguments(parser)
    parser.add_argument("--form", choices=["calls", "run"], default="run", help="of a step (default %(default)s)")
    given = parser.parse_args()
    end_in_good_order()
    tell(main(work_of(given), given.form))
