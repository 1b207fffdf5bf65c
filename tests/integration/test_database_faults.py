"""The database is locked, full, gone, or not ours, under a coordinator that is a process of its own."""

import asyncio
import resource
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import grpc
import pytest
from google.protobuf.wrappers_pb2 import StringValue

from participant_sdk import SagaClient
from participant_sdk.rpc_errors import error_reason, from_rpc_error
from saga.v1 import coordinator_pb2, coordinator_pb2_grpc, saga_pb2
from tests.integration.definitions import plain
from tests.participants import Gate, PlainParticipant, register, serving, text
from tests.processes import ROOT, CoordinatorProcess, free_port, python_environment

pytestmark = pytest.mark.full

X = StringValue(value="x")
COMPLETED = saga_pb2.SAGA_STATUS_COMPLETED


@pytest.fixture
def coordinator(tmp_path: Path) -> Iterator[CoordinatorProcess]:
    with CoordinatorProcess(tmp_path) as process:
        yield process


async def start_is_unavailable(address: str) -> None:
    request = coordinator_pb2.StartSagaRequest(definition=saga_pb2.DefinitionReference(name="s"), input=text("new"))
    async with grpc.aio.insecure_channel(address) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await coordinator_pb2_grpc.SagaServiceStub(channel).StartSaga(request, timeout=30)
    assert caught.value.code() == grpc.StatusCode.UNAVAILABLE
    assert error_reason(from_rpc_error(caught.value)) == "JOURNAL_UNAVAILABLE"


