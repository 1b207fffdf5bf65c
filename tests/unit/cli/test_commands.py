"""The command line against a coordinator on a real socket: what it prints, and how it exits."""

import asyncio
import json
import re
import subprocess
import sys
from pathlib import Path

import grpc
import pytest
from click.testing import CliRunner
from google.rpc import error_details_pb2

from coordinator.cli.app import main
from participant_sdk.builder import Saga
from participant_sdk.ids import new_saga_id
from participant_sdk.rpc_errors import ErrorReason, error_details, status_with
from saga.v1 import coordinator_pb2, saga_pb2
from shop.v1.shop_pb2 import PaymentCharged, PlaceOrder
from tests.processes import python_environment
from tests.unit.cli.scripted import Invoke, put_definition, put_saga
from tests.unit.client.fake_coordinator import FakeCoordinator

DEFINITION_FILE = """
from shop.v1.shop_pb2 import PaymentCharged, PlaceOrder
from participant_sdk.builder import Saga

place_order = Saga("place-order", input=PlaceOrder)
place_order.step("payments.charge", request=PlaceOrder, response=PaymentCharged)
same_again = place_order
other = Saga("other", input=PlaceOrder, version=2)
other.step("payments.charge", request=PlaceOrder, response=PaymentCharged)
"""


async def _reject(coordinator: FakeCoordinator, saga_id: str) -> None:
    error = status_with(grpc.StatusCode.FAILED_PRECONDITION, "no [bold]money\x1b[31m", error_details_pb2.ErrorInfo(reason="CARD_DECLINED"))
    rejected = saga_pb2.StepRejected(attempt=saga_pb2.Attempt(step_id="charge", number=1), error=error)
    await coordinator.move(saga_id, saga_pb2.SAGA_STATUS_RUNNING, step_rejected=rejected)
    await coordinator.move(saga_id, saga_pb2.SAGA_STATUS_COMPENSATED, saga_compensated=saga_pb2.SagaCompensated())


# ── register, definitions ────────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_register_python_file_stores_each_saga_once(invoke: Invoke, coordinator: FakeCoordinator, tmp_path: Path) -> None:
    file = tmp_path / "sagas.py"
    file.write_text(DEFINITION_FILE, encoding="utf-8")
    first, second = await invoke("register", str(file)), await invoke("register", f"{file}:other", "--json")
    assert first.stdout.splitlines() == ["place-order v1: registered", "other v2: registered"]
    assert json.loads(second.stdout) == {"name": "other", "version": 2, "created": False}
    assert len(coordinator.definitions) == 2


async def test_register_json_file_stores_it(invoke: Invoke, coordinator: FakeCoordinator, tmp_path: Path) -> None:
    saga = Saga("place-order", input=PlaceOrder)
    saga.step("payments.charge", request=PlaceOrder, response=PaymentCharged)
    (tmp_path / "types.binpb").write_bytes(saga.descriptors().SerializeToString())
    content = '{"name": "place-order", "version": 1, "inputType": "shop.v1.PlaceOrder", "steps": [{"id": "charge"}]}'
    (tmp_path / "saga.json").write_text(content, encoding="utf-8")
    result = await invoke("register", str(tmp_path / "saga.json"), "--descriptors", str(tmp_path / "types.binpb"))
    assert result.exit_code == 0
    assert coordinator.definitions[0].descriptors == saga.descriptors()


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("missing.py", None, "found nothing"),
        ("saga.txt", "", "expected a .py"),
        ("none.py", "x = 1", "found none"),
        ("broken.py", "1 / 0", "ZeroDivisionError"),
        ("saga.json", '{"nam": "place-order"}', "nam"),
    ],
)
async def test_register_of_no_definition_is_wrong_usage(invoke: Invoke, tmp_path: Path, name: str, content: str | None, words: str) -> None:
    if content is not None:
        (tmp_path / name).write_text(content, encoding="utf-8")
    result = await invoke("register", str(tmp_path / name))
    assert result.exit_code == 2
    assert words in result.stderr


