"""The command and its subcommands."""

from importlib.metadata import PackageNotFoundError, version

import click

from coordinator.cli.bulk import bulk
from coordinator.cli.checking import check, diff
from coordinator.cli.definitions import definitions, register
from coordinator.cli.explaining import explain, incidents, participants
from coordinator.cli.nodes import cordon, nodes, uncordon
from coordinator.cli.operating import acknowledge, complete, pause, policy, resolve, resolve_output, resume, retry, terminate
from coordinator.cli.reading import list_sagas, show, watch
from coordinator.cli.replaying import replay
from coordinator.cli.sections import SectionedGroup
from coordinator.cli.serving import serve
from coordinator.cli.steering import cancel, start
from coordinator.cli.verifying import verify


def _version() -> str:
    try:
        return version("saga-coordinator")
    except PackageNotFoundError:
        return "not installed"


@click.group(
    cls=SectionedGroup,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
    epilog="""\b
Exit codes: 0 done; 1 the saga has not completed, or you said no; 2 wrong usage; 3 the coordinator cannot be reached;
4 it refused, all or some of it.
\b
Completion: eval "$(_SAGA_COMPLETE=bash_source saga)"   (or zsh_source, fish_source)
""",
)
@click.version_option(_version(), prog_name="saga")
def main() -> None:
    """Runs a saga coordinator, starts and follows sagas, and looks after those that are stuck.

    \b
      saga serve                                      a coordinator on an SQLite file, nothing else needed
      saga register place_order.py                    the sagas of a Python file
      saga start place-order --input @order.json      one saga
      saga watch ID     saga show ID     saga list    what becomes of it
      saga incidents    saga explain ID               what is stuck, why, and what you can do

    Commands other than `serve` call the coordinator at --address, SAGA_ADDRESS or 127.0.0.1:7700.
    """  # noqa: D301 - click reads \b


main.add_section("Coordinator", (serve, nodes, cordon, uncordon))
main.add_section("Participants", (participants, verify))
main.add_section("Definitions", (check, diff, replay, register, definitions))
main.add_section("Sagas", (start, show, list_sagas, watch, cancel))
main.add_section(
    "Sagas that are stuck", (incidents, explain, retry, resolve, resolve_output, acknowledge, policy, pause, resume, terminate, bulk)
)
main.add_section("Steps that finish later", (complete,))
