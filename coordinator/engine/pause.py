"""A pause by the clock that tests and simulations own."""

import asyncio

from coordinator.core.values import Instant
from coordinator.engine.ports import Clock


async def pause(clock: Clock, duration_us: int, alarm: asyncio.Event | None = None) -> None:
    """Waits for so long, or until the alarm is set."""
    rung = asyncio.Event() if alarm is None else alarm
    cancel = clock.call_at(Instant(clock.now() + duration_us), rung.set)
    try:
        await rung.wait()
    finally:
        cancel()
