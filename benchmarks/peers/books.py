"""What was done and undone, counted where the steps take effect, and compared with what should have been. Standard library only."""

import json
import os
import signal
from pathlib import Path
from typing import Final, Self

from benchmarks.measured_run import STEPS, WARM_UP_SAGAS, Work

STEP_NAMES: Final = ("one", "two", "three")
ASKING: Final = signal.SIGUSR1
"""Not SIGTERM, for which some servers set handlers of their own."""
assert len(STEP_NAMES) == STEPS


class Books:
    """Which sagas each step was done and undone for. A call that is repeated counts once: its number is there already."""

    def __init__(self) -> None:
        self._done: dict[str, set[int]] = {step: set() for step in STEP_NAMES}
        self._undone: dict[str, set[int]] = {step: set() for step in STEP_NAMES}

    def do(self, step: str, number: int) -> None:
        """A step took effect for the saga of this number."""
        self._done[step].add(number)

    def undo(self, step: str, number: int) -> None:
        """A step was undone."""
        self._undone[step].add(number)

    def check(self, work: Work) -> None:
        """Ends the program with a message unless every saga of a measured run did what it should, and no more."""
        numbers = {*range(min(WARM_UP_SAGAS, work.sagas)), *range(WARM_UP_SAGAS, WARM_UP_SAGAS + work.sagas)}
        for place, step in enumerate(STEP_NAMES, 1):
            is_refused = work.is_compensated and place == STEPS
            _compare(f"step {step} was done", self._done[step], set() if is_refused else numbers)
            is_undone = work.is_compensated and not is_refused
            _compare(f"step {step} was undone", self._undone[step], numbers if is_undone else set())

    def end_when_asked(self, path: Path) -> None:
        """On ASKING the process writes its books and ends at once: servers that end in good order wait for connections, or minutes."""

        def end(*_: object) -> None:
            self.write(path)
            os._exit(0)

        signal.signal(ASKING, end)

    def write(self, path: Path) -> None:
        """Keeps them in a file that is whole as soon as it is there."""
        content = {"done": _sorted(self._done), "undone": _sorted(self._undone)}
        path.with_suffix(".new").write_text(json.dumps(content))
        path.with_suffix(".new").rename(path)

    @classmethod
    def read(cls, path: Path) -> Self:
        """The books that a process has written."""
        content = json.loads(path.read_text())
        books = cls()
        books._done = {step: set(numbers) for step, numbers in content["done"].items()}
        books._undone = {step: set(numbers) for step, numbers in content["undone"].items()}
        return books


def _sorted(entries: dict[str, set[int]]) -> dict[str, list[int]]:
    return {step: sorted(numbers) for step, numbers in entries.items()}


def _compare(what: str, found: set[int], expected: set[int]) -> None:
    if found == expected:
        return
    missing, excess = sorted(expected - found)[:5], sorted(found - expected)[:5]
    raise SystemExit(
        f"{what} for {len(found)} sagas, expected {len(expected)}: nothing is measured (missing: {missing} ..., in excess: {excess} ...)"
    )
