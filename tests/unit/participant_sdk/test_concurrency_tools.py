"""Flights, work that outlives the cancellation of its caller, and coroutines in threads."""

import asyncio

import pytest

from participant_sdk.barrier.access import run_through
from participant_sdk.barrier.flights import Flights
from participant_sdk.shielding import finish

A_WHILE_S = 10.0


async def test_same_request_shares_the_answer_and_another_one_waits_for_its_turn() -> None:
    flights: Flights[str] = Flights()
    gate, started = asyncio.Event(), []

    async def fly(name: str) -> str:
        started.append(name)
        await gate.wait()
        return name

    async with asyncio.TaskGroup() as tasks:
        first = tasks.create_task(flights.join("key", "a", wait_s=A_WHILE_S, start=lambda: fly("first")))
        same = tasks.create_task(flights.join("key", "a", wait_s=A_WHILE_S, start=lambda: fly("same")))
        other = tasks.create_task(flights.join("key", "b", wait_s=A_WHILE_S, start=lambda: fly("other")))
        elsewhere = tasks.create_task(flights.join("key 2", "a", wait_s=A_WHILE_S, start=lambda: fly("elsewhere")))
        await asyncio.sleep(0)
        assert started == ["first", "elsewhere"]
        gate.set()
    assert [first.result(), same.result(), other.result(), elsewhere.result()] == ["first", "first", "other", "elsewhere"]
    assert flights._under_way == {}


async def test_what_the_first_raises_only_its_own_caller_gets() -> None:
    flights: Flights[str] = Flights()
    gate = asyncio.Event()

    async def fail() -> str:
        await gate.wait()
        raise ValueError("broken")

    async def succeed() -> str:
        return "second"

    first = asyncio.create_task(flights.join("key", "a", wait_s=A_WHILE_S, start=fail))
    second = asyncio.create_task(flights.join("key", "a", wait_s=A_WHILE_S, start=succeed))
    await asyncio.sleep(0)
    gate.set()
    with pytest.raises(ValueError, match="broken"):
        await first
    assert await second == "second"


async def test_waiting_ends_without_a_turn_when_its_time_is_over() -> None:
    flights: Flights[str] = Flights()
    gate = asyncio.Event()

    async def fly() -> str:
        await gate.wait()
        return "done"

    first = asyncio.create_task(flights.join("key", "a", wait_s=A_WHILE_S, start=fly))
    await asyncio.sleep(0)
    assert await flights.join("key", "a", wait_s=0.001, start=fly) is None
    gate.set()
    assert await first == "done"


async def test_finished_work_gives_its_result_or_its_exception() -> None:
    async def work() -> int:
        return 7

    async def fail() -> int:
        raise ValueError("broken")

    assert await finish(work()) == 7
    with pytest.raises(ValueError, match="broken"):
        await finish(fail())


async def test_cancellation_goes_on_only_after_the_work_has_ended() -> None:
    gate, told, ended = asyncio.Event(), [], []

    async def work() -> None:
        await gate.wait()
        ended.append(True)

    caller = asyncio.create_task(finish(work(), when_cancelled=lambda: told.append(True)))
    await asyncio.sleep(0)
    for _ in range(2):
        caller.cancel()
        await asyncio.sleep(0)
        assert not caller.done()
    gate.set()
    with pytest.raises(asyncio.CancelledError):
        await caller
    assert (told, ended) == ([True, True], [True])


async def test_work_that_fails_after_its_caller_was_cancelled_is_the_cause_of_the_cancellation() -> None:
    gate = asyncio.Event()

    async def fail() -> None:
        await gate.wait()
        raise ValueError("broken")

    async def call() -> None:
        await finish(fail())

    caller = asyncio.create_task(call())
    await asyncio.sleep(0)
    caller.cancel()
    await asyncio.sleep(0)
    gate.set()
    with pytest.raises(asyncio.CancelledError) as caught:
        await caller
    assert isinstance(caught.value.__cause__, ValueError)


async def test_coroutine_that_never_waits_is_taken_through_in_a_thread() -> None:
    async def inner() -> str:
        return "done"

    async def outer() -> str:
        return await inner()

    assert await asyncio.to_thread(run_through, outer()) == "done"


def test_coroutine_that_waits_is_refused_and_ended() -> None:
    ended = []

    async def wait() -> None:
        try:
            await asyncio.sleep(0)
        finally:
            ended.append(True)

    with pytest.raises(RuntimeError, match="must not wait for the event loop"):
        run_through(wait())
    assert ended == [True]
