"""What importing the SDK loads: nothing that only some of its users need."""

import subprocess
import sys
from typing import Final

import pytest

from tests.processes import ROOT, python_environment

TELL: Final = "import sys, participant_sdk; print(*sorted(sys.modules))"


@pytest.fixture(scope="module")
def loaded() -> frozenset[str]:
    command = [sys.executable, "-c", TELL]
    done = subprocess.run(command, cwd=ROOT, env=python_environment(), capture_output=True, text=True, timeout=60, check=True)
    return frozenset(done.stdout.split())


def test_import_of_the_sdk_loads_no_extra(loaded: frozenset[str]) -> None:
    extras = {"sqlalchemy", "cel_expr_python", "click", "rich", "yaml", "alembic", "pytest", "coordinator", "opentelemetry.sdk"}
    assert loaded & extras == set()


def test_import_of_the_sdk_does_not_load_what_judges_definitions(loaded: frozenset[str]) -> None:
    """A third of what is the SDK's own, for what only starts sagas or serves participants."""
    judge = {name for name in loaded if name.startswith("participant_sdk.definitions.")}
    assert judge == {f"participant_sdk.definitions.{name}" for name in ("durations", "policies", "problems")}