async def test_register_of_an_invalid_saga_is_refused_with_its_problems(invoke: Invoke, tmp_path: Path) -> None:
    (tmp_path / "empty.py").write_text(
        "from shop.v1.shop_pb2 import PlaceOrder\nfrom participant_sdk.builder import Saga\nempty = Saga('empty', input=PlaceOrder)\n"
    )
    result = await invoke("register", str(tmp_path / "empty.py"))
    assert result.exit_code == 4
    assert "steps: expected 1 to 256" in result.stderr


async def test_definitions_lists_them(invoke: Invoke, coordinator: FakeCoordinator) -> None:
    put_definition(coordinator)
    assert "place-order" in (await invoke("definitions")).stdout
    assert json.loads((await invoke("definitions", "--json")).stdout)["input_type"] == "shop.v1.PlaceOrder"


# ── start ────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("source", ["json", "file", "stdin"])
async def test_start_reads_the_input_by_the_types_of_the_definition(
    invoke: Invoke, coordinator: FakeCoordinator, tmp_path: Path, source: str
) -> None:
    put_definition(coordinator)
    text = '{"order_id": "42", "amountCents": "1999"}'
    (tmp_path / "order.json").write_text(text, encoding="utf-8")
    given = {"json": text, "file": f"@{tmp_path / 'order.json'}", "stdin": "-"}[source]
    result = await invoke("start", "place-order", "--input", given, "--key", "42", "--label", "a=b", stdin=text)
    (request,) = coordinator.received(coordinator_pb2.StartSagaRequest)
    assert result.stdout.strip() == request.saga_id
    assert PlaceOrder.FromString(request.input.value) == PlaceOrder(order_id="42", amount_cents=1999)
    assert (request.definition.version, request.idempotency_key, dict(request.labels)) == (1, "42", {"a": "b"})


@pytest.mark.parametrize(
    ("text", "words"),
    [('{"order": "42"}', 'no field named "order"'), ('{"quantity": -1}', "quantity"), ("{", "no shop.v1.PlaceOrder in JSON")],
)
async def test_start_with_wrong_input_points_at_the_field(invoke: Invoke, coordinator: FakeCoordinator, text: str, words: str) -> None:
    put_definition(coordinator)
    result = await invoke("start", "place-order", "--input", text)
    assert result.exit_code == 2
    assert words in result.stderr
    assert coordinator.sagas == {}


async def test_start_of_an_unknown_definition_is_refused(invoke: Invoke) -> None:
    result = await invoke("start", "nothing", "--input", "{}", "--json")
    assert result.exit_code == 4
    error = json.loads(result.stderr)
    assert (error["error"], error["reason"]) == ("DefinitionNotFound", "DEFINITION_NOT_FOUND")


@pytest.mark.parametrize(("is_completed", "code"), [(True, 0), (False, 1)])
async def test_start_wait_exits_by_how_the_saga_ended(
    invoke: Invoke, coordinator: FakeCoordinator, *, is_completed: bool, code: int
) -> None:
    put_definition(coordinator)
    running = asyncio.ensure_future(invoke("start", "place-order", "--input", "{}", "--wait"))
    (request,) = await coordinator.wait_for(coordinator_pb2.StartSagaRequest)
    await coordinator.wait_for(coordinator_pb2.GetSagaRequest)
    if is_completed:
        await coordinator.move(request.saga_id, saga_pb2.SAGA_STATUS_COMPLETED, saga_completed=saga_pb2.SagaCompleted())
    else:
        await _reject(coordinator, request.saga_id)
    result = await running
    assert result.exit_code == code
    assert ("COMPLETED" if is_completed else "COMPENSATED") in result.stdout


# ── show, list, watch, cancel ────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_show_prints_a_timeline_without_steering_the_terminal(invoke: Invoke, coordinator: FakeCoordinator) -> None:
    saga_id = await put_saga(coordinator)
    await _reject(coordinator, saga_id)
    result = await invoke("show", saga_id)
    assert result.exit_code == 0
    assert "rejected: CARD_DECLINED no [bold]money\N{REPLACEMENT CHARACTER}[31m" in result.stdout
    assert "\x1b" not in result.stdout


