"""What an exploration found, for people."""

from dataclasses import dataclass
from typing import Final

from participant_sdk.testing.exploring.living import Life

OTHERS_SHOWN_MAX: Final = 10
"""Further failing worlds that are named."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Exploration:
    """How much was explored."""

    title: str
    """The definition. Example: "place-order v1"."""
    worlds: int
    """Lived through."""
    courses: int
    """Of them those without a fault: each input, and every step refused."""
    left_out: int
    """Worlds that there are, and that `worlds_max` did not allow."""
    broken: tuple[Life, ...] = ()
    """Those in which a promise was broken, the smallest first."""

    def __str__(self) -> str:
        left_out = f"; {self.left_out} more were left out: raise worlds_max to see them" if self.left_out else ""
        kept = "every promise was kept" if not self.broken else f"promises were broken in {len(self.broken)}"
        return f"{self.title}: {self.worlds} worlds, {self.courses} of them without a fault: {kept}{left_out}"

    def report(self) -> str:
        """What was broken, with the smallest world's story."""
        if not self.broken:
            return str(self)
        smallest, *others = self.broken
        lines = [
            str(self),
            "",
            "The smallest of them:",
            f"  what goes wrong: {smallest.case}",
            *(f"  broken promise: {broken}" for broken in smallest.broken),
            "",
            smallest.story,
            "",
            f'That world again: explore(…, only="{smallest.case}")',
        ]
        if others:
            lines += ["", "Also broken:", *(f"  {life.case}: {_first_line(life.broken[0])}" for life in others[:OTHERS_SHOWN_MAX])]
        if len(others) > OTHERS_SHOWN_MAX:
            lines.append(f"  and {len(others) - OTHERS_SHOWN_MAX} more")
        return "\n".join(lines)


class PromiseBrokenError(AssertionError):
    """In some world a promise was broken; says in which, and tells its story."""

    def __init__(self, exploration: Exploration) -> None:
        super().__init__(exploration.report())
        self.exploration = exploration


def _first_line(text: str) -> str:
    return text.partition("\n")[0]
