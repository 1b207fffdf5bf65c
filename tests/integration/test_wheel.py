"""The wheel, installed as a user installs it: a project that is tested with the kit, and a service that has nothing but the SDK."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.documents import ROOT
from tests.unit.docs.test_testing_document import run_project, write_project

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


def run(*command: str) -> str:
    env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(command, cwd="/", env=env, check=False, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout}{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from this checkout, without asking anybody for anything: the backend is in the dev group."""
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir", str(folder), str(ROOT)]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, f"is hatchling there? make install\n{done.stdout}{done.stderr}"
    (built,) = folder.glob("*.whl")
    return built


def installed(folder: Path, wheel: Path, extra: str) -> str:
    """The Python of a fresh environment with the wheel in it."""
    run(sys.executable, "-m", "venv", str(folder))
    python = str(folder / "bin" / "python")
    run(python, "-m", "pip", "install", "--quiet", f"saga-coordinator{extra} @ {wheel.as_uri()}")
    return python


@pytest.mark.full
@pytest.mark.xdist_group("wheel")
def test_project_of_a_user_is_tested_with_the_kit(tmp_path: Path, wheel: Path) -> None:
    python = installed(tmp_path / "venv", wheel, "[testing]")
    project = tmp_path / "project"
    project.mkdir()
    write_project(project)
    printed = run_project(project, python)
    assert re.search(r"order v1: \d+ worlds, 4 of them without a fault: every promise was kept", printed)
    assert "saga_pytest" in run(python, "-m", "pytest", "--trace-config", "--collect-only", str(project))


@pytest.mark.full
@pytest.mark.xdist_group("wheel")
def test_service_needs_nothing_of_the_coordinator(tmp_path: Path, wheel: Path) -> None:
    python = installed(tmp_path / "venv", wheel, "")
    assert "pip install 'saga-coordinator[testing]'" in run(python, "-c", BARE)
