"""The clock of one simulated machine: set wrong, and going too fast or too slow, if wanted."""

import asyncio
from collections.abc import Callable
from typing import Final

from coordinator.core.values import MICROS_PER_SECOND, Instant
from participant_sdk.testing.suspension import Suspension

BEGINNING_S: Final = 1_700_000_000
"""Seconds since 1970 at which virtual time begins."""


class SimulatedClock:
    """Implements the coordinator's `Clock`; called, it is the SDK's. Follows the loop's time."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, *, ahead_s: float = 0.0, rate: float = 1.0, suspension: Suspension | None = None
    ) -> None:
        """`ahead_s`: how far it is set ahead of virtual time. `rate`: seconds that it counts while one passes. `suspension`: of the process
        whose timers fire late while it is stopped."""
        self._loop = loop
        self._suspension = Suspension() if suspension is None else suspension
        self._rate = rate
        self._began_s = loop.time()
        self._offset_us = round((BEGINNING_S + ahead_s + self._began_s) * MICROS_PER_SECOND)

    def now(self) -> Instant:
        """The current instant; never goes back."""
        return Instant(self._offset_us + int((self._loop.time() - self._began_s) * self._rate * MICROS_PER_SECOND))

    def __call__(self) -> int:
        return self.now()

    def call_at(self, instant: Instant, callback: Callable[[], None], /) -> Callable[[], None]:
        """Calls back in the loop at that instant or soon after it; returns what cancels that."""
        timer = _Timer(callback)
        delay_s = max(0, instant - self.now()) / MICROS_PER_SECOND / self._rate
        handle = self._loop.call_later(delay_s, self._suspension.run, timer.fire)

        def cancel() -> None:
            handle.cancel()
            timer.is_cancelled = True  # it may be due already, and wait for the process to go on

        return cancel


class _Timer:
    __slots__ = ("_callback", "is_cancelled")

    def __init__(self, callback: Callable[[], None]) -> None:
        self._callback = callback
        self.is_cancelled = False

    def fire(self) -> None:
        if not self.is_cancelled:
            self._callback()
