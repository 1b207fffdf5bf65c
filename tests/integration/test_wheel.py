"""The wheel, installed as a user installs it: a project that is tested with the kit, and a service that has nothing but the SDK."""

import json
import re
import shutil
import zipfile
from pathlib import Path

import pytest

from tests.unit.docs.test_testing_document import run_project, write_project
from tests.wheels import build_sdist, build_wheel, environment_with, run

BARE = """
import sys
import participant_sdk.testing as kit
assert "coordinator" not in sys.modules and "pytest" not in sys.modules
kit.step_context(), kit.MemoryBarrier(), kit.stub
try:
    kit.SagaKit
except ImportError as error:
    print(error)
"""

BASE = {
    "googleapis-common-protos",
    "grpcio",
    "grpcio-health-checking",
    "grpcio-reflection",
    "grpcio-status",
    "opentelemetry-api",
    "protobuf",
    "saga-coordinator",
    "typing-extensions",
}
"""Ours, what it names, and what those need."""

DIST_INFO = "saga_coordinator-0.1.0.dist-info"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_wheel(tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory, wheel: Path) -> str:
    """The Python of a service that has nothing but the base."""
    return environment_with(tmp_path_factory.mktemp("bare") / "venv", wheel)


@pytest.mark.full
@pytest.mark.xdist_group("wheel")
def test_project_of_a_user_is_tested_with_the_kit(tmp_path: Path, wheel: Path) -> None:
    python = environment_with(tmp_path / "venv", wheel, "[testing]")
    project = tmp_path / "project"
    project.mkdir()
    write_project(project)
    printed = run_project(project, python)
    assert re.search(r"order v1: \d+ worlds, 4 of them without a fault: every promise was kept", printed)
    assert "saga_pytest" in run(python, "-m", "pytest", "--trace-config", "--collect-only", str(project))


@pytest.mark.full
@pytest.mark.xdist_group("wheel")
def test_service_needs_nothing_of_the_coordinator(bare: str) -> None:
    assert "pip install 'saga-coordinator[testing]'" in run(bare, "-c", BARE)


@pytest.mark.full
@pytest.mark.xdist_group("wheel")
def test_base_is_what_a_participant_needs_and_no_more(bare: str) -> None:
    listed = {each["name"].lower().replace("_", "-") for each in json.loads(run(bare, "-m", "pip", "list", "--format", "json"))}
    assert listed - {"pip", "setuptools"} == BASE


@pytest.mark.full
@pytest.mark.xdist_group("wheel")
def test_participant_of_the_base_is_served_and_called(tmp_path: Path, bare: str) -> None:
    program = shutil.copy(Path(__file__).parent / "smoke.py", tmp_path)
    assert run(bare, str(program)).splitlines() == ["greeting greet GUARANTEE_AT_LEAST_ONCE", "good morning, world", "world is forgotten"]


@pytest.mark.full
@pytest.mark.xdist_group("wheel")
def test_wheel_of_the_sdist_is_the_same(tmp_path: Path, wheel: Path) -> None:
    again = build_wheel(tmp_path / "again", build_sdist(tmp_path / "sdist"))
    assert contents(again) == contents(wheel)


@pytest.mark.full
@pytest.mark.xdist_group("wheel")
def test_wheel_says_that_it_is_typed_and_has_the_contract(wheel: Path) -> None:
    names = set(contents(wheel))
    assert {"participant_sdk/py.typed", "coordinator/py.typed", "saga/py.typed"} <= names
    assert {f"saga/v1/{name}.proto" for name in ("saga", "participant", "coordinator", "operator")} <= names
    assert {name.partition("/")[0] for name in names} == {"coordinator", "participant_sdk", "saga", "saga_pytest", DIST_INFO}


def contents(wheel: Path) -> dict[str, int]:
    """Names of the files in it, with the checksum of each."""
    with zipfile.ZipFile(wheel) as archive:
        return {each.filename: each.CRC for each in archive.infolist()}
