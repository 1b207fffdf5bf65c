"""The builder: what it puts on the wire, and every problem that it finds before a server is asked."""

from datetime import timedelta

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration

from participant_sdk.actions import action
from participant_sdk.builder import DefinitionError, Saga
from participant_sdk.participant import Participant
from participant_sdk.policies import RetryPolicy, StepDefaults, StepKind
from participant_sdk.step_context import StepContext
from saga.v1 import saga_pb2
from shop.v1.shop_pb2 import CourierBooked, PaymentCharged, PlaceOrder, StockReserved


class Inventory(Participant, name="inventory"):
    @action
    async def reserve(self, request: PlaceOrder, step: StepContext) -> StockReserved:
        return StockReserved()

    @reserve.compensation
    async def release(self, request: PlaceOrder, reserved: StockReserved, step: StepContext) -> None: ...

    @action
    async def count(self, request: PlaceOrder, step: StepContext) -> StockReserved:
        return StockReserved()


def _step(step_id: str, action_name: str, **fields: object) -> saga_pb2.StepDefinition:
    return saga_pb2.StepDefinition(
        id=step_id,
        action=action_name,
        input="input",
        kind=saga_pb2.STEP_KIND_COMPENSATABLE,
        input_type="shop.v1.PlaceOrder",
        output_type="shop.v1.StockReserved",
        **fields,  # type: ignore[arg-type]
    )


def test_smallest_saga_takes_every_default() -> None:
    saga = Saga("place-order", input=PlaceOrder)
    saga.step(Inventory.reserve)
    assert saga.definition() == saga_pb2.SagaDefinition(
        name="place-order", version=1, input_type="shop.v1.PlaceOrder", steps=[_step("reserve", "inventory.reserve")]
    )


def test_everything_said_is_on_the_wire() -> None:
    retry = RetryPolicy(
        max_attempts=3,
        initial_backoff=timedelta(milliseconds=50),
        multiplier=3,
        max_backoff=timedelta(seconds=1),
        non_retryable_codes=frozenset({grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.ABORTED}),
    )
    saga = Saga(
        "place-order",
        input=PlaceOrder,
        version=7,
        time_limit=timedelta(minutes=2),
        labels={"team": "shop"},
        defaults=StepDefaults(attempt_timeout=timedelta(seconds=3)),
    )
    reserved = saga.step(Inventory.reserve, id="hold", execute_retry=retry, compensate_time_limit=timedelta(hours=1))
    counted = saga.step(Inventory.count, saga.input, after=[], kind=StepKind.READ_ONLY)
    booked = saga.step("shipping.book", reserved, request=StockReserved, response=CourierBooked, after=[reserved, counted])
    saga.returns(booked)

    definition = saga.definition()
    assert (definition.version, definition.output, dict(definition.labels)) == (7, "book", {"team": "shop"})
    assert definition.time_limit == Duration(seconds=120)
    assert definition.defaults == saga_pb2.StepDefaults(attempt_timeout=Duration(seconds=3))
    hold, count, book = definition.steps
    assert hold.execute_retry == saga_pb2.RetryPolicy(
        max_attempts=3,
        initial_backoff=Duration(nanos=50_000_000),
        multiplier=3,
        max_backoff=Duration(seconds=1),
        non_retryable_codes=[10, 14],
    )
    assert hold.compensate_time_limit == Duration(seconds=3600)
    assert not hold.HasField("after")
    assert count.HasField("after")
    assert not count.after.step_ids
    assert count.kind == saga_pb2.STEP_KIND_READ_ONLY
    assert (list(book.after.step_ids), book.input, book.input_type) == (["hold", "count"], "hold", "shop.v1.StockReserved")


def test_descriptors_hold_the_files_of_the_messages() -> None:
    saga = Saga("place-order", input=PlaceOrder)
    saga.step(Inventory.reserve)
    assert [file.name for file in saga.descriptors().file] == ["shop/v1/shop.proto"]
    assert saga.descriptors().SerializeToString(deterministic=True) == saga.descriptors().SerializeToString(deterministic=True)


def _problems(saga: Saga[PlaceOrder]) -> tuple[str, ...]:
    with pytest.raises(DefinitionError) as caught:
        saga.definition()
    return caught.value.problems


