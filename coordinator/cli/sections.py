"""The command's list of subcommands, in sections."""

from collections.abc import Mapping
from importlib import import_module
from typing import Final

import click


class SectionedGroup(click.Group):
    """Lists its commands under headings, in the order in which they are added.

    A command is imported when it is asked for: what draws tables and reads definitions costs more than the start of a coordinator
    beside it.
    """

    def __init__(self, *args: object, **kwargs: object) -> None:
        super().__init__(*args, **kwargs)  # type: ignore[arg-type]
        self._sections: Final[dict[str, list[str]]] = {}
        self._places: Final[dict[str, str]] = {}

    def add_section(self, heading: str, commands: Mapping[str, str]) -> None:
        """Adds commands under a heading: by name, where each is, as in "coordinator.cli.serving:serve"."""
        self._places.update(commands)
        self._sections.setdefault(heading, []).extend(commands)

    def load_all(self) -> Mapping[str, click.Command]:
        """Imports every command; returns them by name."""
        return {name: self._load(name) for name in self._places}

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self._places)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        return self._load(cmd_name) if cmd_name in self._places else None

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        width = max(len(name) for name in self._places)
        for heading, names in self._sections.items():
            rows = [(name.ljust(width), self._load(name).get_short_help_str(formatter.width - width)) for name in names]
            with formatter.section(heading):
                formatter.write_dl(rows)

    def _load(self, name: str) -> click.Command:
        if name not in self.commands:
            module, _, attribute = self._places[name].partition(":")
            self.add_command(getattr(import_module(module), attribute), name)
        return self.commands[name]
