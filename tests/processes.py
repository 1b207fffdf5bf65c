"""Coordinators as processes of their own, which tests may kill."""

import asyncio
import contextlib
import os
import random
import signal
import socket
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Final, Self

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from tests.fork_server import FORK_SERVER, ForkedProcess

READY_TIMEOUT_S: Final = 30.0
EXIT_TIMEOUT_S: Final = 30.0
_PORTS: Final = range(12_000, 32_000)
"""Below those from which systems take ports by themselves: a connection of another test would sit on the one that was found here."""
_CHANCE: Final = random.SystemRandom()
ROOT: Final = Path(__file__).parent.parent


def free_port() -> int:
    """A port of the loopback address that nobody listens on now, and that no outgoing connection is given before somebody does."""
    while True:
        port = _CHANCE.choice(_PORTS)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


def python_environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """What a child needs to import the tree under test."""
    paths = [str(ROOT), str(ROOT / "protos"), *(str(ROOT / "examples" / name / "protos") for name in ("shop", "travel"))]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths), **(extra or {})}


async def wait_until_draining(address: str) -> None:
    """Returns when the health service there says NOT_SERVING."""
    async with asyncio.timeout(READY_TIMEOUT_S), grpc.aio.insecure_channel(address) as channel:
        async for answer in health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest()):
            if answer.status == health_pb2.HealthCheckResponse.NOT_SERVING:
                return


async def wait_until_serving(address: str, process: "subprocess.Popen[bytes] | ForkedProcess | None" = None) -> None:
    """Returns when the health service there says SERVING. Fails if the process ends first."""
    options = [("grpc.max_reconnect_backoff_ms", 100)]
    async with asyncio.timeout(READY_TIMEOUT_S), grpc.aio.insecure_channel(address, options=options) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        while True:
            if process is not None and process.poll() is not None:
                raise AssertionError(f"the process ended with {process.returncode} before it was ready")
            with contextlib.suppress(grpc.aio.AioRpcError):
                answer = await stub.Check(health_pb2.HealthCheckRequest(), timeout=1.0, wait_for_ready=True)
                if answer.status == health_pb2.HealthCheckResponse.SERVING:
                    return


class CoordinatorProcess:
    """`saga serve` on one database and one port, started again and again."""

    def __init__(
        self,
        directory: Path,
        *,
        environment: Mapping[str, str] | None = None,
        module: str = "coordinator",
        address: str = "",
        name: str = "coordinator",
        url: str = "",
    ) -> None:
        """`url`: of its database, if it is not the SQLite file `database`."""
        self.database = directory / "saga.db"
        self.address = address or f"127.0.0.1:{free_port()}"
        self._url = url or str(self.database)
        self._log = directory / f"{name}.log"
        self._environment = dict(environment or {})
        self._module = module
        self._process: ForkedProcess | None = None

    async def start(self, environment: Mapping[str, str] | None = None, *, wait: bool = True) -> None:
        """Starts it, and returns when it serves."""
        self._process = FORK_SERVER.spawn(
            self._module,
            ["serve", "--address", self.address, "--database", self._url],
            log=self._log,
            environment=python_environment({**self._environment, **(environment or {})}),
            directory=ROOT,
        )
        if wait:
            await wait_until_serving(self.address, self._process)

    def kill(self) -> None:
        """SIGKILL, and waits until it is gone."""
        self._end(signal.SIGKILL)

    def terminate(self) -> int:
        """SIGTERM; returns its exit code."""
        return self._end(signal.SIGTERM)

    def send_signal(self, number: signal.Signals) -> None:
        """SIGSTOP and SIGCONT, for instance."""
        assert self._process is not None
        self._process.send_signal(number)

    async def wait(self) -> int:
        """Returns the exit code when it has ended by itself."""
        assert self._process is not None
        return await asyncio.to_thread(self._process.wait, EXIT_TIMEOUT_S)

    @property
    def is_running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def log(self) -> str:
        return self._log.read_text() if self._log.exists() else ""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self.is_running:
            self.kill()

    def _end(self, number: signal.Signals) -> int:
        process, self._process = self._process, None
        assert process is not None
        process.send_signal(number)
        return process.wait(EXIT_TIMEOUT_S)
