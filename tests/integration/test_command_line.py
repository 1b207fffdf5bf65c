"""The command `saga` against a real coordinator: every command, for people and for machines."""

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path

import grpc
import pytest
from click.testing import CliRunner
from google.protobuf import json_format
from google.protobuf.wrappers_pb2 import StringValue

from coordinator.cli.app import main
from participant_sdk import Saga, StepKind
from saga.v1 import coordinator_pb2, participant_pb2, saga_pb2
from tests.integration.conftest import Running
from tests.integration.definitions import QUICK, plain
from tests.participants import Context, Gate, PlainParticipant, register, serving
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


@pytest.mark.parametrize("options", [("--json",), ()], ids=["for programs", "for people"])
async def test_reader_that_has_seen_enough_is_no_error(running: Running, tmp_path: Path, options: tuple[str, ...]) -> None:
    await saga(running.address, "register", str(definition_file(tmp_path)))
    read, write = os.pipe()
    os.close(read)  # as `| head` does in the middle
    command = [sys.executable, "-m", "coordinator", "definitions", *options]
    environment = python_environment({"SAGA_ADDRESS": running.address})
    process = await asyncio.create_subprocess_exec(*command, cwd=ROOT, env=environment, stdout=write, stderr=subprocess.PIPE)
    os.close(write)
    _, said = await process.communicate()
    assert (process.returncode, said) == (141, b"")


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


WHY = ("--reason", "by hand", "--actor", "ann")


async def quick(address: str, *arguments: str, code: int = 0) -> str:
    """The same as `saga`, but in this process: starting Python takes longer than what most commands do."""
    environment = {"SAGA_ADDRESS": address, "COLUMNS": "120"}
    ended = await asyncio.to_thread(CliRunner().invoke, main, arguments, env=environment)
    assert ended.exit_code == code, ended.stderr
    return ended.stdout


async def started(running: Running, made: Saga[StringValue], *arguments: str) -> str:
    """Registers and starts a saga; its id."""
    await running.client.register(made)
    return str(json.loads(await quick(running.address, "start", made.name, "--input", '"hello"', "--json", *arguments))["id"])


async def until_failed(running: Running, saga_id: str) -> None:
    """Waits until a person is asked for the saga."""
    ended = await running.client.wait(saga_id)
    assert ended.status == saga_pb2.SAGA_STATUS_FAILED


async def refuse(request: participant_pb2.ExecuteRequest, context: Context) -> participant_pb2.ExecuteResponse:
    await context.abort(grpc.StatusCode.FAILED_PRECONDITION, "no")
    raise AssertionError("abort raises")


def must_succeed(name: str) -> Saga[StringValue]:
    """One step that a person is asked for when it is refused (R11)."""
    made = Saga(name, input=StringValue)
    made.step("plain.a", request=StringValue, response=StringValue, kind=StepKind.RETRIABLE, execute_retry=QUICK)
    return made


async def test_saga_is_paused_explained_and_resumed_from_the_command_line(running: Running) -> None:  # B12, E4, E6
    participant, gate = PlainParticipant(), Gate()
    participant.on_execute["plain.a"] = gate
    async with serving(participant) as target:
        await register(running.address, target, "plain", "a", "b")
        saga_id = await started(running, plain("paused", "a", "b"))
        await participant.arrived["plain.a"].wait()
        assert "paused" in await quick(running.address, "pause", saga_id, *WHY)
        gate.open.set()
        explained = json.loads(await quick(running.address, "explain", saga_id, "--json"))
        persons = [wait["person"] for wait in explained["waits"] if wait["reason"] == "WAIT_REASON_PAUSED"]
        assert [(person["actor"], person["reason"]) for person in persons] == [("ann", "by hand")]
        assert saga_id in await quick(running.address, "list", "--paused")
        await quick(running.address, "policy", saga_id, "b", "--attempt-timeout", "60", *WHY)
        await quick(running.address, "resume", saga_id, *WHY)
        await quick(running.address, "watch", saga_id)
        assert saga_id not in await quick(running.address, "list", "--paused")
        shown = " ".join((await quick(running.address, "show", saga_id)).split())
        standing = json.loads(await quick(running.address, "participants", "--json"))
    assert "paused by ann: by hand" in shown
    assert "policy changed by ann: by hand (attempt timeout 1 min 0 s)" in shown
    assert "resumed by ann: by hand" in shown
    assert standing["name"] == "plain"


