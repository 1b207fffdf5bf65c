"""docs/definitions.md does what it says: its files are checked, its commands are run, its pictures and tables are made.

UPDATE_DOCS=1 writes again what commands print, pictures and tables.
"""

import os
import re
from collections.abc import Iterator
from pathlib import Path

import click
import grpc_tools
import pytest
from click.testing import CliRunner
from grpc_tools import protoc

from coordinator.cli.checking import check, diff
from coordinator.cli.definition_diff import Side, compare_definitions
from coordinator.cli.definition_file import FoundDefinition, find_definitions
from participant_sdk.definitions import expressions, graph, policies, rules
from tests.documents import ROOT, between, with_part

DOCUMENT = ROOT / "docs" / "definitions.md"
NOBODY = "127.0.0.1:1"
"""Where no coordinator is."""

FILE = re.compile(r"<!-- file: (\S+) -->\n```(\w+)\n(.*?)```", re.DOTALL)
CHANGED_FILE = re.compile(r"<!-- file: (\S+): (\S+) with .*?\n(.*?)\n-->", re.DOTALL)
CONSOLE = re.compile(r"```console\n\$ saga (.*?)\n(.*?)```", re.DOTALL)
PICTURE = re.compile(r"<!-- picture: (\S+) -->\n```mermaid\n(.*?)```", re.DOTALL)
EXPRESSIONS = re.compile(r"<!-- expressions -->\n(.*?)\n\n", re.DOTALL)
LIMITS = ("<!-- limits:", "<!-- end of limits -->")

saga = click.Group("saga", commands={"check": check, "diff": diff})


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with every file of the document, where commands are run."""
    folder = tmp_path_factory.mktemp("definitions")
    for name, _, content in FILE.findall(DOCUMENT.read_text()):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(content)
    for name, base, changes in CHANGED_FILE.findall(DOCUMENT.read_text()):
        (folder / name).write_text(_with_changes((folder / base).read_text(), changes))
    includes = [f"-I{folder}", f"-I{Path(grpc_tools.__file__).parent / '_proto'}"]
    outputs = ["--include_imports", f"--descriptor_set_out={folder / 'orders.binpb'}", f"--python_out={folder}"]
    assert protoc.main(["protoc", *includes, *outputs, "orders/v1/orders.proto"]) == 0
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.syspath_prepend(str(folder))
        yield folder


def _with_changes(text: str, changes: str) -> str:
    for change in changes.splitlines():
        old, new = change.split(" => ")
        assert text.count(old) == 1, f"{old!r} is there once"
        text = text.replace(old, new)
    return text


def _the(file: str) -> FoundDefinition:
    (found,) = find_definitions(file, None)
    return found


def test_every_file_in_the_document_is_one_that_the_tests_use() -> None:
    text = DOCUMENT.read_text()
    for language in ("proto", "yaml", "python"):
        assert text.count(f"```{language}\n") == len([each for each in FILE.findall(text) if each[1] == language])
    assert text.count("```console\n") == len(CONSOLE.findall(text))


def test_saga_in_yaml_and_in_python_is_the_same(folder: Path) -> None:
    of_yaml, of_python = _the("order.yaml"), _the("order.py")
    assert of_yaml.judge() == []
    assert of_python.judge() == []
    sides = [Side(definition=each.definition, descriptors=each.descriptors) for each in (of_yaml, of_python)]
    assert compare_definitions(*sides) == []
    assert of_yaml.descriptors.file[-1].name == "orders/v1/orders.proto"


@pytest.mark.parametrize("index", range(len(CONSOLE.findall(DOCUMENT.read_text()))))
def test_command_prints_what_the_document_shows(folder: Path, index: int) -> None:
    arguments, printed = CONSOLE.findall(DOCUMENT.read_text())[index]
    result = CliRunner().invoke(saga, arguments.split(), env={"SAGA_ADDRESS": NOBODY})
    shown = "\n".join(line.rstrip() for line in result.output.splitlines()).replace(NOBODY, "127.0.0.1:7700") + "\n"
    block = f"```console\n$ saga {arguments}\n"
    assert with_part(DOCUMENT, f"{block}{shown}```", old=f"{block}{printed}```") == DOCUMENT.read_text(), (
        "run the tests once with UPDATE_DOCS=1"
    )


def test_picture_is_that_of_its_definition(folder: Path) -> None:
    ((file, drawn),) = PICTURE.findall(DOCUMENT.read_text())
    result = CliRunner().invoke(check, [file, "--mermaid"])
    block = f"<!-- picture: {file} -->\n```mermaid\n"
    assert with_part(DOCUMENT, f"{block}{result.output}```", old=f"{block}{drawn}```") == DOCUMENT.read_text(), (
        "run the tests once with UPDATE_DOCS=1"
    )


def _expressions() -> list[str]:
    (table,) = EXPRESSIONS.findall(DOCUMENT.read_text())
    return [row.split(" | `")[1].removesuffix("` |").replace("\\|", "|") for row in table.splitlines()[2:]]


@pytest.mark.parametrize("text", _expressions())
def test_expression_of_the_table_is_accepted(folder: Path, text: str) -> None:
    found = _the("order.yaml")
    # As a condition of the last step, where all that the table reads has come before.
    found.definition.steps[-1].when = f"size([{text}]) == 1"
    assert found.judge() == []


def test_expression_that_is_wrong_would_not_be_accepted(folder: Path) -> None:
    found = _the("order.yaml")
    found.definition.steps[-1].when = "size([input.nothing]) == 1"
    assert [problem.place for problem in found.judge()] == ["step ship, when"]


def test_limits_are_those_of_the_code() -> None:
    text = DOCUMENT.read_text()
    if os.environ.get("UPDATE_DOCS"):
        DOCUMENT.write_text(between(text, *LIMITS, limits_table()))
    assert between(DOCUMENT.read_text(), *LIMITS) == limits_table(), "run the tests once with UPDATE_DOCS=1"


def limits_table() -> str:
    rows = [
        ("steps", f"{graph.STEPS_MAX}"),
        ("labels", f"{rules.LABELS_MAX}, keys of {rules.LABEL_KEY_CHARS_MAX} and values of {rules.LABEL_VALUE_CHARS_MAX} characters"),
        ("durations", f"1 ms to {policies.DURATION_US_MAX // 86_400_000_000} days"),
        ("an expression", f"{expressions.EXPRESSION_CHARS_MAX:,} characters"),
        ("macros (`map`, `filter`, `all`, `exists`) inside one another", f"{expressions.LOOPS_NESTED_MAX}"),
        ("what an expression returns", f"{expressions.RESULT_BYTES_MAX // 1024} KiB"),
    ]
    return "\n".join(["| Of | At most |", "|---|---|", *(f"| {what} | {limit} |" for what, limit in rows)])
