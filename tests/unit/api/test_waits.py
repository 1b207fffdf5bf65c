"""Requests that wait: all of them end when the coordinator closes."""

import asyncio
import gc

import pytest

from coordinator.api.errors import RefusedError
from coordinator.api.waits import OpenWaits
from participant_sdk.rpc_errors import error_reason


def future() -> "asyncio.Future[int]":
    return asyncio.get_running_loop().create_future()


def is_told_of_the_end(waited: "asyncio.Future[int]") -> bool:
    error = waited.exception()
    return isinstance(error, RefusedError) and error_reason(error.status) == "SHUTTING_DOWN"


async def test_closing_ends_what_is_awaited_and_what_comes_later() -> None:
    waits = OpenWaits()
    before = waits.add(future())
    waits.close()
    after = waits.add(future())
    assert is_told_of_the_end(before)
    assert is_told_of_the_end(after)


async def test_what_is_done_stays_as_it_is() -> None:
    waits = OpenWaits()
    done, cancelled = waits.add(future()), waits.add(future())
    done.set_result(42)
    cancelled.cancel()
    waits.close()
    waits.close()  # safe to call twice
    assert done.result() == 42
    assert cancelled.cancelled()


async def test_done_before_it_was_added_to_a_closed_one_stays_as_it_is() -> None:
    waits = OpenWaits()
    waits.close()
    done = future()
    done.set_result(42)
    assert waits.add(done).result() == 42


async def test_what_is_over_is_not_kept() -> None:
    waits = OpenWaits()
    for _ in range(10):
        waits.add(future()).cancel()
    await asyncio.sleep(0)
    gc.collect()
    assert waits._futures == {}


async def test_awaiting_raises_the_refusal() -> None:
    waits = OpenWaits()
    waited = waits.add(future())
    asyncio.get_running_loop().call_soon(waits.close)
    with pytest.raises(RefusedError, match="nothing is lost"):
        await waited
