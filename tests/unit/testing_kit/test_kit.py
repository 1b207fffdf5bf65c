"""The kit, as its users use it: the real coordinator in a test, in virtual time."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import grpc
import pytest

from participant_sdk import NoBarrier, SagaNotCompleted
from participant_sdk.testing import (
    KitError,
    MemoryBarrier,
    Mishap,
    SagaKit,
    SagaStandstillError,
    Servicer,
    Stub,
    run_in_virtual_time,
    stub,
    stubs_of,
)
from participant_sdk.testing.in_process_server import ServedCall
from participant_sdk.testing.ledger import CallOutcome
from saga.v1 import participant_pb2, participant_pb2_grpc, saga_pb2
from shop.v1.shop_pb2 import CourierBooked, PaymentCharged, PlaceOrder
from tests.unit.testing_kit.orders import ORDER, Inventory, delivered, place_order

charge = stub("payments.charge", request=PlaceOrder, response=PaymentCharged)
book = stub("shipping.book", request=PlaceOrder, response=CourierBooked)


def inventory() -> Inventory:
    return Inventory(barrier=MemoryBarrier())


async def test_saga_completes_with_what_stubs_answer(saga_kit: SagaKit) -> None:
    own = inventory()
    saga_kit.serve(own, charge, book.answers(lambda order: CourierBooked(tracking_number=f"to {order.address}")))
    run = await saga_kit.run(place_order, ORDER)
    run.then_completed(CourierBooked(tracking_number="to 1 Main Street")).then_called("reserve", "charge", "book").then_needs_nobody()
    assert run.output(CourierBooked).tracking_number == "to 1 Main Street"
    assert list(own.reserved.values()) == ["widget"]
    assert saga_kit.calls[0].input(PlaceOrder) == ORDER


async def test_rejection_turns_back_and_says_why(saga_kit: SagaKit) -> None:
    own = inventory()
    saga_kit.serve(own, charge.rejects("CARD_DECLINED"), book)
    run = await saga_kit.run(place_order, ORDER)
    run.then_compensated(because="CARD_DECLINED", at="charge").then_called("reserve", "charge", "undo reserve").then_not_called("book")
    assert own.reserved == {}


async def test_days_of_failures_take_no_time(saga_kit: SagaKit) -> None:
    saga_kit.serve(inventory(), charge.fails(5), book.takes(timedelta(seconds=3)))
    run = await saga_kit.run(place_order, ORDER)
    run.then_completed().then_attempts("charge", 6)
    assert run.took > timedelta(seconds=6)
    await saga_kit.advance(timedelta(days=400))
    assert saga_kit.elapsed > timedelta(days=400)


async def test_timers_go_off_after_more_than_half_a_year(saga_kit: SagaKit) -> None:
    """Floats are too coarse by then for what asyncio takes for the resolution of a clock."""
    saga_kit.serve(*stubs_of(place_order))
    await saga_kit.advance(timedelta(days=300, microseconds=1))
    for _ in range(100):
        await saga_kit.advance(timedelta(milliseconds=0.37))
    (await saga_kit.run(place_order, ORDER)).then_completed()


async def test_step_that_is_accepted_is_completed_days_later(saga_kit: SagaKit) -> None:
    saga_kit.serve(inventory(), charge.accepts(completes_after=timedelta(days=3)).answers(PaymentCharged(payment_id="p")), book)
    run = await saga_kit.run(place_order, ORDER)
    run.then_completed()
    assert run.took > timedelta(days=3)
    assert [call.outcome for call in run.calls] == [CallOutcome.SUCCEEDED, CallOutcome.ACCEPTED, CallOutcome.SUCCEEDED]


async def test_step_that_is_accepted_can_be_rejected_later(saga_kit: SagaKit) -> None:
    saga_kit.serve(inventory(), charge.accepts(completes_after=timedelta(hours=1)).rejects("NO_CREDIT"), book)
    (await saga_kit.run(place_order, ORDER)).then_compensated(because="NO_CREDIT", at="charge")


async def test_undo_that_fails_is_tried_again(saga_kit: SagaKit) -> None:
    saga_kit.serve(inventory(), charge.undo_fails(2).undo_takes(timedelta(seconds=1)), book.rejects("NO_ADDRESS"))
    run = await saga_kit.run(place_order, ORDER)
    run.then_compensated().then_attempts("undo charge", 3)


async def test_lost_reply_is_answered_again_and_does_nothing_twice(saga_kit: SagaKit) -> None:  # R18
    own = inventory()
    saga_kit.serve(own, charge, book).mishap("reserve", Mishap.REPLY_LOST)
    run = await saga_kit.run(place_order, ORDER)
    run.then_completed().then_attempts("reserve", 2)
    assert [call.took_effect for call in run.calls[:2]] == [True, False]
    assert saga_kit.faults_left == ()


async def test_saga_survives_the_death_of_its_coordinator(saga_kit: SagaKit) -> None:  # P1
    saga_kit.serve(inventory(), charge.takes(timedelta(seconds=5)), book)
    handle = await saga_kit.start(place_order, ORDER)
    await saga_kit.advance(timedelta(seconds=2))
    await saga_kit.crash_coordinator()
    run = await saga_kit.wait(handle)
    run.then_completed().then_attempts("charge", 2)
    assert any(event.HasField("saga_recovered") for event in run.events)


async def test_hook_is_waited_for(saga_kit: SagaKit) -> None:  # R16
    saga_kit.serve(*stubs_of(delivered))
    (await saga_kit.run(delivered, ORDER)).then_completed().then_called("reserve", "charge", "book", "on_success")


async def test_refusal_behind_the_point_of_no_return_needs_a_person(saga_kit: SagaKit) -> None:  # R11
    saga_kit.serve(*stubs_of(delivered)).refuse("book")
    run = await saga_kit.run(delivered, ORDER)
    run.then_needs_person(step="book", kind="STEP_REJECTED")
    with pytest.raises(AssertionError, match="expected no open incident, found step rejected"):
        run.then_needs_nobody()


async def test_participant_without_the_sdk_is_served_too(saga_kit: SagaKit) -> None:
    class Bare(participant_pb2_grpc.ParticipantServiceServicer):
        async def Describe(self, request: participant_pb2.DescribeRequest, context: ServedCall) -> participant_pb2.DescribeResponse:  # type: ignore[override] # noqa: N802
            await context.abort(grpc.StatusCode.UNIMPLEMENTED, "it describes nothing")

        async def Exchange(self, request_iterator: object, context: ServedCall) -> None:  # type: ignore[override] # noqa: N802
            await context.abort(grpc.StatusCode.UNIMPLEMENTED, "it has no streams")

        async def Execute(self, request: participant_pb2.ExecuteRequest, context: object) -> participant_pb2.ExecuteResponse:  # noqa: N802
            response = participant_pb2.ExecuteResponse()
            response.succeeded.output.Pack(PaymentCharged(payment_id="bare"))
            return response

        def Compensate(self, request: participant_pb2.CompensateRequest, context: object) -> participant_pb2.CompensateResponse:  # noqa: N802
            return participant_pb2.CompensateResponse(compensated=participant_pb2.Compensated(handler_ran=True))

    saga_kit.serve(inventory(), Servicer("payments", Bare()), book.rejects("NO_ADDRESS"))
    run = await saga_kit.run(place_order, ORDER)
    run.then_compensated().then_called("reserve", "charge", "book", "undo charge", "undo reserve")


async def test_client_of_the_kit_is_the_real_one(saga_kit: SagaKit) -> None:
    saga_kit.serve(inventory(), charge.rejects("CARD_DECLINED"), book)
    await saga_kit.register(place_order)
    handle = await saga_kit.client.start(place_order, ORDER, key="order-42")
    again = await saga_kit.client.start(place_order, ORDER, key="order-42")
    assert (again.id, again.is_new) == (handle.id, False)
    with pytest.raises(SagaNotCompleted):
        await handle.result()


async def test_saga_that_nothing_will_move_is_no_endless_wait(saga_kit: SagaKit) -> None:
    saga_kit.serve(inventory(), charge, book)
    handle = await saga_kit.start(place_order, ORDER, start_at=saga_kit.now + timedelta(days=1))
    await saga_kit.client.operator.pause(handle.id)
    with pytest.raises(SagaStandstillError, match=r"is PENDING, and is paused: only a person lets it go on(.|\n)*waits at"):
        await saga_kit.wait(handle)
    await saga_kit.client.operator.resume(handle.id)
    (await saga_kit.wait(handle)).then_completed()


async def test_saga_that_was_never_started_is_told(saga_kit: SagaKit) -> None:
    await saga_kit.serve(*stubs_of(place_order)).open()
    with pytest.raises(SagaStandstillError, match="was never started here"):
        await saga_kit.wait("0197c8a4-5f0e-7c31-9a52-3f1d6b0e8a77")


async def test_expectation_that_is_not_met_tells_the_whole_story(saga_kit: SagaKit) -> None:
    saga_kit.serve(inventory(), charge.rejects("CARD_DECLINED"), book)
    run = await saga_kit.run(place_order, ORDER)
    with pytest.raises(AssertionError) as told:
        run.then_completed()
    for words in ("expected the saga COMPLETED, found COMPENSATED", "rejected: CARD_DECLINED", "turned back, step rejected at charge",
                  "undo reserve (try 1): undone"):  # fmt: skip
        assert words in str(told.value)


@pytest.mark.parametrize(
    ("expectation", "said"),
    [
        (lambda run: run.then_called("reserve"), "expected calls reserve and no more, found reserve, charge, book"),
        (lambda run: run.then_called("reserve", "book", "charge"), "expected calls reserve, book, charge, found reserve, charge, book"),
        (lambda run: run.then_not_called("charge"), "expected no call of charge, found charge, called"),
        (lambda run: run.then_attempts("charge", 2), "expected 2 calls of charge, found 1"),
        (lambda run: run.then_compensated(), "expected the saga COMPENSATED, found COMPLETED"),
        (lambda run: run.then_needs_person(), "expected an open incident , found none"),
        (lambda run: run.then_output(PaymentCharged()), "expected an output of type shop.v1.PaymentCharged, found shop.v1.CourierBooked"),
        (lambda run: run.then_output(CourierBooked(tracking_number="x")), 'expected the output CourierBooked(tracking_number: "x")'),
    ],
)  # fmt: skip
def test_each_expectation_says_what_it_found(expectation: object, said: str) -> None:
    async def main() -> None:
        async with SagaKit(inventory(), charge, book) as kit:
            run = await kit.run(place_order, ORDER)
            assert run.then_called({"charge", "reserve"}, "book") is run
            assert callable(expectation)
            with pytest.raises(AssertionError) as told:
                expectation(run)
            assert said in str(told.value)

    run_in_virtual_time(main())


async def test_kit_needs_virtual_time() -> None:
    with pytest.raises(KitError, match="use the fixture saga_kit"):
        await SagaKit().open()


async def test_misuse_of_the_kit_is_told(saga_kit: SagaKit) -> None:
    with pytest.raises(KitError, match="not open yet"):
        _ = saga_kit.client
    await saga_kit.serve(*stubs_of(place_order)).open()
    with pytest.raises(KitError, match="comes before the first"):
        saga_kit.serve(charge)


@pytest.mark.parametrize(
    ("parts", "said"),
    [
        ([Inventory(barrier=NoBarrier()), Inventory(barrier=NoBarrier())], "two things serve the participant 'inventory'"),
        ([Inventory(barrier=NoBarrier()), stub(Inventory.reserve)], "a participant is either real or stubbed"),
        ([charge, charge.fails(1)], "two stubs stand in for payments.charge"),
        (["inventory"], "expected a Participant, stub"),
    ],
)  # fmt: skip
def test_parts_that_do_not_fit_are_told(parts: list[object], said: str) -> None:
    async def main() -> None:
        with pytest.raises(KitError, match=said):
            await SagaKit(*parts).open()  # type: ignore[arg-type]

    run_in_virtual_time(main())


def test_stub_by_its_text_needs_its_types() -> None:
    with pytest.raises(TypeError, match=r"needs request=… and response=…"):
        stub("payments.charge")  # type: ignore[call-overload]


def test_what_opens_something_is_left_at_the_end() -> None:
    left: list[str] = []

    @asynccontextmanager
    async def service() -> AsyncIterator[Inventory]:
        yield inventory()
        left.append("inventory")

    async def payments() -> list[Stub[Any, Any]]:
        await asyncio.sleep(0)
        return [charge, book]

    async def main() -> None:
        async with SagaKit(service, payments) as kit:
            (await kit.run(place_order, ORDER)).then_completed()
            assert left == []

    run_in_virtual_time(main())
    assert left == ["inventory"]


def test_equal_tests_are_equal_worlds() -> None:
    async def main() -> list[bytes]:
        async with SagaKit(inventory(), charge.fails(3), book) as kit:
            return [event.SerializeToString(deterministic=True) for event in (await kit.run(place_order, ORDER)).events]

    assert run_in_virtual_time(main()) == run_in_virtual_time(main())


async def test_saga_is_looked_at_while_it_runs(saga_kit: SagaKit) -> None:
    saga_kit.serve(inventory(), charge.takes(timedelta(seconds=5)), book)
    handle = await saga_kit.start(place_order, ORDER)
    await saga_kit.advance(timedelta(seconds=1))
    run = await saga_kit.look(handle)
    assert run.saga.status == saga_pb2.SAGA_STATUS_RUNNING
    assert run.took < timedelta(seconds=2)
    assert "charge (try 1): under way" in run.story()
