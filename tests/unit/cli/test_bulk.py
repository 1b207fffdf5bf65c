"""`saga bulk`: nothing is done before it was shown and confirmed, and what was not done is told."""

import json

import grpc
import pytest

from participant_sdk.rpc_errors import ErrorReason, error_details, status_with
from saga.v1 import operator_pb2, saga_pb2
from tests.unit.cli.scripted import Invoke
from tests.unit.client.fake_coordinator import FakeCoordinator

ENDED = status_with(grpc.StatusCode.FAILED_PRECONDITION, "it is COMPLETED", error_details(ErrorReason.SAGA_ALREADY_ENDED))
BULK = ("bulk", "pause", "--definition", "place-order", "--reason", "move")


@pytest.fixture
def found(coordinator: FakeCoordinator) -> list[operator_pb2.ActOnSagasResponse]:
    """Two sagas of which the second refuses."""
    definition = saga_pb2.DefinitionReference(name="place-order", version=1)
    sagas = [saga_pb2.Saga(id=f"saga-{name}", definition=definition, status=saga_pb2.SAGA_STATUS_RUNNING) for name in "ab"]
    coordinator.operator.results = [
        operator_pb2.ActOnSagasResponse(saga=sagas[0]),
        operator_pb2.ActOnSagasResponse(saga=sagas[1], error=ENDED),
    ]
    return coordinator.operator.results


def _requests(coordinator: FakeCoordinator) -> list[tuple[bool, list[str]]]:
    return [(request.dry_run, list(request.saga_ids)) for request in coordinator.received(operator_pb2.ActOnSagasRequest)]


async def test_bulk_shows_asks_acts_and_tells_what_was_refused(
    invoke: Invoke, coordinator: FakeCoordinator, found: list[operator_pb2.ActOnSagasResponse]
) -> None:
    result = await invoke(*BULK, "--actor", "ann", stdin="y\n")
    assert result.exit_code == 4
    lines = [line.rstrip() for line in result.stdout.splitlines()]
    assert lines[0] == "2 sagas found, 1 saga would be paused"
    assert lines[1] == "saga-a  place-order v1 RUNNING"
    assert lines[3] == "1 saga would refuse: 1 x SAGA_ALREADY_ENDED"
    assert lines[4] == "saga-b  place-order v1 RUNNING: it is COMPLETED"
    assert lines[5:] == ["1 saga paused"], "what was shown as refusing is not asked again"
    assert "pause 1 saga? [y/N]" in result.stderr
    assert _requests(coordinator) == [(True, []), (False, ["saga-a"])]
    assert coordinator.received(operator_pb2.ActOnSagasRequest)[1].actor == "ann"


@pytest.mark.parametrize(("answer", "code"), [("n\n", 1), ("\n", 1), (None, 130)])
async def test_bulk_without_a_yes_does_nothing(
    invoke: Invoke, coordinator: FakeCoordinator, found: list[operator_pb2.ActOnSagasResponse], answer: str | None, code: int
) -> None:
    result = await invoke(*BULK, stdin=answer)
    assert result.exit_code == code
    assert _requests(coordinator) == [(True, [])]


async def test_bulk_with_yes_asks_nobody(
    invoke: Invoke, coordinator: FakeCoordinator, found: list[operator_pb2.ActOnSagasResponse]
) -> None:
    found.pop()
    result = await invoke(*BULK, "--yes")
    assert (result.exit_code, result.stdout.splitlines()[-1].rstrip()) == (0, "1 saga paused")
    assert _requests(coordinator) == [(True, []), (False, ["saga-a"])]


async def test_bulk_dry_run_needs_no_reason_and_does_nothing(
    invoke: Invoke, coordinator: FakeCoordinator, found: list[operator_pb2.ActOnSagasResponse]
) -> None:
    result = await invoke("bulk", "cancel", "--status", "running", "--dry-run")
    assert result.exit_code == 0
    assert "1 saga would be cancelled" in result.stdout
    (request,) = coordinator.received(operator_pb2.ActOnSagasRequest)
    assert (request.action, request.dry_run) == (operator_pb2.BULK_ACTION_CANCEL, True)


