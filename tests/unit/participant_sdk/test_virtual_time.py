"""Time that jumps."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from participant_sdk.testing.virtual_time import StandstillError, VirtualTimeLoop, run_in_virtual_time


def test_week_passes_at_once_and_in_order() -> None:
    async def main() -> list[str]:
        told: list[str] = []

        async def after(days: float, text: str) -> None:
            await asyncio.sleep(days * 86_400)
            told.append(text)

        await asyncio.gather(after(7, "late"), after(1, "early"), after(3.5, "between"))
        assert asyncio.get_running_loop().time() == pytest.approx(7 * 86_400)
        return told

    began = time.monotonic()
    assert run_in_virtual_time(main()) == ["early", "between", "late"]
    assert time.monotonic() - began < 5.0


def test_timeout_is_reached_in_virtual_time() -> None:
    async def main() -> float:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(3600):
                await asyncio.get_running_loop().create_future()
        return asyncio.get_running_loop().time()

    assert run_in_virtual_time(main()) == pytest.approx(3600)


def test_what_can_never_happen_is_said() -> None:
    async def main() -> None:
        await asyncio.get_running_loop().create_future()

    # The loop itself raises, so that the coroutine is left as it stands.
    with pytest.raises(StandstillError, match="nothing will ever happen"):
        run_in_virtual_time(main())


def test_what_sets_itself_going_at_one_instant_for_ever_is_said() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()

        def again() -> None:
            loop.call_at(loop.time() - 1, again)

        await asyncio.sleep(1)
        again()
        await asyncio.sleep(1)

    with pytest.raises(StandstillError, match=r"time does not go on: 100000 turns of the loop at 1\.0+ s\n.*main"):
        run_in_virtual_time(main())


def test_thread_of_the_loop_is_waited_for_without_a_jump() -> None:
    async def main() -> float:
        async with asyncio.timeout(1_000_000):
            await asyncio.to_thread(time.sleep, 0.02)
        return asyncio.get_running_loop().time()

    assert run_in_virtual_time(main()) == 0.0


def test_other_threads_are_given_time_while_something_is_outside() -> None:
    async def main() -> float:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualTimeLoop)
        done = loop.create_future()

        def work() -> None:
            time.sleep(0.02)
            loop.call_soon_threadsafe(done.set_result, None)

        from threading import Thread

        with loop.outside():
            Thread(target=work).start()
            async with asyncio.timeout(1_000_000):
                await done
        return loop.time()

    assert run_in_virtual_time(main(), patience_s=5.0) == 0.0


def test_standstill_says_where_everything_waits_also_behind_context_managers() -> None:
    @asynccontextmanager
    async def opened() -> AsyncIterator[None]:
        await asyncio.get_running_loop().create_future()
        yield

    async def main() -> None:
        async with opened():
            pass

    with pytest.raises(StandstillError, match=r"test_virtual_time.py:\d+ in .*opened"):
        run_in_virtual_time(main())


def test_who_waits_is_told_of_a_standstill_first() -> None:
    async def main() -> str:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualTimeLoop)
        waited: asyncio.Future[str] = loop.create_future()

        def give_up(where: str) -> bool:
            waited.set_result(where)
            return True

        with loop.waiting(lambda _: False), loop.waiting(give_up):
            return await waited

    assert "waits at test_virtual_time.py" in run_in_virtual_time(main())


def test_timer_is_reached_where_floats_are_coarse() -> None:
    async def main() -> None:
        await asyncio.sleep(2**24 + 0.1)  # 194 days: from here on floats are coarser than what asyncio takes for the clock's resolution
        for _ in range(50):
            await asyncio.sleep(0.000_37)

    run_in_virtual_time(main())
