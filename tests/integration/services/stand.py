"""A warehouse and a coordinator that is told of it, each a process of its own."""

import asyncio
import signal
import sqlite3
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

from google.protobuf.message import Message

from participant_sdk import RetryPolicy, Saga, SagaClient, SagaHandle, StepDefaults
from tests.fork_server import FORK_SERVER, ForkedProcess
from tests.integration.definitions import QUICK
from tests.processes import EXIT_TIMEOUT_S, ROOT, CoordinatorProcess, free_port, python_environment, wait_until_serving
from tests.warehouse import RELEASE, RESERVE, message, message_class, warehouse_files

WAIT_S: Final = 30.0
A_MINUTE: Final = timedelta(minutes=1)
TWICE: Final = RetryPolicy(initial_backoff=timedelta(milliseconds=20), max_attempts=2)
COMPENSATE_INPUT: Final = (
    "known ? ReleaseRequest{reservation_id: output.reservation_id, order_id: input.order_id}"
    " : ReleaseRequest{reserve_key: call.execute_key, order_id: input.order_id}"
)
SETTINGS: Final = """
[participants.warehouse]
target = "{target}"
{more}
[participants.warehouse.actions.reserve]
execute = "{reserve}"
compensate = "{release}"
compensate_input = '''{compensate_input}'''
nothing_to_undo = ["NOT_FOUND"]
"""


@dataclass(frozen=True, slots=True)
class Call:
    """A call as the warehouse got it."""

    method: str
    metadata: dict[str, str]
    request: Message

    @property
    def key(self) -> str:
        return self.metadata["idempotency-key"]


class WarehouseProcess:
    """Started again and again on one address; its database stays."""

    def __init__(self, directory: Path) -> None:
        self.address = f"127.0.0.1:{free_port()}"
        self.directory = directory
        self._process: ForkedProcess | None = None

    async def start(self, *options: str) -> None:
        self._process = FORK_SERVER.spawn(
            "tests.integration.services.warehouse_process",
            [str(self.directory), self.address, *options],
            log=self.directory / "warehouse.log",
            environment=python_environment(),
            directory=ROOT,
        )
        await wait_until_serving(self.address, self._process)

    def kill(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.send_signal(signal.SIGKILL)
            process.wait(EXIT_TIMEOUT_S)

    def go(self) -> None:
        """Lets those go on that are held."""
        (self.directory / "go").touch()

    def calls(self, method: str) -> list[Call]:
        kind = message_class(f"{method}Request")
        rows = self._read("SELECT metadata, request FROM call WHERE method = ? ORDER BY position", method)
        return [Call(method, dict(line.split("=", 1) for line in metadata.splitlines()), kind.FromString(sent)) for metadata, sent in rows]

    def held(self) -> list[tuple[str, bool]]:
        """Every reservation that was ever made, as its sku and whether it is still held."""
        return [(sku, bool(is_held)) for sku, is_held in self._read("SELECT sku, is_held FROM reservation ORDER BY rowid")]

    def _read(self, query: str, *values: str) -> list[tuple[Any, ...]]:
        database = sqlite3.connect(self.directory / "warehouse.db", timeout=30)
        try:
            return database.execute(query, values).fetchall()
        finally:
            database.close()


@dataclass(frozen=True, slots=True)
class Stand:
    warehouse: WarehouseProcess
    coordinator: CoordinatorProcess
    client: SagaClient

    async def order(self, first: str, second: str = "pump") -> SagaHandle:
        """Starts the saga of `two_reservations`."""
        orders = [message("ReserveRequest", order_id="o-1", sku=sku, pieces=2) for sku in (first, second)]
        return await self.client.start("two-reservations", message("PlaceOrder", first=orders[0], second=orders[1]))


def two_reservations(*, execute_retry: RetryPolicy = QUICK) -> "Saga[Message]":
    saga: Saga[Message] = Saga(
        "two-reservations", input=message_class("PlaceOrder"), defaults=StepDefaults(attempt_timeout=timedelta(seconds=5))
    )
    for name in ("first", "second"):
        saga.step(
            "warehouse.reserve",
            f"input.{name}",
            id=name,
            request=message_class("ReserveRequest"),
            response=message_class("ReserveReply"),
            execute_retry=execute_retry,
            compensate_retry=QUICK,
        )
    return saga


@asynccontextmanager
async def services_stand(directory: Path, *options: str, settings: str = SETTINGS) -> AsyncIterator[Stand]:
    """`options`: of the warehouse; without "reflection" the coordinator gets its descriptors in a file."""
    warehouse, more = WarehouseProcess(directory), ""
    if "reflection" not in options:
        (directory / "warehouse.binpb").write_bytes(warehouse_files().SerializeToString())
        more = f'descriptors = "{directory / "warehouse.binpb"}"'
    text = settings.format(target=warehouse.address, more=more, reserve=RESERVE, release=RELEASE, compensate_input=COMPENSATE_INPUT)
    (directory / "saga.toml").write_text(text)
    async with AsyncExitStack() as stack:
        stack.callback(warehouse.kill)
        await warehouse.start(*options)
        coordinator = stack.enter_context(CoordinatorProcess(directory, environment={"SAGA_CONFIG": str(directory / "saga.toml")}))
        await coordinator.start()
        client = await stack.enter_async_context(SagaClient(coordinator.address))
        yield Stand(warehouse, coordinator, client)


async def wait_until(condition: Callable[[], bool]) -> None:
    """Returns when it is so."""
    async with asyncio.timeout(WAIT_S):
        while not condition():
            await asyncio.sleep(0.02)
