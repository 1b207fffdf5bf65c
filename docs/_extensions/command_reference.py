"""The command line as Markdown: every command of `saga` with its arguments and options, as `--help` says them."""

import inspect
from collections.abc import Iterator
from typing import Final

import click

from coordinator.cli.app import main

_KEPT: Final = "\b"


def command_reference() -> str:
    """Markdown, commands in the order of `saga --help`."""
    parts: list[str] = []
    for name, command in main.load_all().items():
        parts += _command(command, f"saga {name}")
        if isinstance(command, click.Group):
            for below in command.commands:
                parts += _command(command.commands[below], f"saga {name} {below}")
    return "\n".join(parts)


def _command(command: click.Command, title: str) -> Iterator[str]:
    context = click.Context(command, info_name=title)
    yield f"## {title}\n"
    yield f"```text\n{command.get_usage(context).removeprefix('Usage: ')}\n```\n"
    yield _prose(inspect.cleandoc(command.help or ""))
    rows = [record for each in command.get_params(context) if (record := each.get_help_record(context)) and record[0] != "-h, --help"]
    if rows:
        yield "| Option | |\n|---|---|"
        yield from (f"| `{_cell(names)}` | {_cell(text)} |" for names, text in rows)
        yield ""


def _prose(text: str) -> str:
    """Paragraphs that click must not fill, which begin with a backspace, become blocks of text."""
    parts = (f"```text\n{part.removeprefix(_KEPT).strip(chr(10))}\n```" if part.startswith(_KEPT) else part for part in text.split("\n\n"))
    return "\n\n".join(parts) + "\n"


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")