async def test_stuck_step_is_found_retried_and_resolved_from_the_command_line(running: Running) -> None:  # E5, R11, R17
    participant = PlainParticipant()
    participant.on_execute["plain.a"] = refuse
    async with serving(participant) as target:
        await register(running.address, target, "plain", "a")
        saga_id = await started(running, must_succeed("stuck"))
        await until_failed(running, saga_id)
        found = json.loads(await quick(running.address, "incidents", "--kind", "step_rejected", "--json"))
        assert (found["saga_id"], found["incident"]["step_id"]) == (saga_id, "a")
        assert f"saga resolve {saga_id} a" in " ".join((await quick(running.address, "explain", saga_id)).split())
        await quick(running.address, "retry", saga_id, "a", "--input", '"better"', *WHY)
        await until_failed(running, saga_id)
        await quick(running.address, "resolve", saga_id, "a", "--succeeded", '"seen"', *WHY)
        await quick(running.address, "watch", saga_id)
        await quick(running.address, "pause", saga_id, code=4)  # it has ended
    inputs = [StringValue.FromString(request.input.value).value for request in participant.executions]
    assert inputs == ["hello", "better"]
    assert "nothing waits for a person" in await quick(running.address, "incidents")


async def test_many_sagas_are_terminated_from_the_command_line(running: Running) -> None:  # E7
    participant = PlainParticipant()
    participant.on_execute["plain.a"] = refuse
    async with serving(participant) as target:
        await register(running.address, target, "plain", "a")
        ids = [await started(running, must_succeed("many"), "--label", "batch=1") for _ in range(3)]
        for saga_id in ids:
            await until_failed(running, saga_id)
        selection = ("bulk", "terminate", "--label", "batch=1", "--needs-person")
        assert "3 sagas would be terminated" in await quick(running.address, *selection, "--dry-run")
        lines = (await quick(running.address, *selection, *WHY, "--yes", "--json")).splitlines()
        assert sorted(json.loads(line)["saga"]["id"] for line in lines) == sorted(ids)
        await quick(running.address, "watch", ids[0], code=1)
    assert "0 sagas found" in await quick(running.address, *selection, *WHY)


async def test_accepted_step_is_completed_from_the_command_line(running: Running) -> None:  # B10, R24
    participant = PlainParticipant()

    async def accept(request: participant_pb2.ExecuteRequest, context: Context) -> participant_pb2.ExecuteResponse:
        accepted = participant_pb2.Accepted()
        accepted.time_limit.FromSeconds(3600)
        return participant_pb2.ExecuteResponse(accepted=accepted)

    participant.on_execute["plain.a"] = accept
    async with serving(participant) as target:
        await register(running.address, target, "plain", "a")
        saga_id = await started(running, plain("approval", "a"))
        await participant.arrived["plain.a"].wait()
        token = participant.executions[0].completion_token
        await quick(running.address, "complete", token, "--output", '"signed"')
        await quick(running.address, "watch", saga_id)
        assert json.loads(await quick(running.address, "complete", token, "--output", '"signed"', "--json"))["repeated"]
    steps = (await running.client.get(saga_id)).steps
    assert StringValue.FromString(steps[0].output.value).value == "signed"


async def test_command_says_what_is_wrong_by_exit_code(running: Running) -> None:
    await saga(running.address, "start", "nobody-knows", "--input", "{}", code=4)
    await saga("127.0.0.1:1", "list", "--timeout", "1", code=3)
    await saga(running.address, "start", code=2)
