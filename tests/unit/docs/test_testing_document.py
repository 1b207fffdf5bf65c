"""docs/testing.md does what it says: its files are a project of a user, whose tests pass, and whose reports are those shown.

UPDATE_DOCS=1 writes again what is printed.
"""

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from participant_sdk.testing import PromiseBrokenError
from tests.documents import ROOT, with_part
from tests.processes import python_environment

DOCUMENT = ROOT / "docs" / "testing.md"
CARELESS = re.compile(r"<!-- careless: careless.py -->\n```python\n(.*?)```", re.DOTALL)
REPORT = re.compile(r"<!-- report of careless.py -->\n```text\n(.*?)```", re.DOTALL)
FILE = re.compile(r"<!-- file: (\S+?)(?:, continued)? -->\n```(\w+)\n(.*?)```", re.DOTALL)


def write_project(folder: Path) -> None:
    """Writes the files of the documents, as a user would have them."""
    contents: dict[str, list[str]] = {}
    for document in (DOCUMENT, ROOT / "README.md"):
        for name, _, content in FILE.findall(document.read_text()):
            contents.setdefault(name, []).append(content)
    for name, parts in contents.items():
        (folder / name).write_text("\n\n".join(parts))


def test_every_snippet_is_in_a_file_that_is_run() -> None:
    text = DOCUMENT.read_text()
    assert text.count("```python\n") == len([each for each in FILE.findall(text) if each[1] == "python"]) + len(CARELESS.findall(text))


def run_project(folder: Path, python: str, *arguments: str, env: dict[str, str] | None = None) -> str:
    """What pytest prints there; every test must pass."""
    command = [python, "-m", "pytest", "-q", "-s", "-p", "no:cacheprovider", "-W", "error", *arguments]
    done = subprocess.run(command, cwd=folder, env=env, check=False, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.full
def test_tests_of_the_document_pass(tmp_path: Path) -> None:
    """All but the exploration, whose worlds the full tier lives through, from the wheel."""
    write_project(tmp_path)
    plugin = ("-p", "saga_pytest.plugin", "-p", "no:asyncio")
    run_project(tmp_path, sys.executable, *plugin, "-k", "not whatever_happens", env=python_environment())


def test_report_is_the_one_that_is_shown() -> None:
    (code,), (shown,) = CARELESS.findall(DOCUMENT.read_text()), REPORT.findall(DOCUMENT.read_text())
    names: dict[str, Any] = {"__name__": "careless"}
    exec(compile(code, "careless.py", "exec"), names)
    with pytest.raises(PromiseBrokenError) as broken:
        names["test_counter"]()
    block = "<!-- report of careless.py -->\n```text\n"
    text = with_part(DOCUMENT, f"{block}{broken.value}\n```", old=f"{block}{shown}```")
    assert text == DOCUMENT.read_text(), "run the tests once with UPDATE_DOCS=1"
