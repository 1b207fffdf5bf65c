"""What importing the SDK loads and costs: nothing that only some of its users need."""

import ast
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

import participant_sdk
from tests.processes import ROOT, python_environment

PARTICIPANT: Final = "from participant_sdk import NoBarrier, Participant, Rejected, StepContext, action, payload, serve"
CLIENT: Final = "from participant_sdk import Saga, SagaClient, SagaNotCompleted"
EXTRAS: Final = {
    "sqlalchemy",
    "cel_expr_python",
    "click",
    "rich",
    "yaml",
    "alembic",
    "pytest",
    "pydantic",
    "coordinator",
    "opentelemetry.sdk",
}
PROCESSOR_TIME_S_MAX: Final = 0.3
TRIES: Final = 5


def run(code: str) -> str:
    command = [sys.executable, "-c", code]
    return subprocess.run(command, cwd=ROOT, env=python_environment(), capture_output=True, text=True, timeout=60, check=True).stdout


def loaded_by(code: str) -> frozenset[str]:
    return frozenset(run(f"import sys; {code}; print(*sorted(sys.modules))").split())


@pytest.mark.parametrize("code", [PARTICIPANT, CLIENT])
def test_import_of_the_sdk_loads_no_extra(code: str) -> None:
    assert loaded_by(code) & EXTRAS == set()


def test_what_only_starts_sagas_loads_neither_server_nor_barrier_nor_what_judges_definitions() -> None:
    loaded = loaded_by(CLIENT)
    assert loaded & {"participant_sdk.server", "participant_sdk.servicer", "participant_sdk.barrier.guarded"} == set()
    judge = {name for name in loaded if name.startswith("participant_sdk.definitions.")}
    assert judge == {f"participant_sdk.definitions.{name}" for name in ("durations", "policies", "problems")}


def test_import_of_the_sdk_takes_little_processor_time() -> None:
    """The least of some tries: whatever else runs on the same core only adds to it."""
    tell = "import time; began = time.process_time(); import participant_sdk; print(time.process_time() - began)"
    assert min(float(run(tell)) for _ in range(TRIES)) < PROCESSOR_TIME_S_MAX


def test_names_are_where_type_checkers_are_told_that_they_are() -> None:
    tree = ast.parse(Path(participant_sdk.__file__).read_text(encoding="utf-8"))
    told = next(node for node in tree.body if isinstance(node, ast.If))
    imports = {name.name: node.module for node in told.body if isinstance(node, ast.ImportFrom) for name in node.names}
    assert imports == participant_sdk._HOME_OF
    assert sorted(imports) == sorted(participant_sdk.__all__)
    for name in participant_sdk.__all__:
        assert getattr(participant_sdk, name).__class__ is not None


def test_name_that_is_not_there_is_told() -> None:
    with pytest.raises(AttributeError, match="module 'participant_sdk' has no attribute 'Particpant'"):
        _ = participant_sdk.Particpant  # type: ignore[attr-defined]  # as somebody mistypes it


def test_name_that_needs_an_extra_says_which() -> None:
    code = "import sys; sys.modules['sqlalchemy'] = None\ntry:\n    from participant_sdk import SqlBarrier\n"
    code += "except ImportError as error:\n    print(error)"
    assert run(code) == "SqlBarrier needs sqlalchemy: install the extra with pip install 'saga-coordinator[barrier]'\n"
