"""`saga check` and `saga diff`: what they print, and how they exit."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import TypeAlias

import grpc
import pytest
from click.testing import CliRunner, Result
from google.protobuf.timestamp_pb2 import Timestamp
from google.rpc import error_details_pb2

from coordinator.cli.checking import UNFINISHED_MAX, check, diff
from coordinator.cli.definitions import register as register_command
from participant_sdk import Saga, StepKind
from participant_sdk.ids import new_saga_id
from participant_sdk.rpc_errors import ErrorReason, error_details, status_with
from saga.v1 import coordinator_pb2, saga_pb2
from shop.v1.shop_pb2 import CourierBooked, PaymentCharged, PlaceOrder, StockReserved
from tests.unit.cli.definition_texts import EVERYTHING
from tests.unit.client.fake_coordinator import FakeCoordinator, served

Diff: TypeAlias = Callable[..., Awaitable[Result]]
NOBODY = "127.0.0.1:1"


def place_order(version: int, *, has_label: bool = True) -> Saga[PlaceOrder]:
    saga = Saga("place-order", input=PlaceOrder, version=version)
    saga.step("inventory.reserve", request=PlaceOrder, response=StockReserved)
    saga.step("payments.charge", request=PlaceOrder, response=PaymentCharged, kind=StepKind.PIVOT)
    if has_label:
        saga.step("shipping.label", request=PlaceOrder, response=CourierBooked, kind=StepKind.RETRIABLE)
    return saga


def put(folder: Path, name: str, text: str = EVERYTHING) -> str:
    (folder / "shop.binpb").write_bytes(place_order(1).descriptors().SerializeToString())
    (folder / name).write_text(text, encoding="utf-8")
    return str(folder / name)


# ── check ────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_check_of_a_sound_definition_shows_its_graph(tmp_path: Path) -> None:
    result = CliRunner().invoke(check, [put(tmp_path, "saga.yaml")])
    assert result.exit_code == 0, result.stderr
    lines = [line.split() for line in result.stdout.splitlines()]
    assert result.stdout.splitlines()[0].endswith("saga.yaml: place-order v3 is sound")
    assert lines[2][:4] == ["reserve", "COMPENSATABLE", "(start)", "inventory.reserve"]
    assert lines[3][:4] == ["charge", "PIVOT", "reserve", "payments.charge"]
    assert lines[5][-3:] == ["input.quantity", ">", "0u"]
    assert lines[6][:2] == ["on_success", "hook"]
    assert result.stdout.splitlines()[-1] == "no way back: when charge has succeeded"


def test_check_tells_every_problem_of_every_file(tmp_path: Path) -> None:
    sound = put(tmp_path, "sound.yaml")
    first = put(tmp_path, "first.yaml", EVERYTHING.replace("kind: PIVOT", "kind: PIVOTAL").replace("version: 3", "version: 0"))
    second = put(tmp_path, "second.yaml", "name: [")
    result = CliRunner().invoke(check, [first, sound, second])
    assert result.exit_code == 1
    told = [line for line in result.stdout.replace(f"{tmp_path}/", "").splitlines() if ".yaml" in line]
    assert told[0] == "first.yaml: place-order v0: 2 problems"
    assert told[1].startswith("first.yaml:4: version: expected 1 or more")
    assert told[2].startswith("first.yaml:27: step charge, kind: expected one of COMPENSATABLE")
    assert told[3] == "sound.yaml: place-order v3 is sound"
    assert told[4] == "second.yaml: a definition without a name v0: 1 problem"
    assert told[5].startswith("second.yaml:2: no YAML: ")


def test_check_json_is_one_object_per_definition(tmp_path: Path) -> None:
    bad = put(tmp_path, "bad.yaml", EVERYTHING.replace("kind: PIVOT", "kind: PIVOTAL"))
    result = CliRunner().invoke(check, [put(tmp_path, "saga.yaml"), bad, "--json"])
    assert result.exit_code == 1
    sound, unsound = (json.loads(line) for line in result.stdout.splitlines())
    assert (sound["sound"], sound["problems"], sound["point_of_no_return"]) == (True, [], "when charge has succeeded")
    assert sound["steps"][1] == {
        "id": "charge",
        "kind": "PIVOT",
        "after": ["reserve"],
        "action": "payments.charge",
        "input_type": "shop.v1.PlaceOrder",
        "output_type": "shop.v1.PaymentCharged",
        "when": "",
    }
    assert sound["hooks"] == {"on_success": "mail.thank", "on_failure": "mail.sorry"}
    assert (unsound["name"], unsound["version"], unsound["sound"]) == ("place-order", 3, False)
    assert [(problem["line"], problem["place"]) for problem in unsound["problems"]] == [(27, "step charge, kind")]


def test_check_mermaid_prints_a_flowchart(tmp_path: Path) -> None:
    result = CliRunner().invoke(check, [put(tmp_path, "saga.yaml"), "--mermaid"])
    assert result.exit_code == 0
    assert result.stdout.splitlines() == [
        "flowchart LR",
        '    s0["reserve<br/>COMPENSATABLE"]',
        '    s1{{"charge<br/>PIVOT"}}',
        "    s0 --> s1",
        '    s2>"thank<br/>BEST_EFFORT"]',
        "    s1 -.-> s2",
        '    s3(["book<br/>RETRIABLE<br/>when input.quantity #gt; 0u"])',
        "    s1 --> s3",
        '    COMPLETED(("COMPLETED")) --> on_success["on_success<br/>mail.thank"]',
        '    COMPENSATED(("COMPENSATED")) --> on_failure["on_failure<br/>mail.sorry"]',
        "    s2 --> COMPLETED",
        "    s3 --> COMPLETED",
    ]


@pytest.mark.parametrize(
    ("kinds", "expected"),
    [
        ((StepKind.COMPENSATABLE, StepKind.READ_ONLY), "none; until it is completed, the saga can turn back"),
        ((StepKind.COMPENSATABLE, StepKind.RETRIABLE), "when second is due"),
        ((StepKind.PIVOT, StepKind.RETRIABLE), "when first has succeeded"),
    ],
)
def test_check_says_where_there_is_no_way_back(tmp_path: Path, kinds: tuple[StepKind, StepKind], expected: str) -> None:  # R9
    steps = "\n".join(
        f"saga.step('a.{name}', request=PlaceOrder, response=PlaceOrder, kind={kind:d})"
        for name, kind in zip(("first", "second"), kinds, strict=True)
    )
    text = f"from shop.v1.shop_pb2 import PlaceOrder\nfrom participant_sdk import Saga\nsaga = Saga('a', input=PlaceOrder)\n{steps}\n"
    result = CliRunner().invoke(check, [put(tmp_path, "sagas.py", text)])
    assert result.stdout.splitlines()[-1] == f"no way back: {expected}"


def test_check_of_nothing_is_wrong_usage(tmp_path: Path) -> None:
    assert CliRunner().invoke(check, []).exit_code == 2
    result = CliRunner().invoke(check, [str(tmp_path / "missing.yaml")])
    assert result.exit_code == 2
    assert "found nothing at" in result.stderr


def test_check_does_not_let_a_file_steer_the_terminal(tmp_path: Path) -> None:
    result = CliRunner().invoke(check, [put(tmp_path, "saga.yaml", 'name: "\\e[31m"\n"[bold]x": 1')])
    assert "\x1b" not in result.stdout
    assert "[bold]x" in result.stdout


# ── diff ─────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def coordinator() -> FakeCoordinator:
    return FakeCoordinator()


@pytest.fixture
async def run_diff(coordinator: FakeCoordinator) -> AsyncIterator[Diff]:
    async with served(coordinator) as address:

        async def run_diff(*arguments: str) -> Result:
            return await asyncio.to_thread(CliRunner().invoke, diff, arguments, env={"SAGA_ADDRESS": address})

        yield run_diff


def register(coordinator: FakeCoordinator, saga: Saga[PlaceOrder]) -> None:
    coordinator.definitions.append(coordinator_pb2.GetDefinitionResponse(definition=saga.definition(), descriptors=saga.descriptors()))


def start(coordinator: FakeCoordinator, version: int, status: saga_pb2.SagaStatus.ValueType, *, ended_at: Timestamp | None = None) -> None:
    saga_id = new_saga_id()
    reference = saga_pb2.DefinitionReference(name="place-order", version=version)
    coordinator.sagas[saga_id] = saga_pb2.Saga(id=saga_id, definition=reference, status=status, ended_at=ended_at)


async def test_diff_of_two_versions_says_what_changed_and_who_is_under_way(run_diff: Diff, coordinator: FakeCoordinator) -> None:  # A13
    register(coordinator, place_order(3))
    register(coordinator, place_order(4, has_label=False))
    start(coordinator, 3, saga_pb2.SAGA_STATUS_RUNNING)
    start(coordinator, 3, saga_pb2.SAGA_STATUS_FAILED)
    start(coordinator, 3, saga_pb2.SAGA_STATUS_FAILED, ended_at=Timestamp(seconds=1))  # terminated
    start(coordinator, 3, saga_pb2.SAGA_STATUS_COMPLETED)
    start(coordinator, 4, saga_pb2.SAGA_STATUS_RUNNING)
    result = await run_diff("place-order@3", "place-order@4")
    assert result.exit_code == 1, result.stderr
    assert result.stdout.splitlines() == [
        "place-order v3 → place-order v4",
        "- step label: removed: RETRIABLE shipping.label, after charge",
        "    keep the participant serving shipping.label until the last saga of place-order v3 has ended",
        "Sagas of place-order v3 keep that version to their end. Not ended yet: 2.",
    ]


async def test_diff_of_the_same_exits_zero(run_diff: Diff, coordinator: FakeCoordinator) -> None:
    register(coordinator, place_order(3))
    register(coordinator, place_order(4))
    result = await run_diff("place-order@3", "place-order")
    assert result.exit_code == 0
    assert result.stdout.splitlines()[0] == "place-order v3 and place-order v4 say the same."


async def test_diff_with_a_file_that_needs_another_version_says_so(run_diff: Diff, coordinator: FakeCoordinator, tmp_path: Path) -> None:
    register(coordinator, place_order(3))
    result = await run_diff("place-order", put(tmp_path, "saga.yaml"), "--json")
    assert result.exit_code == 1
    content = json.loads(result.stdout)
    assert (content["a"], content["b"], content["same"]) == (
        {"name": "place-order", "version": 3},
        {"name": "place-order", "version": 3},
        False,
    )
    assert content["notes"] == ["B needs a version above 3: once registered, a version never changes."]
    assert content["unfinished"] == {"count": 0, "more": False}
    assert {"verb", "place", "before", "after", "hint"} == set(content["changes"][0])


async def test_diff_counts_to_its_bound(run_diff: Diff, coordinator: FakeCoordinator) -> None:
    register(coordinator, place_order(3))
    for _ in range(UNFINISHED_MAX + 1):
        start(coordinator, 3, saga_pb2.SAGA_STATUS_RUNNING)
    result = await run_diff("place-order", "place-order")
    assert f"Not ended yet: more than {UNFINISHED_MAX}." in result.stdout


def test_diff_of_two_files_needs_no_coordinator(tmp_path: Path) -> None:
    first = put(tmp_path, "first.yaml")
    text = "CourierBooked{\n      tracking_number: book.tracking_number\n    }"
    second = put(tmp_path, "second.yaml", EVERYTHING.replace("version: 3", "version: 4").replace("input: book", f"input: |\n    {text}"))
    result = CliRunner().invoke(diff, [first, second, "--address", NOBODY])
    assert result.exit_code == 1
    assert "How many there are is not known" in result.stdout
    assert (
        "~ on_success, input: \n    - book\n    + CourierBooked{\n    +   tracking_number: book.tracking_number\n    + }" in result.stdout
    )


@pytest.mark.parametrize(
    ("first", "code", "words"),
    [
        ("place-order@three", 2, "expected NAME@VERSION like place-order@3"),
        ("place-order@9", 4, "no definition place-order"),
        ("missing.yaml", 2, "found nothing at missing.yaml"),
        ("two.yaml", 2, "holds place-order, second; say which with"),
        ("bad.yaml", 2, "is no sound definition"),
    ],
)
async def test_diff_without_two_definitions_says_why(
    run_diff: Diff, coordinator: FakeCoordinator, tmp_path: Path, first: str, code: int, words: str
) -> None:
    register(coordinator, place_order(3))
    put(tmp_path, "two.yaml", f"{EVERYTHING}---{EVERYTHING.replace('name: place-order', 'name: second')}")
    put(tmp_path, "bad.yaml", EVERYTHING.replace("kind: PIVOT", "kind: PIVOTAL"))
    given = str(tmp_path / first) if (tmp_path / first).exists() else first
    result = await run_diff(given, "place-order")
    assert result.exit_code == code
    assert words in result.stderr


def test_diff_of_a_registered_one_without_a_coordinator_exits_three() -> None:
    result = CliRunner().invoke(diff, ["place-order", "place-order@3", "--address", NOBODY, "--timeout", "0.2"])
    assert result.exit_code == 3


# ── register ─────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_what_the_coordinator_refuses_is_told_with_its_line(coordinator: FakeCoordinator, tmp_path: Path) -> None:
    violation = error_details_pb2.BadRequest.FieldViolation(field="definition.steps[1].action", description="payments has no action charge")
    refusal = error_details_pb2.BadRequest(field_violations=[violation])
    info = error_details(ErrorReason.REQUEST_INVALID)
    coordinator.failures["RegisterDefinition"].append(status_with(grpc.StatusCode.INVALID_ARGUMENT, "wrong", info, refusal))
    file = put(tmp_path, "saga.yaml")
    async with served(coordinator) as address:
        result = await asyncio.to_thread(CliRunner().invoke, register_command, [file, "--address", address])
    assert result.exit_code == 4
    assert "saga.yaml:25: step charge, action: payments has no action charge" in result.stderr
