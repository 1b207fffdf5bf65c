"""The public surface: what it is, so that a change is seen in review, and that type checkers know all of it."""

import importlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from docs._extensions.public_modules import PUBLIC_MODULES
from tests.documents import ROOT
from tests.processes import python_environment
from tests.tutorial import blocks_of
from tests.typing.public_api import public_api
from tests.typing.test_handler_types import ACCEPTED, pyright_errors

BLOCKING_FACE = re.compile(r'Inferred type is "(blocking|iterating)\[|Return type is "SyncSagaHandle\[|Inferred type is "\(saga: Saga\)')
"""What is made of the async client by descriptors is inferred, and the accepted programs say by whom alike."""
FROZEN = Path(__file__).parent / "public_api.txt"


def test_public_surface_is_the_one_that_was_agreed() -> None:
    surface = public_api()
    if os.environ.get("UPDATE_DOCS"):
        FROZEN.write_text(surface)
    assert surface.splitlines() == FROZEN.read_text().splitlines(), (
        "the public surface has changed: if that is wanted, run this once with UPDATE_DOCS=1, and tell users in CHANGELOG.md"
    )


def test_every_public_module_has_a_page() -> None:
    for module in PUBLIC_MODULES:
        assert f"<!-- made by make docs: module {module} -->" in (ROOT / "docs" / "reference" / f"{module}.md").read_text()


@pytest.mark.full
@pytest.mark.timeout(240)
def test_types_of_the_public_surface_are_all_known() -> None:
    """What pyright calls type completeness, of the names that are public and their members."""
    command = [sys.executable, "-m", "pyright", "--verifytypes", "participant_sdk", "--ignoreexternal", "--outputjson"]
    # Here pyright takes the first Python of PATH, whatever `--pythonpath` says.
    first = {"PATH": os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"]))}
    ended = subprocess.run(command, cwd="/", env=python_environment(first), capture_output=True, text=True, timeout=200, check=False)
    found = json.loads(ended.stdout)["typeCompleteness"]
    assert Path(found["packageRootDirectory"]) == ROOT / "participant_sdk", "it is this checkout that is judged"
    origins = {f"{member.__module__}.{member.__qualname__}" for _, _, member in public_names() if hasattr(member, "__qualname__")}
    unknown = [
        f"{symbol['name']}: {' '.join(each['message'].split())}"
        for symbol in found["symbols"]
        for each in symbol.get("diagnostics", [])
        if each["severity"] == "error" and is_of(symbol["name"], origins) and not BLOCKING_FACE.search(each["message"])
    ]
    assert unknown == []


@pytest.mark.full
@pytest.mark.timeout(240)
def test_strict_checker_finds_nothing_in_programs_that_use_it(tmp_path: Path) -> None:
    """The tutorial's services and tests, the programs beside this test, and one that names everything there is."""
    programs = tmp_path / "programs"
    programs.mkdir()
    for block in blocks_of(ROOT / "docs" / "tutorial.md"):
        if block.file is not None:
            (programs / block.file).write_text(block.text)
    (programs / "everything.py").write_text("\n".join(everything()))
    errors, told = pyright_errors([*programs.glob("*.py"), *ACCEPTED], tmp_path / "checked", mode="strict")
    assert errors == {}, told


def public_names() -> Iterator[tuple[str, str, object]]:
    """Module, name, and what it is."""
    for module in PUBLIC_MODULES:
        found = importlib.import_module(module)
        for name in found.__all__:
            yield module, name, getattr(found, name)


def is_of(symbol: str, origins: set[str]) -> bool:
    return any(symbol == origin or symbol.startswith(f"{origin}.") for origin in origins)


def everything() -> Iterator[str]:
    """A program that uses each public name as a value."""
    for module, name, _ in public_names():
        yield f"from {module} import {name} as {alias(module, name)}"
    yield "print("
    for module, name, _ in public_names():
        yield f"    {alias(module, name)},"
    yield ")"


def alias(module: str, name: str) -> str:
    return f"{module.replace('.', '_')}_{name}"
