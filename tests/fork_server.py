"""Processes that begin at once: forked from one that has imported everything, where `python -m` would take two seconds of processor time.

`spawn` does what `subprocess.Popen([sys.executable, "-m", module, ...])` does, and what it returns is used alike. The forks are processes
like any other: they have their own memory, sockets and threads, and can be killed and stopped. All of them end with this process.
"""

import json
import os
import runpy
import selectors
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

PRELOADED: Final = (
    "aiosqlite",
    "alembic.command",
    "coordinator.bootstrap",
    "coordinator.cli.app",
    "coordinator.cli.bulk",
    "coordinator.cli.checking",
    "coordinator.cli.definitions",
    "coordinator.cli.explaining",
    "coordinator.cli.operating",
    "coordinator.cli.reading",
    "coordinator.cli.replaying",
    "coordinator.cli.serving",
    "coordinator.cli.steering",
    "coordinator.cli.verifying",
    "participant_sdk",
    "participant_sdk.otlp",
    "sqlalchemy.dialects.sqlite.aiosqlite",
    "sqlalchemy.ext.asyncio",
)
"""None of them starts a thread or opens anything when it is imported: what is forked must be at rest."""


class ForkedProcess:
    """Used like a `subprocess.Popen`."""

    def __init__(self, pid: int, server: "ForkServer") -> None:
        self.pid: Final = pid
        self._server = server

    @property
    def returncode(self) -> int | None:
        """As of `Popen`: negative if a signal ended it; None while it runs."""
        return self._server.returncode_of(self.pid)

    def poll(self) -> int | None:
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        return self._server.wait(self.pid, timeout)

    def send_signal(self, number: int) -> None:
        if self.returncode is None:
            os.kill(self.pid, number)


class ForkServer:
    """The process that has imported everything, seen from here. Started when the first one is asked for."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[str] | None = None
        self._news = threading.Condition()
        self._pids: list[int] = []
        self._ended: dict[int, int] = {}
        self._is_gone = False

    def spawn(self, module: str, arguments: Sequence[str], *, log: Path, environment: Mapping[str, str], directory: Path) -> ForkedProcess:
        """Runs a module as `__main__`; what it writes is appended to `log`."""
        order = {"module": module, "arguments": arguments, "log": str(log), "environment": dict(environment), "directory": str(directory)}
        with self._news:
            stdin = self._running(environment).stdin
            assert stdin is not None
            stdin.write(json.dumps(order) + "\n")
            stdin.flush()
            assert self._news.wait_for(lambda: self._pids or self._is_gone, timeout=30), "nothing was forked in time"
            assert self._pids, "the process to fork from has ended"
            return ForkedProcess(self._pids.pop(), self)

    def returncode_of(self, pid: int) -> int | None:
        with self._news:
            return self._ended.get(pid)

    def wait(self, pid: int, timeout: float | None) -> int:
        with self._news:
            if not self._news.wait_for(lambda: pid in self._ended or self._is_gone, timeout):
                raise subprocess.TimeoutExpired(f"process {pid}", timeout or 0.0)
            return self._ended[pid]

    def _running(self, environment: Mapping[str, str]) -> "subprocess.Popen[str]":
        if self._process is None:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.fork_server"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                env=dict(environment),
                cwd=Path(__file__).parent.parent,
            )
            threading.Thread(target=self._listen, args=(self._process,), name="fork-server", daemon=True).start()
        return self._process

    def _listen(self, process: "subprocess.Popen[str]") -> None:
        assert process.stdout is not None
        for line in process.stdout:
            kind, pid, *rest = line.split()
            with self._news:
                if kind == "began":
                    self._pids.append(int(pid))
                else:
                    self._ended[int(pid)] = int(rest[0])
                self._news.notify_all()
        with self._news:
            self._is_gone = True
            self._news.notify_all()


FORK_SERVER: Final = ForkServer()
"""One for all that this process asks for. It ends when its standard input does: with this process."""


# ── In the process that is forked from ─────────────────────────────────────────────────────────────────────────────────────────────────


def main() -> None:
    """Forks for each line that comes, and tells of each child that has ended."""
    for name in PRELOADED:
        __import__(name)
    wake_reader, wake_writer = os.pipe()
    os.set_blocking(wake_writer, False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(wake_writer, warn_on_full_buffer=False)
    children: set[int] = set()
    selector = selectors.DefaultSelector()
    selector.register(0, selectors.EVENT_READ)
    selector.register(wake_reader, selectors.EVENT_READ)
    pending = b""
    while True:
        for key, _ in selector.select():
            read = os.read(key.fd, 65536)
            if key.fd == wake_reader:
                _reap(children)
                continue
            if not read:
                _end(children)
                return
            *lines, pending = (pending + read).split(b"\n")
            for line in lines:
                order = json.loads(line)
                pid = os.fork()
                if pid == 0:
                    selector.close()
                    os.close(wake_reader)
                    os.close(wake_writer)
                    _become(order)
                    return
                children.add(pid)
                _tell(f"began {pid}")


def _become(order: dict[str, Any]) -> None:
    """What the child does until its end."""
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    nothing = os.open(os.devnull, os.O_RDONLY)
    log = os.open(order["log"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    for source, target in ((nothing, 0), (log, 1), (log, 2)):
        os.dup2(source, target)
    os.environ.clear()
    os.environ.update(order["environment"])
    os.chdir(order["directory"])
    sys.argv = [order["module"], *order["arguments"]]
    runpy.run_module(order["module"], run_name="__main__", alter_sys=True)


def _reap(children: set[int]) -> None:
    while children:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if pid == 0:
            return
        children.discard(pid)
        _tell(f"ended {pid} {os.waitstatus_to_exitcode(status)}")


def _tell(line: str) -> None:
    os.write(1, f"{line}\n".encode())


def _end(children: set[int]) -> None:
    for pid in children:
        os.kill(pid, signal.SIGKILL)


if __name__ == "__main__":
    main()
