"""docs/travel.md shows what is there: its pieces stand in the example, its commands print what it says, its tests exist.

UPDATE_DOCS=1 writes again what commands print, and the picture.
"""

import ast
import re
import shutil
from pathlib import Path

import click
import pytest
from click.testing import CliRunner
from google.protobuf import json_format

from coordinator.cli.checking import check
from coordinator.cli.definition_diff import Side, compare_definitions
from coordinator.cli.definition_file import FoundDefinition, find_definitions
from examples.travel.book_trip import book_trip, weekend
from tests.documents import ROOT, with_part
from travel.v1.travel_pb2 import CABIN_BUSINESS, BookTrip

DOCUMENT = ROOT / "docs" / "travel.md"
TRAVEL = ROOT / "examples" / "travel"
TESTS = ROOT / "tests" / "integration" / "test_travel.py"

PIECES = re.compile(r"```(yaml|python)\n(.*?)```", re.DOTALL)
MISTAKES = re.compile(r"<!-- mistakes:\n(.*?)\n-->", re.DOTALL)
CONSOLE = re.compile(r"```console\n\$ saga (.*?)\n(.*?)```", re.DOTALL)
PICTURE = re.compile(r"(<!-- picture -->\n```mermaid\n)(.*?)```", re.DOTALL)
CITED = re.compile(r"^\|.*\| `(test_\w+)` \|$", re.MULTILINE)
NOT_OF_THE_TABLE = {"test_mistake_in_an_expression_is_told_at_registration", "test_manager_answers_on_a_terminal"}

saga = click.Group("saga", commands={"check": check})


def _the(file: Path) -> FoundDefinition:
    (found,) = find_definitions(str(file), None)
    return found


def test_saga_in_yaml_and_in_python_is_the_same() -> None:
    of_yaml = _the(TRAVEL / "book_trip.yaml")
    assert of_yaml.judge() == []
    of_python = Side(definition=book_trip.definition(), descriptors=book_trip.descriptors())
    assert compare_definitions(Side(definition=of_yaml.definition, descriptors=of_yaml.descriptors), of_python) == []


@pytest.mark.parametrize("index", range(len(PIECES.findall(DOCUMENT.read_text()))))
def test_piece_of_the_example_stands_there(index: int) -> None:
    language, piece = PIECES.findall(DOCUMENT.read_text())[index]
    files = [TRAVEL / "book_trip.yaml"] if language == "yaml" else sorted(TRAVEL.glob("*.py"))
    assert [file.name for file in files if piece in file.read_text()] != []


def test_document_shows_nothing_that_is_not_looked_at() -> None:
    languages = re.findall(r"```(\w+)\n", DOCUMENT.read_text())
    assert set(languages) == {"yaml", "python", "console", "mermaid", "text"}
    assert (languages.count("mermaid"), languages.count("text")) == (1, 1)


@pytest.mark.parametrize("index", range(len(CONSOLE.findall(DOCUMENT.read_text()))))
def test_command_prints_what_the_document_shows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, index: int) -> None:
    for name in ("book_trip.yaml", "travel.binpb"):
        shutil.copy(TRAVEL / name, tmp_path)
    (tmp_path / "wrong.yaml").write_text(_with_mistakes((TRAVEL / "book_trip.yaml").read_text()))
    monkeypatch.chdir(tmp_path)
    arguments, printed = CONSOLE.findall(DOCUMENT.read_text())[index]
    result = CliRunner().invoke(saga, arguments.split())
    shown = "\n".join(line.rstrip() for line in result.output.splitlines()) + "\n"
    block = f"```console\n$ saga {arguments}\n"
    assert with_part(DOCUMENT, f"{block}{shown}```", old=f"{block}{printed}```") == DOCUMENT.read_text(), (
        "run the tests once with UPDATE_DOCS=1"
    )


def test_picture_is_that_of_the_definition() -> None:
    ((head, drawn),) = PICTURE.findall(DOCUMENT.read_text())
    result = CliRunner().invoke(check, [str(TRAVEL / "book_trip.yaml"), "--mermaid"])
    made = result.output.rstrip("\n") + "\n"
    assert with_part(DOCUMENT, f"{head}{made}```", old=f"{head}{drawn}```") == DOCUMENT.read_text(), "run the tests once with UPDATE_DOCS=1"


def test_table_names_every_test_of_a_trip() -> None:
    functions = ast.parse(TESTS.read_text()).body
    there = {each.name for each in functions if isinstance(each, ast.AsyncFunctionDef) and each.name.startswith("test_")}
    assert set(CITED.findall(DOCUMENT.read_text())) == there - NOT_OF_THE_TABLE


def test_trip_of_the_readme_is_a_trip() -> None:
    wanted = weekend("43")
    wanted.destination, wanted.cabin, wanted.insurance = "JFK", CABIN_BUSINESS, True
    assert "conference.json" in (TRAVEL / "README.md").read_text()
    assert json_format.Parse((TRAVEL / "conference.json").read_text(), BookTrip()) == wanted


def _with_mistakes(text: str) -> str:
    (mistakes,) = MISTAKES.findall(DOCUMENT.read_text())
    for mistake in mistakes.splitlines():
        right, wrong = mistake.split(" => ")
        assert text.count(right) == 1, f"{right!r} is there once"
        text = text.replace(right, wrong)
    return text
