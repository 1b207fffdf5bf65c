"""Web shops as processes, which tests may kill, and what they did."""

import asyncio
import json
import signal
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import Final, Protocol

import httpx
import pytest

from tests.fork_server import FORK_SERVER, ForkedProcess
from tests.integration.idempotency.shop import Options
from tests.processes import EXIT_TIMEOUT_S, READY_TIMEOUT_S, ROOT, free_port, python_environment

CLIENTS: Final = 200
WAIT_S: Final = 60.0
_LIMITS: Final = httpx.Limits(max_connections=CLIENTS)


class ShopProcess:
    """One process of the shop."""

    def __init__(self, folder: Path, options: Options) -> None:
        self.options = options
        self.url = f"http://127.0.0.1:{options.port}"
        self._log = folder / f"shop-{options.port}.log"
        self._process: ForkedProcess | None = None

    async def start(self) -> None:
        arguments = [json.dumps(asdict(self.options))]
        module = "tests.integration.idempotency.shop"
        self._process = FORK_SERVER.spawn(module, arguments, log=self._log, environment=python_environment(), directory=ROOT)
        async with asyncio.timeout(READY_TIMEOUT_S), httpx.AsyncClient() as client:
            while True:
                assert self._process.poll() is None, self._log.read_text()
                with suppress(httpx.TransportError):
                    await client.get(self.url)
                    return
                await asyncio.sleep(0.02)

    def end(self, number: signal.Signals = signal.SIGKILL) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.send_signal(number)
            process.wait(EXIT_TIMEOUT_S)

    def send_signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    def client(self) -> httpx.AsyncClient:
        return httpx.AsyncClient(base_url=self.url, timeout=WAIT_S, limits=_LIMITS)

    @property
    def effects(self) -> list[str]:
        """The lines of the ledger."""
        ledger = Path(self.options.ledger)
        return ledger.read_text().splitlines() if ledger.exists() else []

    async def wait_effects(self, count: int) -> list[str]:
        """Waits for that many lines."""
        async with asyncio.timeout(WAIT_S):
            while len(self.effects) < count:
                await asyncio.sleep(0.01)
        return self.effects


class Shops(Protocol):
    """Starts processes of one shop: with one ledger."""

    async def __call__(self, **options: object) -> ShopProcess: ...


@pytest.fixture
def shops(tmp_path: Path) -> Iterator[Shops]:
    started: list[ShopProcess] = []

    async def start(**options: object) -> ShopProcess:
        made = replace(Options(port=free_port(), ledger=str(tmp_path / "ledger")), **options)  # type: ignore[arg-type]
        started.append(ShopProcess(tmp_path, made))
        await started[-1].start()
        return started[-1]

    yield start
    for each in started:
        each.end()


@pytest.fixture(scope="module")
def shared_shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ShopProcess]:
    folder = tmp_path_factory.mktemp("shop")
    shop = ShopProcess(folder, Options(port=free_port(), ledger=str(folder / "ledger")))
    asyncio.run(shop.start())
    yield shop
    shop.end()


@pytest.fixture
async def shop(shared_shop: ShopProcess, client: httpx.AsyncClient) -> ShopProcess:
    """One that remembers in its memory, with an empty ledger and its gate closed."""
    Path(shared_shop.options.ledger).unlink(missing_ok=True)
    await client.get("/close")
    return shared_shop


@pytest.fixture
async def client(shared_shop: ShopProcess) -> AsyncIterator[httpx.AsyncClient]:
    """A client who is a tenant of its own."""
    async with shared_shop.client() as client:
        client.headers["x-user"] = uuid.uuid4().hex
        yield client
