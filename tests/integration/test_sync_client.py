"""Programs that block: killed coordinators, an interrupt while they wait, a fork, and an end without closing."""

import asyncio
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from google.protobuf.wrappers_pb2 import StringValue

from participant_sdk import ParticipantServer
from participant_sdk.client import SyncSagaClient
from saga.v1 import coordinator_pb2
from tests.integration.conftest import Running
from tests.integration.definitions import plain, three_steps
from tests.participants import bookkeeper
from tests.processes import ROOT, CoordinatorProcess, python_environment
from tests.unit.client.fake_coordinator import FakeCoordinator, served

TIME_LIMIT_S = 60

WAITS = """
import sys
from google.protobuf.wrappers_pb2 import StringValue
from participant_sdk.client import SyncSagaClient

with SyncSagaClient(sys.argv[1]) as client:
    handle = client.start("s", StringValue(value="x"))
    try:
        handle.result()
    except KeyboardInterrupt:
        print("interrupted", client.get(handle.id).id == handle.id, flush=True)
"""

FORKS = """
import os, sys
from google.protobuf.wrappers_pb2 import StringValue
from participant_sdk.client import SyncSagaClient

client = SyncSagaClient(sys.argv[1])
handle = client.start("s", StringValue(value="x"))
child = os.fork()
if child == 0:
    try:
        client.get(handle.id)
    except RuntimeError as error:
        print(error, flush=True)
    client.close()
    os._exit(7)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), client.get(handle.id).id == handle.id, flush=True)
client.close()
"""

FORGETS = """
import sys
from google.protobuf.wrappers_pb2 import StringValue
from participant_sdk.client import SyncSagaClient

client = SyncSagaClient(sys.argv[1])
client.start("s", StringValue(value="x"))
events = client.watch(client.start("s", StringValue(value="x")).id)
next(events)
print("done", flush=True)
"""


@pytest.fixture
async def address(running: Running) -> str:
    """Where sagas begin and never end: nobody serves their step."""
    await running.client.register(plain("s", "a"))
    return running.address


async def _ended(code: str, address: str, *flags: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, *flags, "-c", code, address]
    return await asyncio.to_thread(
        subprocess.run, command, cwd=ROOT, env=python_environment(), capture_output=True, text=True, timeout=TIME_LIMIT_S, check=False
    )


async def test_result_waits_across_a_kill_of_the_coordinator(tmp_path: Path) -> None:  # P1, H2
    echo = three_steps()
    typed = echo.returns(echo.input)
    started = asyncio.Event()
    loop = asyncio.get_running_loop()

    def work(address: str) -> str:
        with SyncSagaClient(address) as client:
            client.register(typed)
            handle = client.start(typed, StringValue(value="go"))
            loop.call_soon_threadsafe(started.set)
            return handle.result().value

    with CoordinatorProcess(tmp_path) as coordinator:
        await coordinator.start()
        working = asyncio.ensure_future(asyncio.to_thread(work, coordinator.address))
        await started.wait()
        coordinator.kill()
        await coordinator.start()
        async with bookkeeper(tmp_path) as keeper, ParticipantServer(keeper, coordinator=coordinator.address):
            assert await working == "go"


async def test_interrupt_ends_the_waiting_and_the_client_goes_on() -> None:
    coordinator = FakeCoordinator()
    async with served(coordinator) as address, asyncio.timeout(TIME_LIMIT_S):
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", WAITS, address, cwd=ROOT, env=python_environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        try:
            await coordinator.wait_for(coordinator_pb2.WatchSagaRequest)
            process.send_signal(signal.SIGINT)
            told, errors = await process.communicate()
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
    assert (process.returncode, told.decode(), errors.decode()) == (0, "interrupted True\n", "")


async def test_client_of_another_process_is_refused_after_a_fork(address: str) -> None:
    ended = await _ended(FORKS, address)
    assert ended.returncode == 0, ended.stderr
    told, parent = ended.stdout.splitlines()
    assert "made in another process, before a fork; make a new one in each process" in told
    assert parent == "7 True"


async def test_forgotten_client_warns_at_the_end_of_the_process_and_does_not_hang(address: str) -> None:
    ended = await _ended(FORGETS, address, "-W", "always::ResourceWarning")
    assert (ended.returncode, ended.stdout) == (0, "done\n"), ended.stderr
    assert "ResourceWarning: unclosed SyncSagaClient: use it with `with`, or call close()" in ended.stderr
    assert "Traceback" not in ended.stderr