async def test_locked_database_makes_sagas_wait_and_go_on(coordinator: CoordinatorProcess) -> None:
    participant, gate = PlainParticipant(), Gate()
    participant.on_execute["plain.a"] = gate
    await coordinator.start()
    async with serving(participant) as target, SagaClient(coordinator.address) as client:
        await register(coordinator.address, target, "plain", "a", "b")
        await client.register(plain("s", "a", "b"))
        handle = await client.start("s", X)
        await participant.arrived["plain.a"].wait()
        with closing(sqlite3.connect(coordinator.database, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            gate.open.set()
            await start_is_unavailable(coordinator.address)
            assert participant.executed("plain.b") == []  # nothing is released that is not committed
            assert (await handle.get()).steps[0].status == saga_pb2.STEP_STATUS_EXECUTING  # and nothing announced (R25)
            other.execute("ROLLBACK")
        saga = await handle.wait(timeout=timedelta(seconds=30))
    assert saga.status == COMPLETED
    assert len([request for request in participant.executed("plain.a") if request.saga_id == saga.id]) == 1


async def test_full_disk_makes_sagas_wait_and_go_on(coordinator: CoordinatorProcess) -> None:
    participant, gate = PlainParticipant(), Gate()
    participant.on_execute["plain.a"] = gate
    await coordinator.start()
    async with serving(participant) as target, SagaClient(coordinator.address) as client:
        await register(coordinator.address, target, "plain", "a", "b")
        await client.register(plain("s", "a", "b"))
        handle = await client.start("s", X)
        await participant.arrived["plain.a"].wait()
        limits = resource.prlimit(coordinator.pid, resource.RLIMIT_FSIZE)
        full_at = max(Path(f"{coordinator.database}{suffix}").stat().st_size for suffix in ("", "-wal"))
        resource.prlimit(coordinator.pid, resource.RLIMIT_FSIZE, (full_at, limits[1]))
        gate.open.set()
        await start_is_unavailable(coordinator.address)
        assert participant.executed("plain.b") == []
        resource.prlimit(coordinator.pid, resource.RLIMIT_FSIZE, limits)
        saga = await handle.wait(timeout=timedelta(seconds=30))
    assert saga.status == COMPLETED
    assert len([request for request in participant.executed("plain.a") if request.saga_id == saga.id]) == 1


@pytest.mark.parametrize("replaced", [False, True])
async def test_deleted_or_replaced_database_is_a_clear_death(coordinator: CoordinatorProcess, replaced: bool) -> None:  # R32
    await coordinator.start()
    async with SagaClient(coordinator.address) as client:
        await client.register(plain("s", "a"))
    coordinator.database.unlink()
    if replaced:
        coordinator.database.touch()
    request = coordinator_pb2.StartSagaRequest(definition=saga_pb2.DefinitionReference(name="s"), input=text("new"))
    async with grpc.aio.insecure_channel(coordinator.address) as channel:
        with pytest.raises(grpc.aio.AioRpcError):
            await coordinator_pb2_grpc.SagaServiceStub(channel).StartSaga(request, timeout=30)
    assert await coordinator.wait() == 1
    assert "stopping" in coordinator.log


def run_to_end(directory: Path, database: Path, *, full: bool = False) -> subprocess.CompletedProcess[str]:
    """`saga serve` that is expected to end by itself."""
    command = [sys.executable, "-m", "coordinator", "serve", "--address", f"127.0.0.1:{free_port()}", "--database", str(database)]

    def no_space() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (512, 512))

    return subprocess.run(
        command,
        cwd=ROOT,
        env=python_environment(),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        preexec_fn=no_space if full else None,
    )


async def test_second_coordinator_on_one_database_is_refused(coordinator: CoordinatorProcess, tmp_path: Path) -> None:  # R32
    await coordinator.start()
    ended = await asyncio.to_thread(run_to_end, tmp_path, coordinator.database)
    assert ended.returncode == 2
    assert "cannot start" in ended.stderr
    assert str(coordinator.pid) in ended.stderr


async def test_restart_after_a_kill_is_immediate(coordinator: CoordinatorProcess) -> None:  # R32
    await coordinator.start()
    coordinator.kill()
    await coordinator.start()
    assert coordinator.terminate() == 0


@pytest.mark.parametrize("content", [b"this is no database at all" * 100, b"SQLite format 3\0" + b"\xff" * 4000])
async def test_file_that_is_no_database_is_refused(tmp_path: Path, content: bytes) -> None:
    database = tmp_path / "saga.db"
    database.write_bytes(content)
    ended = await asyncio.to_thread(run_to_end, tmp_path, database)
    assert ended.returncode == 2
    assert "cannot open the journal" in ended.stderr
    assert database.read_bytes() == content


async def test_full_disk_at_start_is_refused(tmp_path: Path) -> None:
    ended = await asyncio.to_thread(run_to_end, tmp_path, tmp_path / "saga.db", full=True)
    assert ended.returncode == 2
    assert "cannot open the journal" in ended.stderr


async def test_missing_directory_is_refused(tmp_path: Path) -> None:
    ended = await asyncio.to_thread(run_to_end, tmp_path, tmp_path / "nowhere" / "saga.db")
    assert ended.returncode == 2
    assert "nowhere" in ended.stderr


async def test_saga_whose_journal_cannot_be_read_is_set_aside_alone(coordinator: CoordinatorProcess) -> None:  # P5, R28
    await coordinator.start()
    async with SagaClient(coordinator.address) as client:
        await client.register(plain("s", "a"))
        later = datetime.now(UTC) + timedelta(seconds=50)  # too soon to be put to sleep
        broken, sound = await client.start("s", X, start_at=later), await client.start("s", X, start_at=later)
        coordinator.terminate()
        with closing(sqlite3.connect(coordinator.database)) as database, database:
            database.execute("UPDATE event SET payload = x'ff' WHERE saga_id = ?", (broken.id,))
        await coordinator.start()
        saga = await broken.get()
        assert [incident.kind for incident in saga.incidents] == [saga_pb2.INCIDENT_KIND_QUARANTINED]
        assert saga.status == saga_pb2.SAGA_STATUS_PENDING
        await sound.cancel()
        assert (await sound.wait(timeout=timedelta(seconds=20))).status == saga_pb2.SAGA_STATUS_COMPENSATED
        assert broken.id in coordinator.log
