"""A real MariaDB for tests: the one that SAGA_TEST_MARIADB names, else the one on PATH. Without one the tests are skipped, and say so.

Started as an ordinary user, or as root under another user id, since MariaDB refuses root. Without tables of privileges, so that everybody
who reaches its loopback address is its root. Stopped by its process id.
"""

import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import pytest
from sqlalchemy import URL, make_url

from tests.processes import free_port

VARIABLE: Final = "SAGA_TEST_MARIADB"
"""A URL such as mariadb://user:password@host:3306/, of a user who may make databases and end connections."""
START_LIMIT_S: Final = 60.0
SETTINGS: Final = {
    "bind-address": "127.0.0.1",
    "skip-grant-tables": "ON",
    "skip-name-resolve": "ON",
    "innodb-flush-log-at-trx-commit": "2",  # Only processes are killed, never the power: what was committed survives that, too.
    "innodb-buffer-pool-size": "16M",
    "innodb-log-file-size": "8M",
}


class MariadbServer:
    """One server on a port of its own. What it holds stays in its directory between `start` and `stop`."""

    def __init__(self, directory: Path, binary: Path) -> None:
        self._directory = directory
        self._binary = binary
        self._port = free_port()
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> URL:
        """Without a database."""
        return URL.create("mariadb", "root", host="127.0.0.1", port=self._port)

    def start(self) -> None:
        """Makes the first files if there are none, and waits until it answers."""
        assert self._process is None, "it runs already"
        data, log = self._directory / "data", self._directory / "log"
        data.mkdir(parents=True, exist_ok=True)
        places = {"datadir": data, "socket": self._directory / "socket", "pid-file": self._directory / "pid", "port": self._port}
        options = [f"--{name}={value}" for name, value in {**places, **SETTINGS}.items()]
        log.touch()
        said_before = log.stat().st_size
        with log.open("ab") as stream:
            command = self._command(str(self._binary), "--no-defaults", *options)
            self._process = subprocess.Popen(command, stdout=stream, stderr=stream, cwd="/")
        until = time.monotonic() + START_LIMIT_S
        while b"ready for connections" not in log.read_bytes()[said_before:]:
            is_starting = self._process.poll() is None and time.monotonic() < until
            assert is_starting, log.read_text()[-2000:]
            time.sleep(0.02)

    def stop(self) -> None:
        """In good order."""
        process, self._process = self._process, None
        if process is not None:
            process.terminate()
            process.wait(START_LIMIT_S)

    def kill(self) -> None:
        """SIGKILL, and waits until it is gone."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait(START_LIMIT_S)

    def _command(self, *command: str) -> list[str]:
        if os.geteuid() == 0:
            return ["unshare", "--user", "--map-user=65534", "--map-group=65534", *command]
        return list(command)


@contextmanager
def mariadb_server(directory: Path) -> Iterator[URL]:
    """The URL of a server that is there as long as the context lasts. Skips the test where there is none."""
    given = os.environ.get(VARIABLE)
    if given:
        yield make_url(given)
        return
    server = MariadbServer(directory, find_mariadbd())
    server.start()
    try:
        yield server.url
    finally:
        server.stop()


def find_mariadbd() -> Path:
    """Debian has it where the PATH of an ordinary user does not lead. Skips the test where there is none."""
    found = shutil.which("mariadbd") or shutil.which("mariadbd", path="/usr/sbin")
    if found is None:
        pytest.skip(f"no mariadbd on PATH or in /usr/sbin: install it, as apt-get install mariadb-server-core does, or set {VARIABLE}")
    return Path(found)