def test_saga_without_steps_is_refused() -> None:
    (problem,) = _problems(Saga("place-order", input=PlaceOrder))
    assert problem.startswith("steps: expected 1 to 256, found 0")


def test_duplicate_id_is_refused() -> None:
    saga = Saga("place-order", input=PlaceOrder)
    saga.step(Inventory.reserve)
    saga.step(Inventory.reserve)
    assert _problems(saga) == ("step reserve: the id is used twice; give one of them another with id=...",)


def test_compensatable_step_without_compensation_is_refused() -> None:  # R9
    saga = Saga("place-order", input=PlaceOrder)
    saga.step(Inventory.count)
    (problem,) = _problems(saga)
    assert problem.startswith("step count: kind: inventory.count has no compensation")


@pytest.mark.parametrize("step_id", ["", "input", "2nd", "re-serve", "x" * 65])
def test_step_id_that_is_no_identifier_is_refused(step_id: str) -> None:
    saga = Saga("place-order", input=PlaceOrder)
    saga.step(Inventory.reserve, id=step_id)
    (problem,) = _problems(saga)
    assert "id: expected a letter or underscore" in problem


def test_step_and_source_of_another_saga_are_refused() -> None:
    other = Saga("place-order", input=PlaceOrder)
    foreign = other.step(Inventory.reserve)
    saga = Saga("place-order", input=PlaceOrder)
    saga.step(Inventory.reserve, other.input, after=[foreign])
    saga.returns(foreign)
    assert _problems(saga) == (
        "output: 'reserve' belongs to another saga",
        "step reserve: after: 'reserve' is a step of another saga",
        "step reserve: input: 'input' belongs to another saga",
    )


def test_input_from_a_parallel_step_is_refused() -> None:
    saga = Saga("place-order", input=PlaceOrder)
    reserved = saga.step(Inventory.reserve)
    saga.step("shipping.book", reserved, request=StockReserved, response=CourierBooked, after=[])
    assert _problems(saga) == ("step book: input: step 'reserve' does not come before it; add it to after=[...]",)


def test_input_from_an_earlier_step_through_others_is_accepted() -> None:
    saga = Saga("place-order", input=PlaceOrder)
    reserved = saga.step(Inventory.reserve)
    charged = saga.step("payments.charge", request=PlaceOrder, response=PaymentCharged)
    saga.step("shipping.book", reserved, request=StockReserved, response=CourierBooked, after=[charged])
    assert [step.input for step in saga.definition().steps] == ["input", "input", "reserve"]


def test_input_of_another_type_is_refused_for_untyped_callers() -> None:
    saga = Saga("place-order", input=PlaceOrder)
    reserved = saga.step(Inventory.reserve)
    saga.step(Inventory.reserve, reserved, id="again")  # type: ignore[misc]
    (problem,) = _problems(saga)
    assert problem == "step again: input: inventory.reserve takes shop.v1.PlaceOrder, but 'reserve' is a shop.v1.StockReserved"


def test_all_problems_are_said_at_once() -> None:
    saga = Saga("place order", input=PlaceOrder, version=0, time_limit=timedelta(0), labels={"": "x"})
    saga.step("Inventory", request=PlaceOrder, response=StockReserved, attempt_timeout=timedelta(days=9999))
    fields = [problem.split(":")[0].split(" must")[0] for problem in _problems(saga)]
    assert fields == ["name", "version", "labels", "time_limit", "step Inventory", "step Inventory"]


def test_action_by_text_without_types_raises() -> None:
    saga = Saga("place-order", input=PlaceOrder)
    with pytest.raises(TypeError, match="needs request"):
        saga.step("inventory.reserve")  # type: ignore[call-overload]


@pytest.mark.parametrize(
    "fields",
    [
        {"max_attempts": -1},
        {"multiplier": 0.5},
        {"multiplier": float("nan")},
        {"initial_backoff": timedelta(0)},
        {"initial_backoff": timedelta(minutes=1)},
        {"max_backoff": timedelta(days=9999)},
    ],
)
def test_retry_policy_out_of_range_raises(fields: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="must be"):
        RetryPolicy(**fields)  # type: ignore[arg-type]
