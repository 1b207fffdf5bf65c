"""The command and its subcommands."""

from importlib.metadata import PackageNotFoundError, version

import click

from coordinator.cli.definitions import definitions, register
from coordinator.cli.reading import list_sagas, show, watch
from coordinator.cli.serving import serve
from coordinator.cli.steering import cancel, start


def _version() -> str:
    try:
        return version("saga-coordinator")
    except PackageNotFoundError:
        return "not installed"


@click.group(
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
    epilog="""\b
Exit codes: 0 done; 1 the saga has not completed; 2 wrong usage; 3 the coordinator cannot be reached; 4 it refused.
\b
Completion: eval "$(_SAGA_COMPLETE=bash_source saga)"   (or zsh_source, fish_source)
""",
)
@click.version_option(_version(), prog_name="saga")
def main() -> None:
    """Runs a saga coordinator, and starts, shows and cancels sagas.

    \b
      saga serve                                      a coordinator on an SQLite file, nothing else needed
      saga register place_order.py                    the sagas of a Python file
      saga start place-order --input @order.json      one saga
      saga watch ID     saga show ID     saga list    what becomes of it

    Commands other than `serve` call the coordinator at --address, SAGA_ADDRESS or 127.0.0.1:7700.
    """  # noqa: D301 - click reads \b


for command in (serve, register, definitions, start, show, list_sagas, watch, cancel):
    main.add_command(command)
