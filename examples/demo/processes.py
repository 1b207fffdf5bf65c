"""Child processes: started, killed, started again, and all gone at the end, however it ends."""

import asyncio
import os
import signal
import socket
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

START_TIME_LIMIT_S: Final = 30.0
STOP_TIME_LIMIT_S: Final = 5.0
LINE_TIME_LIMIT_S: Final = 20.0
POLL_S: Final = 0.02
LOG_TAIL_CHARACTERS: Final = 2_000

ROOT: Final = Path(__file__).resolve().parents[2]


class DemoError(Exception):
    """Something did not go as this demo promises."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """What is needed to start a process, and to start it again."""

    name: str
    address: str
    arguments: Sequence[str]
    environment: Mapping[str, str]


class Processes:
    """Owns the child processes. Leaving it stops them all: asked first, then killed, always waited for."""

    def __init__(self, log_folder: Path) -> None:
        self._log_folder: Final = log_folder
        self._running: Final[dict[str, tuple[Program, asyncio.subprocess.Process]]] = {}

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None) -> None:
        # Shielded: a second Ctrl-C must not leave half of them behind.
        await asyncio.shield(self._stop_all())

    async def start(self, program: Program) -> None:
        """Starts it and waits until its health service says SERVING."""
        with self.log_of(program.name).open("ab") as log:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                *program.arguments,
                cwd=ROOT,
                env=_environment(program.environment),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                # A group of its own: Ctrl-C reaches only us, and we end them in order.
                start_new_session=True,
            )
        self._running[program.name] = program, process
        await self._wait_until_serving(program, process)

    async def kill(self, name: str) -> Program:
        """SIGKILL: no last word, no clean-up. Returns what to start it again with."""
        program, process = self._running.pop(name)
        process.kill()
        await process.wait()
        return program

    def log_of(self, name: str) -> Path:
        """Where its output goes."""
        return self._log_folder / f"{name}.log"

    async def wait_for_line(self, name: str, text: str) -> None:
        """Waits until the process has logged that text."""
        try:
            async with asyncio.timeout(LINE_TIME_LIMIT_S):
                while not self._has_logged(name, text):  # noqa: ASYNC110 - a file of another process wakes nobody
                    await asyncio.sleep(POLL_S)
        except TimeoutError as error:
            raise DemoError(f"{name} did not log {text!r} within {LINE_TIME_LIMIT_S:g} s{self._tail(name)}") from error

    async def _wait_until_serving(self, program: Program, process: asyncio.subprocess.Process) -> None:
        try:
            async with asyncio.timeout(START_TIME_LIMIT_S), grpc.aio.insecure_channel(program.address) as channel:
                while not await _is_serving(channel):
                    if process.returncode is not None:
                        raise DemoError(f"{program.name} ended with {process.returncode}{self._tail(program.name)}")
                    await asyncio.sleep(POLL_S)
        except TimeoutError as error:
            raise DemoError(f"{program.name} does not serve after {START_TIME_LIMIT_S:g} s{self._tail(program.name)}") from error

    async def _stop_all(self) -> None:
        processes = [process for _, process in self._running.values() if process.returncode is None]
        self._running.clear()
        for process in processes:
            process.send_signal(signal.SIGTERM)
        if not processes:
            return
        _, stubborn = await asyncio.wait([asyncio.ensure_future(process.wait()) for process in processes], timeout=STOP_TIME_LIMIT_S)
        for process in processes:
            if process.returncode is None:
                process.kill()
        if stubborn:
            await asyncio.wait(stubborn)

    def _has_logged(self, name: str, text: str) -> bool:
        return text in self.log_of(name).read_text(encoding="utf-8", errors="replace")

    def _tail(self, name: str) -> str:
        return "; its log ends:\n" + self.log_of(name).read_text(encoding="utf-8", errors="replace")[-LOG_TAIL_CHARACTERS:]


async def _is_serving(channel: grpc.aio.Channel) -> bool:
    try:
        answer = await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=1, wait_for_ready=False)
    except grpc.aio.AioRpcError:
        return False
    return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)


def _environment(own: Mapping[str, str]) -> dict[str, str]:
    # Nothing of the caller's own coordinator or shop; everything else, OTEL_… above all, goes on to the children.
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("SAGA_", "SHOP_"))}
    return inherited | dict(own)


def find_free_addresses(count: int) -> list[str]:
    """Addresses of ports that nobody listens on now. Held until all are found, so that they differ."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [f"127.0.0.1:{each.getsockname()[1]}" for each in sockets]
    finally:
        for each in sockets:
            each.close()
