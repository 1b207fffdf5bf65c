"""The demo of the travel agency keeps what it promises: it checks its own books, and says so."""

import asyncio
import re
import subprocess
import sys

import pytest

from tests.integration.travel_agency import travel_environment
from tests.processes import ROOT


@pytest.mark.full
async def test_demo_tells_six_trips_and_its_books_add_up() -> None:
    ended = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-m", "examples.travel"],
        cwd=ROOT,
        env=travel_environment(),
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert re.findall(r"^(\d)\. ", ended.stdout, re.MULTILINE) == ["1", "2", "3", "4", "5", "6"]
    assert ended.stdout.count("$ saga explain ") == 2
    assert "seats, rooms and money add up" in ended.stdout
