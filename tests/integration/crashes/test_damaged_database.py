"""Files of the database are truncated, overwritten or deleted under a running coordinator: it dies and says why, nothing is told that
is not kept, and none begins anew on what is left.
"""

import os
import sqlite3
from collections.abc import Awaitable, Callable
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import grpc
import pytest
from google.protobuf.wrappers_pb2 import StringValue

from participant_sdk import SagaClient, SagaHandle
from participant_sdk.client import CoordinatorError
from saga.v1 import coordinator_pb2, coordinator_pb2_grpc, saga_pb2
from tests.integration.definitions import plain
from tests.participants import text
from tests.processes import CoordinatorProcess

pytestmark = pytest.mark.full

X = StringValue(value="x" * 500)
Damage = Callable[[Path], None]


def truncate(database: Path, share: float) -> None:
    os.truncate(database, int(database.stat().st_size * share) // 4096 * 4096)


def overwrite(database: Path) -> None:
    with database.open("r+b") as file:
        file.write(os.urandom(database.stat().st_size))


def log_of(database: Path) -> Path:
    return database.with_name(database.name + "-wal")


DAMAGES: dict[str, Damage] = {
    "emptied": lambda database: truncate(database, 0),
    "half": lambda database: truncate(database, 0.5),
    "garbage": overwrite,
    "log-deleted": lambda database: log_of(database).unlink(),
    "log-emptied": lambda database: os.truncate(log_of(database), 0),
}
FAST = {"half", "garbage"}


async def start_some(client: SagaClient, count: int) -> list[SagaHandle]:
    """Sagas that do nothing for now: this is about what is kept of them."""
    later = datetime.now(UTC) + timedelta(days=1)
    return [await client.start("s", X, start_at=later) for _ in range(count)]


async def start_fails(address: str) -> None:
    request = coordinator_pb2.StartSagaRequest(definition=saga_pb2.DefinitionReference(name="s"), input=text("new"))
    async with grpc.aio.insecure_channel(address) as channel:
        with pytest.raises(grpc.aio.AioRpcError):
            await coordinator_pb2_grpc.SagaServiceStub(channel).StartSaga(request, timeout=30)


async def read_fails(address: str, handle: SagaHandle) -> None:
    async with SagaClient(address, timeout=timedelta(seconds=1)) as client:
        with pytest.raises(CoordinatorError):
            await client.get(handle.id)


def last_words(coordinator: CoordinatorProcess) -> str:
    """The line that says why it ends."""
    return [line for line in coordinator.log.splitlines() if '"CRITICAL"' in line][-1]


async def filled(coordinator: CoordinatorProcess) -> list[SagaHandle]:
    """A running coordinator with sagas in its database and in the log beside it."""
    await coordinator.start()
    async with SagaClient(coordinator.address) as client:
        await client.register(plain("s", "a"))
        handles = await start_some(client, 60)
        coordinator.terminate()
        await coordinator.start()
        return handles + await start_some(client, 3)


async def dies_and_stays_dead(coordinator: CoordinatorProcess, ask: Callable[[], Awaitable[None]]) -> None:
    await ask()
    assert await coordinator.wait() == 1
    said = last_words(coordinator)
    assert str(coordinator.database) in said
    assert "put a backup in their place" in said
    await coordinator.start(wait=False)
    assert await coordinator.wait() == 2
    assert "cannot start" in coordinator.log.splitlines()[-1]
    assert "put a backup in their place" in coordinator.log.splitlines()[-1]


@pytest.mark.parametrize("damage", [name if name in FAST else pytest.param(name, marks=pytest.mark.full) for name in DAMAGES])
async def test_damaged_files_are_a_clear_death_and_no_new_beginning(tmp_path: Path, damage: str) -> None:  # R32, P1
    with CoordinatorProcess(tmp_path) as coordinator:
        await filled(coordinator)
        DAMAGES[damage](coordinator.database)
        await dies_and_stays_dead(coordinator, lambda: start_fails(coordinator.address))


async def test_damage_is_found_by_reading_too(tmp_path: Path) -> None:
    with CoordinatorProcess(tmp_path) as coordinator:
        handles = await filled(coordinator)
        overwrite(coordinator.database)
        await dies_and_stays_dead(coordinator, lambda: read_fails(coordinator.address, handles[0]))


async def test_deleted_or_emptied_database_does_not_come_back_empty(tmp_path: Path) -> None:  # R32
    """A supervisor starts the coordinator again; it must not begin anew while participants and clients remember sagas."""
    with CoordinatorProcess(tmp_path) as coordinator:
        await filled(coordinator)
        coordinator.kill()
        kept = coordinator.database.read_bytes()
        coordinator.database.unlink()
        for found in ("missing", "empty"):
            await coordinator.start(wait=False)
            assert await coordinator.wait() == 2
            said = coordinator.log.splitlines()[-1]
            assert f"{coordinator.database} is {found}" in said
            assert "put a backup in their place" in said
            coordinator.database.touch()
        coordinator.database.write_bytes(kept)
        await coordinator.start()


async def test_harmless_writes_of_others_are_looked_at_and_go_on(tmp_path: Path) -> None:
    """A checkpoint by hand, for example: the files change, and nothing is lost."""
    with CoordinatorProcess(tmp_path) as coordinator:
        handles = await filled(coordinator)
        with closing(sqlite3.connect(coordinator.database)) as other:
            other.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        async with SagaClient(coordinator.address) as client:
            handles += await start_some(client, 1)
            coordinator.kill()
            await coordinator.start()
            for handle in (handles[0], handles[-1]):
                assert (await client.get(handle.id)).id == handle.id
        assert "another program has written to the database" in coordinator.log
