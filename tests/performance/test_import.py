"""What every process that uses the SDK pays before it begins."""

import subprocess
import sys
from typing import Final

from tests.processes import ROOT, python_environment

IMPORT_S_MAX: Final = 0.3
TRIES_MAX: Final = 12
"""Processor time is longer beside busy neighbours and never shorter, so one try within the limit is proof."""
MEASURE: Final = "import time; began = time.process_time(); import participant_sdk; print(time.process_time() - began)"


def test_import_of_the_sdk_takes_less_than_a_third_of_a_second_of_processor_time() -> None:
    taken = []
    for _ in range(TRIES_MAX):
        command = [sys.executable, "-c", MEASURE]
        done = subprocess.run(command, cwd=ROOT, env=python_environment(), check=True, capture_output=True, text=True, timeout=60)
        taken.append(float(done.stdout))
        if taken[-1] < IMPORT_S_MAX:
            return
    raise AssertionError(
        f"expected less than {IMPORT_S_MAX} s, found {min(taken):.3f} s at best; `python -X importtime` says where it goes"
    )
