"""The command `saga` against a real coordinator: every command, for people and for machines."""

import asyncio
import json
import subprocess
import sys
from pathlib import Path

from google.protobuf import json_format

from saga.v1 import coordinator_pb2
from tests.integration.conftest import Running
from tests.integration.definitions import plain
from tests.participants import Gate, PlainParticipant, register, serving
from tests.processes import ROOT, python_environment


async def saga(address: str, *arguments: str, code: int = 0) -> str:
    """Runs the command; returns what it printed."""
    command = [sys.executable, "-m", "coordinator", *arguments]
    environment = python_environment({"SAGA_ADDRESS": address, "COLUMNS": "120"})
    ended = await asyncio.to_thread(
        subprocess.run, command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert ended.returncode == code, ended.stderr
    return ended.stdout


def definition_file(directory: Path) -> Path:
    """A definition with its descriptors, as JSON."""
    made = plain("by-hand", "a", "b")
    request = coordinator_pb2.RegisterDefinitionRequest(definition=made.definition(), descriptors=made.descriptors())
    file = directory / "by-hand.json"
    file.write_text(json_format.MessageToJson(request))
    return file


async def test_saga_is_registered_started_and_followed_from_the_command_line(running: Running, tmp_path: Path) -> None:  # E1
    async with serving(PlainParticipant()) as target:
        await register(running.address, target, "plain", "a", "b")
        await saga(running.address, "register", str(definition_file(tmp_path)))
        lines = (await saga(running.address, "start", "by-hand", "--input", '"hello"', "--wait", "--json")).splitlines()
        started, ended = (json.loads(line) for line in lines)
        saga_id = started["id"]
        assert ended["saga"]["status"] == "SAGA_STATUS_COMPLETED"
        shown = await saga(running.address, "show", saga_id)
        assert saga_id in shown
        assert "COMPLETED" in shown
        assert saga_id in await saga(running.address, "list")
        events = [json.loads(line) for line in (await saga(running.address, "watch", saga_id, "--json")).splitlines()]
    assert len(events) == 4
    assert "by-hand" in await saga(running.address, "definitions")


async def test_saga_is_cancelled_from_the_command_line(running: Running, tmp_path: Path) -> None:  # E1, B11
    participant, gate = PlainParticipant(), Gate()
    participant.on_execute["plain.b"] = gate
    async with serving(participant) as target:
        await register(running.address, target, "plain", "a", "b")
        await saga(running.address, "register", str(definition_file(tmp_path)))
        started = json.loads(await saga(running.address, "start", "by-hand", "--input", '"hello"', "--json"))
        await participant.arrived["plain.b"].wait()
        await saga(running.address, "cancel", started["id"], "--reason", "changed my mind")
        gate.open.set()
        await saga(running.address, "watch", started["id"], code=1)  # it ended, and not completed
    assert [request.step_id for request in participant.compensations] == ["b", "a"]


async def test_command_says_what_is_wrong_by_exit_code(running: Running) -> None:
    await saga(running.address, "start", "nobody-knows", "--input", "{}", code=4)
    await saga("127.0.0.1:1", "list", "--timeout", "1", code=3)
    await saga(running.address, "start", code=2)
