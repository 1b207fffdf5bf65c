"""Anybody who speaks gRPC can take part: a reflection client, and a participant written with plain stubs."""

import asyncio
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from google.protobuf.wrappers_pb2 import StringValue

from participant_sdk.ids import new_saga_id
from saga.v1 import saga_pb2
from tests.integration.conftest import Running
from tests.integration.definitions import plain
from tests.participants import PlainParticipant, register, serving

BUF = shutil.which("buf") or str(Path(sys.executable).parent / "buf")


async def buf_curl(address: str, method: str, request: dict[str, object]) -> dict[str, object]:
    command = [BUF, "curl", "--http2-prior-knowledge", "--protocol", "grpc", "--data", json.dumps(request)]
    command.append(f"http://{address}/saga.v1.SagaService/{method}")
    done = await asyncio.to_thread(subprocess.run, command, capture_output=True, check=False, timeout=30)
    assert done.returncode == 0, done.stderr.decode()
    answer: dict[str, object] = json.loads(done.stdout)
    return answer


async def test_reflection_client_lists_starts_and_reads_a_saga(running: Running) -> None:  # E11
    if not Path(BUF).exists():
        pytest.fail("buf is needed: it is one of the development dependencies")
    async with serving(PlainParticipant()) as target:
        await register(running.address, target, "plain", "act")
        await running.client.register(plain("s", "act"))
        saga_id = new_saga_id()
        given = {"@type": "type.googleapis.com/google.protobuf.StringValue", "value": "by hand"}
        started = await buf_curl(
            running.address, "StartSaga", {"sagaId": saga_id, "definition": {"name": "s"}, "input": given, "wait": True}
        )
        read = await buf_curl(running.address, "GetSaga", {"sagaId": saga_id})
        listed = await buf_curl(running.address, "ListSagas", {"definitionName": "s"})
    assert started["created"] is True
    saga = read["saga"]
    assert isinstance(saga, dict)
    assert (saga["id"], saga["status"], saga["input"]) == (saga_id, "SAGA_STATUS_COMPLETED", given)
    sagas = listed["sagas"]
    assert isinstance(sagas, list)
    assert [entry["id"] for entry in sagas] == [saga_id]


async def test_participant_without_the_sdk_works(running: Running) -> None:  # C10
    participant = PlainParticipant()
    async with serving(participant) as target:
        await register(running.address, target, "plain", "reserve", "charge")
        await running.client.register(plain("s", "reserve", "charge"))
        saga = await running.client.run("s", StringValue(value="x"))
    assert saga.status == saga_pb2.SAGA_STATUS_COMPLETED
    reserve, charge = participant.executions
    assert (reserve.saga_id, reserve.step_id, reserve.action) == (saga.id, "reserve", "plain.reserve")
    assert (reserve.key, charge.key) == (f"{saga.id}/reserve/execute/1", f"{saga.id}/charge/execute/1")  # R1
    assert StringValue.FromString(reserve.input.value) == StringValue(value="x")
    assert 0 < reserve.time_left.ToMilliseconds() <= 10_000  # B7
