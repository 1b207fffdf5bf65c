"""Many starts in one call: their order, what fails alone, what is taken when, and stopping in the middle."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing
from datetime import timedelta
from typing import Any

import pytest

from participant_sdk.builder import Saga
from participant_sdk.client import CoordinatorUnavailable, InvalidRequest, NotStarted, SagaClient, SagaHandle, Start, Started
from participant_sdk.client.start_many import WINDOW_MAX, in_window
from participant_sdk.ids import new_saga_id
from saga.v1 import coordinator_pb2
from shop.v1.shop_pb2 import PaymentCharged, PlaceOrder
from tests.unit.client.fake_coordinator import FakeCoordinator, unavailable

PLACE_ORDER = Saga("place-order", input=PlaceOrder, output=PaymentCharged)
SHORT = timedelta(milliseconds=300)


def _orders(count: int) -> list[PlaceOrder]:
    return [PlaceOrder(order_id=str(number)) for number in range(count)]


def _ids(coordinator: FakeCoordinator) -> dict[str, str]:
    """Order → saga, of what was started."""
    return {PlaceOrder.FromString(saga.input.value).order_id: saga.id for saga in coordinator.sagas.values()}


async def test_every_message_is_started_and_answered_in_order(client: SagaClient, coordinator: FakeCoordinator) -> None:
    answers = [each async for each in client.start_many(PLACE_ORDER, _orders(40), window=16)]
    started = [each for each in answers if isinstance(each, Started)]
    assert [each.position for each in started] == list(range(40))
    ids = _ids(coordinator)
    assert [each.handle.id for each in started] == [ids[str(number)] for number in range(40)]


async def test_none_gives_nothing(client: SagaClient) -> None:
    assert [each async for each in client.start_many(PLACE_ORDER, [])] == []


async def test_messages_may_come_later(client: SagaClient, coordinator: FakeCoordinator) -> None:
    """What is started is told although the next message is not there."""
    more = asyncio.Event()

    async def orders() -> AsyncIterator[PlaceOrder]:
        yield PlaceOrder(order_id="first")
        await more.wait()
        yield PlaceOrder(order_id="second")

    async with aclosing(client.start_many(PLACE_ORDER, orders())) as answers:
        assert isinstance(await anext(answers), Started)
        more.set()
        assert isinstance(await anext(answers), Started)
        assert await anext(answers, None) is None
    assert set(_ids(coordinator)) == {"first", "second"}


async def test_options_of_one_count_before_those_of_all(client: SagaClient, coordinator: FakeCoordinator) -> None:
    saga_id = new_saga_id()
    starts = [Start(PlaceOrder(), {"key": "42", "labels": {"own": "yes"}}), Start(PlaceOrder(), {"saga_id": saga_id})]
    assert len([each async for each in client.start_many("place-order", starts, version=2, labels={"batch": "7"})]) == 2
    one, other = sorted(coordinator.received(coordinator_pb2.StartSagaRequest), key=lambda request: request.idempotency_key, reverse=True)
    assert (one.idempotency_key, dict(one.labels), one.definition.version) == ("42", {"own": "yes"}, 2)
    assert (other.saga_id, dict(other.labels), other.definition.version) == (saga_id, {"batch": "7"}, 2)


async def test_wrong_messages_fail_alone(client: SagaClient, coordinator: FakeCoordinator) -> None:
    starts: list[Any] = [
        PlaceOrder(order_id="good"),
        PaymentCharged(),
        "no message",
        Start(PlaceOrder(), {"saga_id": "order-42"}),
        Start(PlaceOrder(), {"inherit_deadline": True}),
        PlaceOrder(order_id="good too"),
    ]
    answers = [each async for each in client.start_many(PLACE_ORDER, starts)]
    assert [isinstance(each, Started) for each in answers] == [True, False, False, False, False, True]
    wrong = [each for each in answers if isinstance(each, NotStarted)]
    assert all(type(each.error) is InvalidRequest for each in wrong)
    assert [each.position for each in wrong] == [1, 2, 3, 4]
    assert "starts with shop.v1.PlaceOrder, found PaymentCharged" in str(wrong[0].error)
    assert set(_ids(coordinator)) == {"good", "good too"}


async def test_what_was_not_answered_is_repeated_with_the_same_ids(client: SagaClient, coordinator: FakeCoordinator) -> None:  # R2
    """Their replies were lost: repeated, they start nothing twice."""
    coordinator.lost_replies["StartSaga"].extend([unavailable()] * 1000)
    lost = [each async for each in client.start_many(PLACE_ORDER, _orders(5), timeout=SHORT)]
    first = [each for each in lost if isinstance(each, NotStarted)]
    assert [type(each.error) for each in first] == [CoordinatorUnavailable] * 5
    assert set(coordinator.sagas) == {each.error.saga_id for each in first}
    coordinator.lost_replies["StartSaga"].clear()
    again = [each async for each in client.start_many(PLACE_ORDER, [each.start for each in first])]
    handles = [each.handle for each in again if isinstance(each, Started)]
    assert {handle.id for handle in handles} == set(coordinator.sagas)
    assert [handle.is_new for handle in handles] == [False] * 5


async def test_no_more_is_taken_than_there_is_room_for(client: SagaClient) -> None:
    taken = 0

    def endless() -> Iterator[PlaceOrder]:
        nonlocal taken
        while True:
            taken += 1
            yield PlaceOrder(order_id=str(taken))

    async with aclosing(client.start_many(PLACE_ORDER, endless(), window=4)) as answers:
        for number in range(1, 11):
            await anext(answers)
            assert number <= taken <= number + 4


async def test_stopping_in_the_middle_cancels_what_is_under_way() -> None:
    begun, cancelled = asyncio.Event(), 0

    async def answer(position: int, item: int) -> int:
        nonlocal cancelled
        if position == 0:
            return item
        begun.set()
        try:
            await asyncio.get_running_loop().create_future()
        except asyncio.CancelledError:
            cancelled += 1
            raise
        return item

    async with aclosing(in_window(range(100), answer, 8)) as answers:
        assert await anext(answers) == 0
        await begun.wait()
        waiting = asyncio.ensure_future(anext(answers))
        await asyncio.wait((waiting,), timeout=0)
        waiting.cancel()
        await asyncio.wait((waiting,))
    assert waiting.cancelled()
    assert 1 <= cancelled <= 8
    assert len(asyncio.all_tasks()) == 1


async def test_cancelled_start_many_can_be_repeated(client: SagaClient, coordinator: FakeCoordinator) -> None:  # R2
    """Who names the sagas itself may be stopped anywhere, and do it all again."""
    starts = [Start(order, {"saga_id": new_saga_id()}) for order in _orders(20)]

    async def all_of_them() -> list[Started[SagaHandle[PaymentCharged]] | NotStarted]:
        return [each async for each in client.start_many(PLACE_ORDER, starts, window=4)]

    going = asyncio.ensure_future(all_of_them())
    await coordinator.wait_for(coordinator_pb2.StartSagaRequest, 5)
    going.cancel()
    await asyncio.wait((going,))
    assert len(coordinator.sagas) < 20
    again = await all_of_them()
    assert len([each for each in again if isinstance(each, Started)]) == 20
    assert len(coordinator.sagas) == 20


async def test_trouble_with_the_messages_is_raised_after_the_answers_before_it(client: SagaClient) -> None:
    def broken() -> Iterator[PlaceOrder]:
        yield from _orders(3)
        raise OSError("the file ends here")

    answers = client.start_many(PLACE_ORDER, broken())
    assert [isinstance(await anext(answers), Started) for _ in range(3)] == [True] * 3
    with pytest.raises(OSError, match="the file ends here"):
        await anext(answers)


@pytest.mark.parametrize("window", [0, -1, WINDOW_MAX + 1])
async def test_window_out_of_range_raises(client: SagaClient, window: int) -> None:
    with pytest.raises(ValueError, match=f"1 to {WINDOW_MAX}"):
        await anext(client.start_many(PLACE_ORDER, [], window=window))


async def test_closed_client_starts_none(address: str) -> None:
    client = SagaClient(address)
    await client.close()
    with pytest.raises(RuntimeError, match="closed"):
        await anext(client.start_many(PLACE_ORDER, _orders(3)))
