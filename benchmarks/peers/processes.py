"""The processes of a driver: started on ports of their own, and stopped by their process ids. Standard library only.

The driver itself is no part of what is measured. It starts the servers and, beside them, the client as a process of its own: processor time
of a process includes that of its children, so a client that had started the servers would be counted with them.
"""

import argparse
import contextlib
import dataclasses
import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from benchmarks.measured_run import Run, Work
from benchmarks.peers.books import ASKING, Books

ROOT: Final = Path(__file__).parent.parent.parent
START_LIMIT_S: Final = 60.0
STOP_LIMIT_S: Final = 10.0
RUN_LIMIT_S: Final = 600.0
LOG_CHARS_TOLD: Final = 3000
_PORTS: Final = range(12_000, 32_000)
"""Below those from which systems take ports by themselves."""
_CHANCE: Final = random.SystemRandom()


def free_port() -> int:
    """A port of the loopback address that nobody listens on now."""
    while True:
        port = _CHANCE.choice(_PORTS)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


def end_in_good_order() -> None:
    """Has SIGTERM end this process so that what it has started is stopped, too."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended by SIGTERM"))


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Child:
    """A process that a driver has started."""

    process: subprocess.Popen[bytes]
    log: Path

    @property
    def pid(self) -> int:
        return self.process.pid

    def wait_until_listening(self, *ports: int) -> None:
        """Returns when somebody accepts connections on all of these. Ends the program if the process ends first, or takes too long."""
        until = time.monotonic() + START_LIMIT_S
        for port in ports:
            while not _is_listening(port):
                if self.process.poll() is not None or time.monotonic() > until:
                    raise SystemExit(f"nobody listens on port {port}: {' '.join(map(str, self.process.args))}\n{self.tail()}")  # type: ignore[arg-type]
                time.sleep(0.05)

    def tail(self) -> str:
        """The end of what it has said."""
        return self.log.read_text(errors="replace")[-LOG_CHARS_TOLD:]

    def stop(self, how: signal.Signals = signal.SIGTERM) -> None:
        """Asks it to end, and waits until it has; it is killed if it takes too long. May be called twice."""
        if self.process.poll() is None:
            self.process.send_signal(how)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(STOP_LIMIT_S)
            self.process.kill()
        self.process.wait(STOP_LIMIT_S)


@contextmanager
def child(command: Sequence[str], log: Path, environment: Mapping[str, str] | None = None, pass_fds: Sequence[int] = ()) -> Iterator[Child]:
    """A process that is stopped at the end of the context. If that ends with an error, what the process has said is told with it."""
    with log.open("ab") as output:
        process = subprocess.Popen(
            command,
            cwd=log.parent,
            env={**os.environ, "PYTHONPATH": str(ROOT), **(environment or {})},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            pass_fds=pass_fds,
        )
    started = Child(process=process, log=log)
    try:
        yield started
    except BaseException:
        print(f"-- {log.name}:\n{started.tail()}", file=sys.stderr)
        raise
    finally:
        started.stop()


def python(module: str, *arguments: str) -> list[str]:
    """The command of a module of the same environment."""
    return [sys.executable, "-m", module, *arguments]


def run_client(module: str, work: Work, processes: Mapping[str, int], *arguments: str) -> Run:
    """Starts a client that measures, and returns what it tells. Ends the program if it fails."""
    command = python(module, *_work_arguments(work), "--processes", json.dumps(processes), *arguments)
    client = subprocess.run(command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, timeout=RUN_LIMIT_S, check=False)
    if client.returncode:
        raise SystemExit(f"the client ended with {client.returncode}: nothing is measured")
    return Run(**json.loads(client.stdout.splitlines()[-1]))


def check_books(keeper: Child, books: Path, work: Work) -> None:
    """Stops the process that counts what the steps do, and ends the program with a message unless they did what they should."""
    keeper.stop(ASKING)
    if not books.exists():
        raise SystemExit(f"the process that counts what the steps do has written no books:\n{keeper.tail()}")
    Books.read(books).check(work)


def add_client_arguments(parser: argparse.ArgumentParser) -> None:
    """What `run_client` gives to a client, beside the options of the work."""
    parser.add_argument("--processes", type=json.loads, required=True, help="process ids by name, as JSON")


def processes_of(given: argparse.Namespace) -> dict[str, int]:
    """The processes to be measured, the client itself among them."""
    return {"client": os.getpid(), **given.processes}


def _work_arguments(work: Work) -> list[str]:
    options = ["--sagas", str(work.sagas), "--concurrency", str(work.concurrency), "--rate", str(work.rate)]
    return [*options, "--compensated"] if work.is_compensated else options


def _is_listening(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