async def test_show_json_unpacks_payloads_and_survives_unknown_ones(invoke: Invoke, coordinator: FakeCoordinator) -> None:
    saga_id = await put_saga(coordinator)
    without_types = json.loads((await invoke("show", saga_id, "--json")).stdout)
    assert without_types["saga"]["input"]["value"] == {"type": "shop.v1.PlaceOrder", "base64": "CgI0Mg=="}
    put_definition(coordinator)
    with_types = json.loads((await invoke("show", saga_id, "--json")).stdout)
    expected = {"@type": "type.googleapis.com/shop.v1.PlaceOrder", "order_id": "42"}
    assert with_types["saga"]["input"] == expected
    assert with_types["events"][0]["saga_started"]["input"] == expected


async def test_list_prints_ids_in_full(invoke: Invoke, coordinator: FakeCoordinator) -> None:
    ids = [await put_saga(coordinator) for _ in range(3)]
    result = await invoke("list", "--status", "running", "--limit", "2")
    assert [saga_id in result.stdout for saga_id in ids] == [True, True, False]
    (request,) = coordinator.received(coordinator_pb2.ListSagasRequest)
    assert list(request.statuses) == [saga_pb2.SAGA_STATUS_RUNNING]


async def test_watch_exits_one_when_the_saga_was_undone(invoke: Invoke, coordinator: FakeCoordinator) -> None:
    saga_id = await put_saga(coordinator)
    watching = asyncio.ensure_future(invoke("watch", saga_id, "--json"))
    await coordinator.wait_for(coordinator_pb2.WatchSagaRequest)
    await _reject(coordinator, saga_id)
    result = await watching
    assert result.exit_code == 1
    assert [json.loads(line)["event"]["sequence"] for line in result.stdout.splitlines()] == ["1", "2", "3"]


async def test_list_asks_for_paused_sagas_and_shows_what_people_did(invoke: Invoke, coordinator: FakeCoordinator) -> None:
    coordinator.sagas[await put_saga(coordinator)].paused.actor = "ann"
    coordinator.sagas[await put_saga(coordinator)].needs_person = True
    result = await invoke("list", "--paused", "--needs-nobody")
    assert "RUNNING paused" in result.stdout
    assert "RUNNING needs a person" in result.stdout
    (request,) = coordinator.received(coordinator_pb2.ListSagasRequest)
    assert (request.paused, request.HasField("needs_person"), request.needs_person) == (True, True, False)
    await invoke("list")
    _, wide = coordinator.received(coordinator_pb2.ListSagasRequest)
    assert not wide.HasField("paused")
    assert not wide.HasField("needs_person")


async def test_watch_from_the_middle_knows_what_was_before(invoke: Invoke, coordinator: FakeCoordinator) -> None:
    saga_id = await put_saga(coordinator)
    steps = (("ship", saga_pb2.STEP_KIND_RETRIABLE), ("notify", saga_pb2.STEP_KIND_RETRIABLE))
    coordinator.sagas[saga_id].steps.extend(saga_pb2.StepResult(id=step, kind=kind) for step, kind in steps)
    for step in ("ship", "notify"):
        reached = saga_pb2.StepReached(step_id=step, input_copied=saga_pb2.InputCopied())
        await coordinator.move(saga_id, saga_pb2.SAGA_STATUS_RUNNING, step_succeeded=saga_pb2.StepSucceeded())
        coordinator.events[saga_id][-1].event.reached.append(reached)
    await coordinator.move(saga_id, saga_pb2.SAGA_STATUS_COMPLETED, saga_completed=saga_pb2.SagaCompleted())
    whole, end = await invoke("watch", saga_id), await invoke("watch", saga_id, "--after", "2")
    assert whole.stdout.count("point of no return") == 1
    assert "notify (retriable)" in end.stdout
    assert "point of no return" not in end.stdout


async def test_cancel_sends_who_and_why_and_refuses_an_ended_saga(invoke: Invoke, coordinator: FakeCoordinator) -> None:
    saga_id = await put_saga(coordinator)
    result = await invoke("cancel", saga_id, "--reason", "changed", "--actor", "me")
    assert (result.exit_code, result.stdout.split()) == (0, [saga_id, "COMPENSATING"])
    (request,) = coordinator.received(coordinator_pb2.CancelSagaRequest)
    assert (request.reason, request.actor) == ("changed", "me")
    await coordinator.move(saga_id, saga_pb2.SAGA_STATUS_COMPENSATED, saga_compensated=saga_pb2.SagaCompensated())
    assert (await invoke("cancel", saga_id)).exit_code == 4


