"""What is wrong with something that was sent."""

from typing import Final, NamedTuple

PROBLEMS_MAX: Final = 100
"""Problems that are told at once; a definition with more is told the first."""


class Problem(NamedTuple):
    """One thing that is wrong."""

    field: str
    """Path in the request. Example: "definition.steps[2].input"."""
    description: str
    """What was expected and what was found."""
