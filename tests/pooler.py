"""A real pgbouncer in transaction mode for tests, where database transactions of one connection run in one session after the other.

Started as an ordinary user, or as root under another user id, since pgbouncer refuses root. Stopped by its process id.
"""

import os
import re
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest
from sqlalchemy import URL

from tests.processes import free_port

START_LIMIT_S: Final = 30.0
SESSIONS: Final = 4
"""With the server, for each database. Fewer than the connections of one node, so that all have to share them."""
STATEMENTS_SINCE: Final = (1, 21)
"""The first version that knows prepared statements."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pooling:
    """What a pooler does with prepared statements, and what nodes must be told because of that."""

    statements_max: int
    """Of one session. 0: it does not know them and passes them on as they come, as every version before 1.21."""
    query: Mapping[str, str]
    """Of the URL of the nodes."""


WITH_STATEMENTS: Final = Pooling(statements_max=200, query={})
"""As a new pgbouncer is if nothing is set."""
WITHOUT_STATEMENTS: Final = Pooling(statements_max=0, query={"prepared_statement_cache_size": "0"})


class Pooler:
    """One pgbouncer on a port of its own, in front of all databases of a server."""

    def __init__(self, directory: Path, server: URL, pooling: Pooling, *, sessions: int = SESSIONS) -> None:
        """`sessions`: with the server, for each database."""
        binary = find_pgbouncer()
        assert binary is not None, "expected pgbouncer on PATH or in /usr/sbin: install it, as apt-get install pgbouncer does"
        self._binary = binary
        self._directory = directory
        self._port = free_port()
        self._pooling = pooling
        self._settings = _settings_of(server, self._port, sessions)
        if version_of(binary) >= STATEMENTS_SINCE:
            self._settings += f"max_prepared_statements = {pooling.statements_max}\n"
        self._process: subprocess.Popen[bytes] | None = None

    def url_of(self, url: URL) -> URL:
        """The way to the same database through it."""
        return url.set(host="127.0.0.1", port=self._port, query=dict(self._pooling.query))

    def start(self) -> None:
        """Returns when it takes connections."""
        self._directory.mkdir(parents=True, exist_ok=True)
        settings, log = self._directory / "pgbouncer.ini", self._directory / "log"
        settings.write_text(self._settings)
        command = [str(self._binary), str(settings)]
        if os.geteuid() == 0:
            command = ["unshare", "--user", "--map-user=65534", "--map-group=65534", *command]
        with log.open("ab") as stream:
            self._process = subprocess.Popen(command, stdout=stream, stderr=stream, cwd="/")
        until = time.monotonic() + START_LIMIT_S
        while not self._is_listening():
            is_starting = self._process.poll() is None and time.monotonic() < until
            assert is_starting, log.read_text()[-2000:]
            time.sleep(0.01)

    def kill(self) -> None:
        """SIGKILL, and waits until it is gone: it keeps nothing that it would have to write."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait(START_LIMIT_S)

    def _is_listening(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self._port)) == 0


@contextmanager
def pooler(directory: Path, server: URL, pooling: Pooling, *, sessions: int = SESSIONS) -> Iterator[Pooler]:
    """One that is there as long as the context lasts. Skips the test where there is none of that kind."""
    skip_without(pooling)
    made = Pooler(directory, server, pooling, sessions=sessions)
    made.start()
    try:
        yield made
    finally:
        made.kill()


def skip_without(pooling: Pooling) -> None:
    """Skips the test where no pgbouncer is installed, or only one that is too old."""
    binary = find_pgbouncer()
    if binary is None:
        pytest.skip("no pgbouncer on PATH or in /usr/sbin: install it, as apt-get install pgbouncer does")
    version = version_of(binary)
    if pooling.statements_max and version < STATEMENTS_SINCE:
        pytest.skip(f"pgbouncer {version[0]}.{version[1]} does not know prepared statements: they came with 1.21")


def find_pgbouncer() -> Path | None:
    """Debian has it where the PATH of an ordinary user does not lead."""
    found = shutil.which("pgbouncer") or shutil.which("pgbouncer", path="/usr/sbin")
    return None if found is None else Path(found)


def version_of(binary: Path) -> tuple[int, int]:
    """Major and minor."""
    told = subprocess.run([str(binary), "--version"], check=True, capture_output=True, text=True).stdout
    found = re.search(r"(\d+)\.(\d+)", told)
    assert found is not None, f"expected pgbouncer to tell its version, found {told!r}"
    return int(found[1]), int(found[2])


def _settings_of(server: URL, port: int, sessions: int) -> str:
    """Round robin: the next database transaction gets the session that has been at rest for longest. Whoever connects is the role that the
    tests have on the server."""
    login = {"host": server.host, "port": server.port, "user": server.username, "password": server.password}
    words = " ".join(f"{name}={_quoted(str(value))}" for name, value in login.items() if value is not None)
    return f"""[databases]
* = {words}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = any
pool_mode = transaction
default_pool_size = {sessions}
server_round_robin = 1
"""


def _quoted(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"
