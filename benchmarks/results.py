"""The file of results: written after every run, so that nothing is lost and a suite can go on later. Standard library only."""

import dataclasses
import json
import re
import statistics
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, NamedTuple, Self

from benchmarks.measured_run import Run

REASON_CHARS: Final = 300


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """One run of one arm, whatever came of it."""

    arm: str
    round: int
    """From 1. Arms of one round were measured in turns."""
    at: str
    """When it began: ISO 8601, UTC."""
    wall_s: float
    """How long it took with all that was started and stopped for it."""
    run: Run | None
    """None: it failed."""
    error: str = ""
    """Why it failed, as it was told."""

    @property
    def reason(self) -> str:
        """Why it failed, in one line: the error that was raised, or the last line."""
        lines = [line.strip(" |") for line in self.error.strip().splitlines()] or ["no reason given"]
        raised = [line for line in lines if re.match(r"[\w.]+(Error|Exception|Exit)\b", line)]
        return (raised or lines)[-1][:REASON_CHARS]


class Spread(NamedTuple):
    """What several runs say."""

    median: float
    lowest: float
    highest: float


@dataclass(slots=True, kw_only=True)
class Results:
    """Everything that a suite has found out."""

    began_at: str
    machine: dict[str, str]
    versions: dict[str, str]
    """Of the peers, by package."""
    missing: dict[str, str] = field(default_factory=dict)
    """Why an arm could not be measured here, by its name."""
    attempts: list[Attempt] = field(default_factory=list)

    def has(self, arm: str, round_: int) -> bool:
        """Whether that run was made, and did not fail."""
        return any(each.arm == arm and each.round == round_ and each.run is not None for each in self.attempts)

    def failures(self) -> list[Attempt]:
        """Runs that failed, and were not made again with success."""
        return [each for each in self.attempts if each.run is None and not self.has(each.arm, each.round)]

    def runs(self, arm: str) -> list[Run]:
        """Those of one arm, in the order of their rounds."""
        return [each.run for each in sorted(self.attempts, key=lambda each: each.round) if each.arm == arm and each.run is not None]

    def rounds(self) -> list[dict[str, Run]]:
        """What each round has measured, by arm."""
        numbers = sorted({each.round for each in self.attempts})
        return [{each.arm: each.run for each in self.attempts if each.round == number and each.run is not None} for number in numbers]

    def spread(self, arm: str, of: Callable[[Run], float]) -> Spread | None:
        """Of a number of every run; None if there is none."""
        return spread_of(map(of, self.runs(arm)))

    def save(self, path: Path) -> None:
        """Writes the file whole or not at all."""
        path.parent.mkdir(parents=True, exist_ok=True)
        new = path.with_suffix(".new")
        new.write_text(json.dumps(dataclasses.asdict(self), indent=1))
        new.rename(path)

    @classmethod
    def load(cls, path: Path) -> Self:
        """What `save` wrote."""
        content = json.loads(path.read_text())
        attempts = [Attempt(**{**each, "run": _run(each["run"])}) for each in content.pop("attempts")]
        return cls(**content, attempts=attempts)


def spread_of(values: Iterable[float]) -> Spread | None:
    """Median, lowest and highest; None without values."""
    found = list(values)
    return Spread(statistics.median(found), min(found), max(found)) if found else None


def per_s(run: Run) -> float:
    """Sagas per second."""
    return run.sagas / run.took_s


def processor_ms(run: Run) -> float:
    """Of all processes together, per saga; what stands in for a collector of traces aside."""
    return sum(spent for name, spent in run.processor_ms.items() if name != "collector")


def _run(content: Mapping[str, object] | None) -> Run | None:
    return None if content is None else Run(**content)  # type: ignore[arg-type]  # as it was written
