"""What can come of asking for a definition."""

from collections.abc import Sequence


class DefinitionError(Exception):
    """The saga is no valid definition; nothing was sent. Lists every problem, one per line."""

    def __init__(self, saga: str, problems: Sequence[str]) -> None:
        super().__init__(f"saga {saga!r} cannot be defined:\n" + "\n".join(f"  - {problem}" for problem in problems))
        self.saga = saga
        self.problems: tuple[str, ...] = tuple(problems)
        """Each begins with its place: "step charge, input: …", "on_success, action: …", "version: …"."""
