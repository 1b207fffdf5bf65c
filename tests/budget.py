"""How much the full tests do. `make test-full BUDGET=4` does four times as much: more kills, more worlds, more examples."""

import os
from typing import Final

BUDGET: Final = float(os.environ.get("BUDGET") or 1)


def budget(number: int) -> int:
    """So many of what a full test does, at least one."""
    return max(1, round(number * BUDGET))
