"""The command and its subcommands."""

from importlib.metadata import PackageNotFoundError, version

import click

from coordinator.cli.sections import SectionedGroup


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


def _from(module: str, *names: str) -> dict[str, str]:
    """Commands of a module beside this one; each is the function that is named as it is."""
    return {name: f"coordinator.cli.{module}:{name.replace('-', '_')}" for name in names}


main.add_section("Coordinator", _from("serving", "serve") | _from("nodes", "nodes", "cordon", "uncordon"))
main.add_section("Participants", _from("explaining", "participants") | _from("verifying", "verify"))
main.add_section(
    "Definitions", _from("checking", "check", "diff") | _from("replaying", "replay") | _from("definitions", "register", "definitions")
)
main.add_section(
    "Sagas",
    _from("steering", "start")
    | _from("reading", "show")
    | {"list": "coordinator.cli.reading:list_sagas"}
    | _from("reading", "watch")
    | _from("steering", "cancel"),
)
main.add_section(
    "Sagas that are stuck",
    _from("explaining", "incidents", "explain")
    | _from("operating", "retry", "resolve", "resolve-output", "acknowledge", "policy", "pause", "resume", "terminate")
    | _from("bulk", "bulk"),
)
main.add_section("Steps that finish later", _from("operating", "complete"))
