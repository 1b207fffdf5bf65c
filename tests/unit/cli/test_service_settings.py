"""What the settings file can say of services that are there already, and every mistake in it."""

from dataclasses import replace
from pathlib import Path

import pytest

from coordinator.limits import ParticipantLimits
from coordinator.service_files import compile_services
from coordinator.services import ExistingService, ServiceAction
from coordinator.settings import Settings, SettingsError, load_settings
from tests.warehouse import RELEASE, WATCH, warehouse_files

WAREHOUSE = """
    [participants.warehouse]
    target = "dns:///warehouse:50051"
    concurrency = 16
    descriptors = "warehouse.binpb"
    key_metadata = "x-request-id"
    [participants.warehouse.actions.reserve]
    execute = "warehouse.v1.Warehouse/Reserve"
    compensate = "/warehouse.v1.Warehouse/Release"
    compensate_input = "ReleaseRequest{order_id: input.order_id}"
    key_field = "request_id"
    nothing_to_undo = ["NOT_FOUND", "NOT_FOUND"]
    [participants.warehouse.actions.count]
    execute = "warehouse.v1.Warehouse/Count"
"""
RESERVE = ServiceAction(
    execute="warehouse.v1.Warehouse/Reserve",
    compensate="warehouse.v1.Warehouse/Release",
    compensate_input="ReleaseRequest{order_id: input.order_id}",
    key_field="request_id",
    nothing_to_undo=("NOT_FOUND",),
)


def read(folder: Path, text: str, environment: dict[str, str] | None = None) -> Settings:
    (folder / "saga.toml").write_text(text)
    return load_settings(file=folder / "saga.toml", environment=environment or {})


def problems(folder: Path, text: str) -> dict[str, str]:
    """What was found, by its place."""
    with pytest.raises(SettingsError) as caught:
        read(folder, text)
    return {problem.key: problem.found for problem in caught.value.problems}


def test_service_is_read_with_its_actions(tmp_path: Path) -> None:
    settings = read(tmp_path, WAREHOUSE)
    assert settings.services == {
        "warehouse": ExistingService(
            target="dns:///warehouse:50051",
            actions={"reserve": RESERVE, "count": ServiceAction(execute="warehouse.v1.Warehouse/Count")},
            descriptors=Path("warehouse.binpb"),
            key_metadata="x-request-id",
        )
    }
    assert settings.participant_targets == {}  # it is not asked what it is: it would not know
    assert settings.limits_of("warehouse") == ParticipantLimits(concurrency=16)


def test_key_goes_by_the_usual_name_unless_another_is_said(tmp_path: Path) -> None:
    settings = read(tmp_path, WAREHOUSE.replace('key_metadata = "x-request-id"', ""))
    assert settings.services["warehouse"].key_metadata == "idempotency-key"


def test_target_can_come_from_the_environment(tmp_path: Path) -> None:
    settings = read(tmp_path, WAREHOUSE, {"SAGA_PARTICIPANTS": "warehouse=localhost:1"})
    assert settings.services["warehouse"].target == "localhost:1"
    assert settings.services["warehouse"].actions["reserve"] == RESERVE


def test_service_without_a_target_is_refused(tmp_path: Path) -> None:
    assert problems(tmp_path, WAREHOUSE.replace('target = "dns:///warehouse:50051"', "")) == {"participants.warehouse.target": "nothing"}


def test_what_only_services_have_is_refused_without_actions(tmp_path: Path) -> None:
    said = '[participants.shop]\ntarget = "a:1"\ndescriptors = "shop.binpb"\nkey_metadata = "key"'
    assert problems(tmp_path, said) == {"participants.shop.descriptors": "'shop.binpb'", "participants.shop.key_metadata": "'key'"}


@pytest.mark.parametrize(
    "name", ["Idempotency-Key", "grpc-key", "saga-key", "key-bin", "traceparent", "idempotency-execute-key", "a key", ""]
)
def test_name_of_metadata_that_cannot_be_sent_or_means_something_else_is_refused(tmp_path: Path, name: str) -> None:
    assert set(problems(tmp_path, WAREHOUSE.replace("x-request-id", name))) == {"participants.warehouse.key_metadata"}


def test_every_mistake_in_actions_is_told_at_once_with_its_place(tmp_path: Path) -> None:
    text = """
        [participants.warehouse]
        target = "a:1"
        [participants.warehouse.actions]
        short = "warehouse.v1.Warehouse/Reserve"
        "no-name" = { execute = "warehouse.v1.Warehouse/Reserve" }
        none = {}
        reserve = { execute = "warehouse.v1.Warehouse.Reserve", compensat = "x", key_field = "a.b", nothing_to_undo = ["INTERNAL"] }
        release = { execute = "w/R", compensate_input = "input" }
    """
    assert problems(tmp_path, text) == {
        "participants.warehouse.actions.short": "'warehouse.v1.Warehouse/Reserve'",
        "participants.warehouse.actions.no-name": "'no-name'",
        "participants.warehouse.actions.none.execute": "nothing",
        "participants.warehouse.actions.reserve.execute": "'warehouse.v1.Warehouse.Reserve'",
        "participants.warehouse.actions.reserve.compensat": "an unknown key",
        "participants.warehouse.actions.reserve.key_field": "'a.b'",
        "participants.warehouse.actions.reserve.nothing_to_undo": "['INTERNAL']",
        "participants.warehouse.actions.release.compensate_input": "'input'",
    }


@pytest.mark.parametrize("actions", ["actions = {}", 'actions = "reserve"'])
def test_service_without_actions_is_refused(tmp_path: Path, actions: str) -> None:
    assert set(problems(tmp_path, f'[participants.warehouse]\ntarget = "a:1"\n{actions}')) == {"participants.warehouse.actions"}


# ── With the descriptors ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


def unfit(service: ExistingService) -> dict[str, str]:
    """What was found, by its place."""
    with pytest.raises(SettingsError) as caught:
        compile_services({"warehouse": service})
    return {problem.key: str(problem) for problem in caught.value.problems}


def test_service_that_is_asked_later_is_not_judged_now() -> None:
    assert compile_services({"warehouse": ExistingService(target="a:1", actions={"reserve": RESERVE})}) == {}


def test_everything_that_does_not_fit_the_descriptors_is_told_at_once(tmp_path: Path) -> None:
    file = tmp_path / "warehouse.binpb"
    file.write_bytes(warehouse_files().SerializeToString())
    actions = {"watch": ServiceAction(execute=WATCH), "reserve": replace(RESERVE, compensate=RELEASE, compensate_input="input")}
    found = unfit(ExistingService(target="a:1", actions=actions, descriptors=file))
    assert list(found) == ["participants.warehouse.actions.watch.execute", "participants.warehouse.actions.reserve.compensate_input"]
    assert found["participants.warehouse.actions.watch.execute"] == (
        f"participants.warehouse.actions.watch.execute (from descriptors {file}): "
        'expected a unary method, "warehouse.v1.Warehouse/Watch" streams responses'
    )


@pytest.mark.parametrize("content", [None, b"\xff\xff"])
def test_descriptors_that_cannot_be_read_are_told(tmp_path: Path, content: bytes | None) -> None:
    file = tmp_path / "warehouse.binpb"
    if content is not None:
        file.write_bytes(content)
    found = unfit(ExistingService(target="a:1", actions={"reserve": RESERVE}, descriptors=file))
    assert list(found) == ["participants.warehouse.descriptors"]
    assert "expected a FileDescriptorSet, as protoc" in found["participants.warehouse.descriptors"]
