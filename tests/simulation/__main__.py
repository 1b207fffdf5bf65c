"""Runs worlds one after the other: `python -m tests.simulation --seeds 1:100`, or `make sim SEEDS=…`."""

import sys

from tests.simulation.command import main

sys.exit(main(sys.argv[1:]))
