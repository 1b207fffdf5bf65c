"""The real clock: UTC from the system, moved by the monotonic clock while the process lives."""

import asyncio
import time
from collections.abc import Callable

from coordinator.core.values import MICROS_PER_SECOND, Instant


class SystemClock:
    """Reads the system's time once and then follows the monotonic clock, so that a step of the system's clock moves no limit."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._offset_ns = time.time_ns() - time.monotonic_ns()

    def now(self) -> Instant:
        """The current instant; never goes back."""
        return Instant((time.monotonic_ns() + self._offset_ns) // 1_000)

    def call_at(self, instant: Instant, callback: Callable[[], None], /) -> Callable[[], None]:
        """Calls back in the loop at that instant or soon after it; returns what cancels that."""
        return self._loop.call_later(max(0, instant - self.now()) / MICROS_PER_SECOND, callback).cancel
