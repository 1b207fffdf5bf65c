"""What is measured, said without OpenTelemetry: plain numbers that are read when somebody collects them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

Reading = Mapping[str, float]
"""Value by the one attribute that tells them apart; of a measure without one, by the empty text."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Measure:
    """One measure. Read in another thread than the loop's: it must only look at numbers."""

    name: str
    unit: str
    """As UCUM writes it."""
    description: str
    only_grows: bool
    """Since the start of this process."""
    read: Callable[[], Reading]
    attribute: str = ""
    """Name of the attribute; empty: there is none."""