@pytest.mark.parametrize("command", ["show", "cancel", "watch"])
async def test_unknown_saga_is_refused(invoke: Invoke, command: str) -> None:
    result = await invoke(command, new_saga_id())
    assert result.exit_code == 4
    assert "SAGA_NOT_FOUND" in result.stderr


async def test_what_is_no_address_is_wrong_usage(coordinator: FakeCoordinator) -> None:
    result = await asyncio.to_thread(CliRunner().invoke, main, ["show", new_saga_id(), "--address", "http://127.0.0.1:7700"])
    assert result.exit_code == 2
    assert "--address" in result.stderr
    assert "leave out what stands before the host" in " ".join(result.stderr.split())
    assert coordinator.requests == []


async def test_coordinator_that_is_away_exits_three_and_says_so_in_json() -> None:
    result = await asyncio.to_thread(
        CliRunner().invoke, main, ["show", new_saga_id(), "--address", "127.0.0.1:1", "--timeout", "0.2", "--json"]
    )
    assert result.exit_code == 3
    assert json.loads(result.stderr)["error"] == "CoordinatorUnavailable"


async def test_refused_request_lists_what_is_wrong(invoke: Invoke, coordinator: FakeCoordinator) -> None:
    violation = error_details_pb2.BadRequest.FieldViolation(field="reason", description="too long")
    coordinator.failures["CancelSaga"].append(
        status_with(
            grpc.StatusCode.INVALID_ARGUMENT,
            "wrong",
            error_details(ErrorReason.REQUEST_INVALID),
            error_details_pb2.BadRequest(field_violations=[violation]),
        )
    )
    result = await invoke("cancel", new_saga_id())
    assert result.exit_code == 4
    assert "- reason: too long" in result.stderr


def test_serve_with_wrong_settings_is_wrong_usage() -> None:
    result = CliRunner().invoke(main, ["serve", "--log-level", "loud"], env={"SAGA_DATABSE": "x"})
    assert result.exit_code == 2
    assert "SAGA_DATABSE" in result.stderr
    assert "--log-level" in result.stderr


def test_serve_help_teaches_the_three_sources() -> None:
    result = CliRunner().invoke(main, ["serve", "--help"])
    assert result.exit_code == 0
    for words in (
        "saga serve --config saga.toml",
        "SAGA_DATABASE=",
        "--database",
        "OTEL_EXPORTER_OTLP_ENDPOINT",
        "[default: 127.0.0.1:7700]",
    ):
        assert words in result.stdout


def test_help_lists_every_command_under_a_heading() -> None:
    lines = [line.strip() for line in CliRunner().invoke(main, ["--help"]).stdout.splitlines()]
    for heading in ("Coordinator:", "Participants:", "Definitions:", "Sagas:", "Sagas that are stuck:", "Steps that finish later:"):
        assert heading in lines
    listed = {line.split()[0] for line in lines if line}
    assert listed >= set(main.load_all())


@pytest.mark.parametrize("name", sorted(set(main.load_all()) - {"definitions", "register"}))
def test_help_of_a_command_teaches_by_example(name: str) -> None:
    result = CliRunner().invoke(main, [name, "--help"])
    assert result.exit_code == 0
    assert re.search(rf"  saga {name}( |$)", result.stdout, re.MULTILINE)


def test_coordinator_starts_without_what_only_other_commands_need() -> None:
    """Half of the time until it serves would go into tables and definitions of which it shows none."""
    program = "import sys; from coordinator.cli.app import main; main(['serve', '--help'], standalone_mode=False); print(*sys.modules)"
    told = subprocess.run([sys.executable, "-c", program], env=python_environment(), capture_output=True, text=True, check=True).stdout
    loaded = set(told.splitlines()[-1].split())
    assert "coordinator.cli.serving" in loaded
    assert not loaded & {"coordinator.cli.calling", "participant_sdk.client", "participant_sdk.testing", "rich", "yaml", "grpc"}
