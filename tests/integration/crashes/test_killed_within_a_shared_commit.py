"""A participant that is killed while calls share a database transaction: each is there as a whole or not at all (P1, R18)."""

import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy import create_engine

from participant_sdk import SqlBarrier
from tests.integration.crashes.shared_commits_process import CALLS, REFUSED_EVERY
from tests.processes import python_environment

pytestmark = pytest.mark.full

KILLS = (3, 17, 20, 24)
"""In which handler after its start it is killed: in the first and in later groups, at their beginning, middle and end."""


@pytest.mark.parametrize("kind", ["blocking", "async"])
async def test_killed_participant_has_done_each_call_or_nothing_of_it(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "participant.db"
    with closing(sqlite3.connect(path)) as database:
        database.executescript(
            "PRAGMA journal_mode = WAL; CREATE TABLE book (line TEXT UNIQUE); CREATE TABLE total (lines INTEGER); "
            "INSERT INTO total VALUES (0)"
        )
    engine = create_engine(f"sqlite:///{path}")
    await SqlBarrier(engine).create_table()
    engine.dispose()
    answered: set[int] = set()
    for kill in KILLS:
        answered |= _killed_in(kill, path, kind)
        _check(path, answered)
    assert len(answered) > CALLS


def _killed_in(handler: int, path: Path, kind: str) -> set[int]:
    """Runs it until that many handlers have begun; returns what was answered. What was done before is answered without a handler."""
    command = [sys.executable, "-m", "tests.integration.crashes.shared_commits_process", str(path), kind]
    answered: set[int] = set()
    begun = 0
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=python_environment()) as process:
        assert process.stdout is not None
        for line in process.stdout:
            what, number = line.split()
            if what == "answered":
                answered.add(int(number))
                continue
            begun += 1
            if begun == handler:
                process.kill()
    return answered


def _check(path: Path, answered: set[int]) -> None:
    with closing(sqlite3.connect(path)) as database:
        states = {int(key): state for key, state in database.execute("SELECT key, execution FROM saga_barrier")}
        lines = {int(line) for (line,) in database.execute("SELECT line FROM book")}
        (total,) = database.execute("SELECT lines FROM total").fetchone()
    assert answered <= states.keys(), "an answer that was given is stored"
    assert lines == {key for key, state in states.items() if state == "SUCCEEDED"}, "effect and reply are committed together"
    assert total == len(lines), "nothing is there by half"
    assert {key for key, state in states.items() if state != "SUCCEEDED"} == {key for key in states if key % REFUSED_EVERY == 0}