async def test_bulk_sends_every_filter(invoke: Invoke, coordinator: FakeCoordinator) -> None:
    flags = ("--status", "failed", "--label", "a=b", "--kind", "pivot_unknown", "--from", "2030-01-01", "--not-paused", "--needs-person")
    await invoke("bulk", "retry", *flags, "--before", "2030-01-02T00:00:00Z", "--dry-run")
    (request,) = coordinator.received(operator_pb2.ActOnSagasRequest)
    selection = request.selection
    assert list(selection.statuses) == [saga_pb2.SAGA_STATUS_FAILED]
    assert list(selection.incident_kinds) == [saga_pb2.INCIDENT_KIND_PIVOT_UNKNOWN]
    assert dict(selection.labels) == {"a": "b"}
    assert selection.created_from.ToJsonString() == "2030-01-01T00:00:00Z"
    assert selection.created_before.ToJsonString() == "2030-01-02T00:00:00Z"
    assert (selection.HasField("paused"), selection.paused, selection.needs_person) == (True, False, True)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--reason", "x"), "expected at least one of --status"),
        (("--definition", "x"), "expected --reason"),
        (("--definition", "x", "--reason", "x", "--json"), "nobody can be asked"),
    ],
)
async def test_bulk_that_is_not_clear_is_wrong_usage(
    invoke: Invoke, coordinator: FakeCoordinator, arguments: tuple[str, ...], words: str
) -> None:
    result = await invoke("bulk", "pause", *arguments)
    assert result.exit_code == 2
    assert words in result.stderr
    assert coordinator.requests == []


async def test_bulk_that_finds_nothing_is_done(invoke: Invoke, coordinator: FakeCoordinator) -> None:
    result = await invoke(*BULK)
    assert (result.exit_code, result.stdout.rstrip()) == (0, "0 sagas found, 0 sagas would be paused")
    assert _requests(coordinator) == [(True, [])]


async def test_bulk_of_sagas_that_would_all_refuse_asks_nobody(
    invoke: Invoke, coordinator: FakeCoordinator, found: list[operator_pb2.ActOnSagasResponse]
) -> None:
    del found[0]
    assert (await invoke(*BULK)).exit_code == 4
    assert _requests(coordinator) == [(True, [])]


async def test_bulk_tells_which_saga_refused_since_it_was_shown(
    invoke: Invoke, coordinator: FakeCoordinator, found: list[operator_pb2.ActOnSagasResponse]
) -> None:
    gone = status_with(grpc.StatusCode.FAILED_PRECONDITION, "not selected any more", error_details(ErrorReason.NO_LONGER_SELECTED))
    coordinator.operator.refused_since["saga-a"] = gone
    result = await invoke(*BULK, "--yes")
    assert result.exit_code == 4
    assert [line.rstrip() for line in result.stdout.splitlines()][-4:] == [
        "0 sagas paused",
        "",
        "1 saga refused: 1 x NO_LONGER_SELECTED",
        "saga-a  place-order v1 RUNNING: not selected any more",
    ]


async def test_bulk_that_is_cut_off_exits_three(
    invoke: Invoke, coordinator: FakeCoordinator, found: list[operator_pb2.ActOnSagasResponse]
) -> None:
    coordinator.operator.break_after.extend([2, 0])
    result = await invoke(*BULK, "--yes")
    assert result.exit_code == 3
    assert "0 sagas were answered for, nobody knows about the others" in result.stderr


async def test_bulk_prints_one_object_per_saga_for_programs(
    invoke: Invoke, coordinator: FakeCoordinator, found: list[operator_pb2.ActOnSagasResponse]
) -> None:
    acted, dry = await invoke(*BULK, "--yes", "--json"), await invoke(*BULK, "--dry-run", "--json")
    assert acted.stdout == dry.stdout
    assert (acted.exit_code, dry.exit_code, acted.stderr) == (4, 0, "")
    first, second = (json.loads(line) for line in acted.stdout.splitlines())
    assert (first["saga"]["id"], first["error"], first["found"]) == ("saga-a", None, 2)
    assert (second["error"]["error"], second["error"]["reason"]) == ("SagaAlreadyEnded", "SAGA_ALREADY_ENDED")


async def test_long_list_is_shortened_for_people(
    invoke: Invoke, coordinator: FakeCoordinator, found: list[operator_pb2.ActOnSagasResponse]
) -> None:
    found[:] = [operator_pb2.ActOnSagasResponse(saga=saga_pb2.Saga(id=f"saga-{number}")) for number in range(25)]
    result = await invoke("bulk", "pause", "--definition", "x", "--dry-run")
    assert "25 sagas would be paused" in result.stdout
    assert "… and 5 more" in result.stdout
    assert "saga-19" in result.stdout
    assert "saga-20" not in result.stdout
