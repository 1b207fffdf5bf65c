"""The disk of the coordinator is full while sagas run: it goes on reading, refuses what is new, and goes on by itself when there is space.

The disk is a small file system of its own where one can be mounted; elsewhere no file of the coordinator may grow.
"""

import asyncio
import errno
import os
import resource
import sqlite3
import subprocess
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from typing import Final

import grpc
import pytest
from google.protobuf.wrappers_pb2 import StringValue

from participant_sdk import SagaClient
from participant_sdk.rpc_errors import error_reason, from_rpc_error
from saga.v1 import coordinator_pb2, coordinator_pb2_grpc, saga_pb2
from tests.integration.definitions import plain
from tests.participants import Gate, PlainParticipant, register, serving, text
from tests.processes import CoordinatorProcess

SAGAS: Final = 60
DISK_BYTES: Final = 8 * 1024 * 1024
STARTS_MAX: Final = 500
"""So many fit into what a full disk has left at most: the last page of the write-ahead log."""
X: Final = StringValue(value="x")


class SmallDisk:
    """Where the coordinator keeps its database."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        directory.mkdir()
        mount = ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "tmpfs", str(directory)]
        try:
            self.is_mounted = subprocess.run(mount, capture_output=True, check=False).returncode == 0
        except FileNotFoundError:
            self.is_mounted = False
        self._ballast = directory / "ballast"
        self._limits = resource.getrlimit(resource.RLIMIT_FSIZE)

    def fill(self, coordinator: CoordinatorProcess) -> None:
        if not self.is_mounted:
            largest = max(Path(f"{coordinator.database}{suffix}").stat().st_size for suffix in ("", "-wal"))
            resource.prlimit(coordinator.pid, resource.RLIMIT_FSIZE, (largest, self._limits[1]))
            return
        with pytest.raises(OSError, match=os.strerror(errno.ENOSPC)):
            self._ballast.write_bytes(bytes(DISK_BYTES))  # more than there is room for

    def free(self, coordinator: CoordinatorProcess) -> None:
        if self.is_mounted:
            self._ballast.unlink()
        else:
            resource.prlimit(coordinator.pid, resource.RLIMIT_FSIZE, self._limits)

    def close(self) -> None:
        if self.is_mounted:
            subprocess.run(["umount", "--lazy", str(self.directory)], check=True)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[SmallDisk]:
    small = SmallDisk(tmp_path / "disk")
    yield small
    small.close()


async def start_until_refused(address: str) -> grpc.aio.AioRpcError:
    request = coordinator_pb2.StartSagaRequest(definition=saga_pb2.DefinitionReference(name="s"), input=text("new"))
    async with grpc.aio.insecure_channel(address) as channel:
        stub = coordinator_pb2_grpc.SagaServiceStub(channel)
        for _ in range(STARTS_MAX):
            try:
                await stub.StartSaga(request, timeout=30)
            except grpc.aio.AioRpcError as error:
                return error
    raise AssertionError("the disk is not full")


@pytest.mark.full
async def test_full_disk_under_many_sagas_refuses_reads_and_goes_on(disk: SmallDisk) -> None:  # P1, R25
    participant, gate = PlainParticipant(), Gate()
    participant.on_execute["plain.a"] = gate
    with CoordinatorProcess(disk.directory) as coordinator:
        await coordinator.start()
        async with serving(participant) as target, SagaClient(coordinator.address) as client:
            await register(coordinator.address, target, "plain", "a", "b")
            await client.register(plain("s", "a", "b"))
            handles = [await client.start("s", X) for _ in range(SAGAS)]
            await participant.arrived["plain.a"].wait()
            disk.fill(coordinator)
            refused = await start_until_refused(coordinator.address)
            assert refused.code() == grpc.StatusCode.UNAVAILABLE
            assert error_reason(from_rpc_error(refused)) == "JOURNAL_UNAVAILABLE"
            gate.open.set()
            for handle in handles[:: SAGAS // 5]:
                assert (await handle.get()).status == saga_pb2.SAGA_STATUS_RUNNING
            assert participant.executed("plain.b") == []  # nothing goes on that is not committed
            disk.free(coordinator)
            ends = await asyncio.gather(*(handle.wait(timeout=timedelta(seconds=60)) for handle in handles))
            coordinator.kill()
            await coordinator.start()
            assert [(await handle.get()).status for handle in handles] == [end.status for end in ends]
        assert {end.status for end in ends} == {saga_pb2.SAGA_STATUS_COMPLETED}
        assert coordinator.terminate() == 0
    mine = {handle.id for handle in handles}
    for action in ("plain.a", "plain.b"):
        calls = Counter(request.saga_id for request in participant.executed(action) if request.saga_id in mine)
        assert calls == dict.fromkeys(mine, 1)
    with closing(sqlite3.connect(disk.directory / "saga.db")) as database:
        assert database.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


@pytest.mark.full
async def test_coordinator_killed_on_a_full_disk_starts_when_there_is_space(disk: SmallDisk) -> None:
    participant = PlainParticipant()
    with CoordinatorProcess(disk.directory) as coordinator:
        await coordinator.start()
        async with serving(participant) as target, SagaClient(coordinator.address) as client:
            await register(coordinator.address, target, "plain", "a")
            await client.register(plain("s", "a"))
            disk.fill(coordinator)
            await start_until_refused(coordinator.address)
            coordinator.kill()
            if disk.is_mounted:
                await coordinator.start(wait=False)
                assert await coordinator.wait() == 2
                assert "free some space" in coordinator.log.splitlines()[-1]
                disk.free(coordinator)
            await coordinator.start()
            handle = await client.start("s", X)
            assert (await handle.wait(timeout=timedelta(seconds=60))).status == saga_pb2.SAGA_STATUS_COMPLETED
