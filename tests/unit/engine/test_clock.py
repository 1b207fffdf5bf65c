"""The real clock."""

import asyncio
import time

from coordinator.core.values import Instant
from coordinator.engine.clock import SystemClock
from tests.builders import seconds


async def test_now_is_the_systems_time_and_never_goes_back() -> None:
    clock = SystemClock(asyncio.get_running_loop())
    first, second = clock.now(), clock.now()
    assert first <= second
    assert abs(first - time.time_ns() // 1_000) < seconds(60)


async def test_callback_comes_at_its_instant_and_not_before() -> None:
    clock = SystemClock(asyncio.get_running_loop())
    wanted = Instant(clock.now() + seconds(0.002))
    came = asyncio.get_running_loop().create_future()
    clock.call_at(wanted, lambda: came.set_result(clock.now()))
    assert await asyncio.wait_for(came, 5) >= wanted - 1  # a loop timer may be early by less than the clock can tell


async def test_cancelled_callback_does_not_come() -> None:
    clock = SystemClock(asyncio.get_running_loop())
    came: list[str] = []
    cancel = clock.call_at(clock.now(), lambda: came.append("cancelled"))
    done = asyncio.Event()
    cancel()
    clock.call_at(clock.now(), done.set)
    await asyncio.wait_for(done.wait(), 5)
    assert came == []
