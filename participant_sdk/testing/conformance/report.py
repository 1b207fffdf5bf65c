"""What was found about one action of a participant."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from participant_sdk.testing.conformance.ways import Way


class ConformanceError(Exception):
    """The participant cannot be judged: it is not there, or not what was said of it. Says what was expected and what was found."""


class ParticipantUnreachableError(ConformanceError):
    """Nobody answers at that address."""


class Verdict(StrEnum):
    """How it stands with one rule."""

    KEPT = "kept"
    BROKEN = "broken"
    NOT_RUN = "not run"
    """Something is missing that only you can give."""
    DOES_NOT_APPLY = "does not apply"
    """The action does not claim to do that."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """About one rule."""

    rule: str
    """Its name. Example: "duplicate-execute"."""
    title: str
    cites: tuple[str, ...]
    """Rules of docs/rules.md that stand on it."""
    way: Way
    """How the participant was called."""
    verdict: Verdict
    seen: str
    """What was seen, for people; for a rule that was not run: what to do to have it run."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ConformanceReport:
    """About one action."""

    address: str
    action: str
    findings: Sequence[Finding]
    left_behind: int
    """Executions whose effects may have stayed: those that cannot be, or could not be, undone."""

    @property
    def broken(self) -> Sequence[Finding]:
        """The rules that it breaks."""
        return [finding for finding in self.findings if finding.verdict is Verdict.BROKEN]

    def raise_if_broken(self) -> None:
        """Raises ParticipantBrokenError with every rule that is broken, for tests."""
        if self.broken:
            raise ParticipantBrokenError(self)

    def to_json(self) -> dict[str, object]:
        """For programs."""
        findings = [
            {
                "rule": each.rule,
                "title": each.title,
                "cites": list(each.cites),
                "way": each.way.value,
                "verdict": each.verdict.value,
                "seen": each.seen,
            }
            for each in self.findings
        ]
        kept = not self.broken
        return {"address": self.address, "action": self.action, "kept": kept, "left_behind": self.left_behind, "findings": findings}


class ParticipantBrokenError(AssertionError):
    """A participant breaks rules."""

    def __init__(self, report: ConformanceReport) -> None:
        self.report = report
        told = "\n".join(f"  {finding.rule} ({finding.way}): {finding.seen}" for finding in report.broken)
        super().__init__(f"{report.action} at {report.address} breaks {len(report.broken)} of {len(report.findings)} rules:\n{told}")
