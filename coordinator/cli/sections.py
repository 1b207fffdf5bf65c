"""The command's list of subcommands, in sections."""

from collections.abc import Sequence
from typing import Final

import click


class SectionedGroup(click.Group):
    """Lists its commands under headings, in the order in which they are added."""

    def __init__(self, *args: object, **kwargs: object) -> None:
        super().__init__(*args, **kwargs)  # type: ignore[arg-type]
        self._sections: Final[dict[str, list[str]]] = {}

    def add_section(self, heading: str, commands: Sequence[click.Command]) -> None:
        """Adds commands under a heading."""
        for command in commands:
            self.add_command(command)
            self._sections.setdefault(heading, []).append(str(command.name))

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [name for names in self._sections.values() for name in names]

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        width = max(len(name) for name in self.list_commands(ctx))
        for heading, names in self._sections.items():
            rows = [(name.ljust(width), self._short_help(ctx, name, formatter.width - width)) for name in names]
            with formatter.section(heading):
                formatter.write_dl(rows)

    def _short_help(self, ctx: click.Context, name: str, limit: int) -> str:
        command = self.get_command(ctx, name)
        return command.get_short_help_str(limit) if command is not None else ""
