"""What happened in a world, for checkers and for people."""

from dataclasses import dataclass, field
from enum import StrEnum
from typing import NamedTuple


class Deed(StrEnum):
    """What a participant did to its own data."""

    DO = "do"
    UNDO = "undo"
    BEGIN = "begin"
    """An accepting action has noted the wish; its effect comes later."""


class Entry(NamedTuple):
    """One line of a participant's ledger. Written in the instant of the commit that makes it true."""

    at_s: float
    saga_id: str
    step_id: str
    deed: Deed
    key: str
    """Of the execution."""


class Line(NamedTuple):
    """One line of the transcript."""

    at_s: float
    saga_id: str
    """Empty: it concerns all."""
    text: str


@dataclass
class Record:
    """Everything that checkers look at, apart from the database."""

    ledger: list[Entry] = field(default_factory=list)
    lines: list[Line] = field(default_factory=list)
    violations: list[str] = field(default_factory=list)
    acknowledged: set[str] = field(default_factory=set)
    """Sagas whose start was answered."""

    def violated(self, rule: str, saga_id: str, text: str) -> None:
        """A promise is broken."""
        self.violations.append(f"{rule}: saga {saga_id}: {text}")

    def transcript(self, saga_id: str = "") -> str:
        """What concerns one saga, or everything."""
        told = (line for line in self.lines if not saga_id or line.saga_id in ("", saga_id))
        return "\n".join(f"{line.at_s:12.6f}  {line.saga_id[-6:]:6}  {line.text}" for line in told)
