"""docs/tutorial.md does what it says, in an empty folder, with the wheel, in less time than it promises."""

import re
import time
from pathlib import Path

import pytest

from tests.documents import ROOT
from tests.tutorial import blocks_of, follow
from tests.wheels import build_wheel, download_with_dependencies, environment

PAGE = ROOT / "docs" / "tutorial.md"
FIFTEEN_MINUTES_S = 15 * 60


def test_every_block_is_a_file_a_command_or_what_is_printed() -> None:
    found = blocks_of(PAGE)
    assert PAGE.read_text().count("```") == 2 * len(found)
    assert [block.text for block in found if not (block.file or block.language in {"sh", "text"})] == []
    assert [block.note for block in found if block.language == "sh" and not block.is_run] == ["not run: it needs Docker"]


def test_name_of_every_file_is_told_to_who_reads_it() -> None:
    """A comment is not seen."""
    for found in re.finditer(r"([^\n]*)\n\n<!-- file: (\S+) -->", PAGE.read_text()):
        assert f"`{found[2]}`" in found[1]


@pytest.mark.full
@pytest.mark.timeout(FIFTEEN_MINUTES_S)
@pytest.mark.xdist_group("default-port")
def test_tutorial_is_done_from_an_empty_folder_in_fifteen_minutes(tmp_path: Path) -> None:
    # Who says `pip install` there gets this wheel, and asks no index, where another package could have its name.
    shelf = download_with_dependencies(tmp_path / "shelf", build_wheel(tmp_path / "wheel"), "[testing]")
    folder = tmp_path / "empty"
    folder.mkdir()
    began = time.monotonic()
    follow(PAGE, folder, {**environment(), "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(shelf)}, time_limit_s=FIFTEEN_MINUTES_S)
    assert time.monotonic() - began < FIFTEEN_MINUTES_S
    printed = (tmp_path / "printed.txt").read_text()
    assert re.search(r"RUNNING +.*place-order|place-order.* RUNNING", printed), "the saga waits for the service that was killed"
    assert re.search(r"^3 passed", printed, re.MULTILINE)
