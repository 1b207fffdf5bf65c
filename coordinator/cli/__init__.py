"""The command `saga`: a coordinator to run, and a client for people and scripts. Built on the public client only."""

import sys


def main() -> None:
    """Runs the command."""
    try:
        from coordinator.cli.app import main as run
    except ModuleNotFoundError as error:
        if error.name not in {"click", "rich"}:
            raise
        sys.exit(f"saga needs {error.name}: install the extra with pip install 'saga-coordinator[coordinator]'")
    run()
