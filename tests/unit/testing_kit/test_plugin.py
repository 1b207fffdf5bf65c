"""The pytest plugin: async tests run in virtual time, whatever else is installed."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.processes import python_environment

TESTS = """
import asyncio, time
from datetime import timedelta
from google.protobuf.wrappers_pb2 import StringValue
from participant_sdk import Saga
from participant_sdk.testing import stubs_of

echo = Saga("echo", input=StringValue)
echo.step("parrot.say", request=StringValue, response=StringValue)

class TestClass:
    async def test_time_jumps(self, saga_kit):
        saga_kit.serve(*stubs_of(echo))
        (await saga_kit.run(echo, StringValue())).then_completed()
        await saga_kit.advance(timedelta(days=1))

async def test_that_fails(saga_kit):
    saga_kit.serve(*stubs_of(echo))
    run = await saga_kit.run(echo, StringValue())
    assert run.status == "COMPENSATED"

async def test_that_waits_for_ever(saga_kit):
    await asyncio.get_running_loop().create_future()

def test_plain():
    assert True
"""
MODES = [
    pytest.param(["-p", "no:asyncio"], id="without any other"),
    pytest.param(["-o", "asyncio_mode=strict"], id="asyncio strict", marks=pytest.mark.full),
    pytest.param(["-o", "asyncio_mode=auto"], id="asyncio auto", marks=pytest.mark.full),  # as in this very suite
]


@pytest.mark.parametrize("mode", MODES)
def test_async_tests_run_in_virtual_time(tmp_path: Path, mode: list[str]) -> None:
    (tmp_path / "test_echo.py").write_text(TESTS)
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "saga_pytest.plugin",
        "-p",
        "no:cacheprovider",
        "-W",
        "error",
        "-W",
        "ignore:The configuration option",
        *mode,
    ]
    done = subprocess.run(command, cwd=tmp_path, env=python_environment(), check=False, capture_output=True, text=True, timeout=60)
    assert "2 failed, 2 passed" in done.stdout, done.stdout + done.stderr
    assert "sagas of this test" in done.stdout
    assert "saga COMPLETED" in done.stdout
    assert "StandstillError: nothing will ever happen" in done.stdout
    assert "test_echo.py:23 in test_that_waits_for_ever" in done.stdout


def test_plugin_is_loaded_without_the_sdk() -> None:
    """Coverage is measured from when the tests begin: what a plugin has imported by then would be missing from it."""
    of_the_sdk = "[name for name in sys.modules if name.partition('.')[0] in ('participant_sdk', 'coordinator', 'grpc')]"
    seen = f"import sys, saga_pytest.plugin; print({of_the_sdk})"
    done = subprocess.run([sys.executable, "-c", seen], env=python_environment(), check=True, capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "[]"
