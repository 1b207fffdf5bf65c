"""The builder: what it puts on the wire, and every problem that it finds before a server is asked."""

from datetime import timedelta
from typing import Any

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from google.rpc.status_pb2 import Status

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


def _problems(saga: Saga[Any]) -> tuple[str, ...]:
    with pytest.raises(DefinitionError) as caught:
        saga.definition()
    return caught.value.problems


def _places(saga: Saga[PlaceOrder]) -> list[str]:
    return [problem.partition(":")[0] for problem in _problems(saga)]


# ── Kinds, conditions, expressions ───────────────────────────────────────────────────────────────────────────────────────────────────


def test_expressions_and_kinds_are_on_the_wire() -> None:  # R9, A6, A9, A10
    saga = Saga("place-order", input=PlaceOrder)
    saga.step(Inventory.reserve, "PlaceOrder{sku: input.sku}")
    charged = saga.step("payments.charge", "input", request=PlaceOrder, response=PaymentCharged, kind=StepKind.PIVOT)
    saga.step("shipping.book", request=PlaceOrder, response=CourierBooked, kind=StepKind.RETRIABLE, when="input.quantity > 0u")
    saga.step(Inventory.count, kind=StepKind.BEST_EFFORT, after=[charged])
    saga.returns("CourierBooked{tracking_number: book.tracking_number}", CourierBooked)
    definition = saga.definition()
    reserve, charge, book, count = definition.steps
    assert (reserve.input, charge.input, book.input) == ("PlaceOrder{sku: input.sku}", "input", "input")
    assert (reserve.kind, charge.kind, book.kind, count.kind) == (1, 3, 4, 5)
    assert (reserve.when, book.when) == ("", "input.quantity > 0u")
    assert (definition.output, definition.output_type) == (
        "CourierBooked{tracking_number: book.tracking_number}",
        "shop.v1.CourierBooked",
    )


def test_best_effort_says_by_itself_that_its_action_has_no_compensation() -> None:  # R9, R12
    saga = Saga("place-order", input=PlaceOrder)
    saga.step(Inventory.reserve, kind=StepKind.BEST_EFFORT)
    saga.step(Inventory.count, kind=StepKind.BEST_EFFORT)
    saga.step("mail.thank", request=PlaceOrder, response=StockReserved, kind=StepKind.BEST_EFFORT, without_compensation=True)
    saga.step("mail.greet", request=PlaceOrder, response=StockReserved, kind=StepKind.BEST_EFFORT)
    assert [step.without_compensation for step in saga.definition().steps] == [False, True, True, False]


@pytest.mark.parametrize("kind", [StepKind.PIVOT, StepKind.RETRIABLE, StepKind.READ_ONLY])
def test_action_without_compensation_may_be_what_is_never_undone(kind: StepKind) -> None:  # R9
    saga = Saga("place-order", input=PlaceOrder)
    saga.step(Inventory.count, kind=kind)
    (step,) = saga.definition().steps
    assert not step.without_compensation


def test_compensatable_step_without_compensation_is_refused() -> None:  # R9
    saga = Saga("place-order", input=PlaceOrder)
    saga.step(Inventory.count)
    (problem,) = _problems(saga)
    assert problem.startswith("step count, kind: inventory.count has no compensation")


def test_output_as_text_without_its_type_raises() -> None:
    saga = Saga("place-order", input=PlaceOrder)
    with pytest.raises(TypeError, match="needs the message type"):
        saga.returns("reserve")


def test_output_that_is_declared_needs_no_type_where_it_is_taken_from() -> None:
    saga = Saga("place-order", input=PlaceOrder, output=CourierBooked)
    saga.step("shipping.book", request=PlaceOrder, response=CourierBooked)
    assert saga.returns("CourierBooked{tracking_number: book.tracking_number}") is saga
    assert saga.output_type is CourierBooked
    assert saga.definition().output_type == "shop.v1.CourierBooked"


def test_output_that_is_taken_from_a_step_says_its_type() -> None:
    """On the wire nothing more than before: a version that is registered stays the same."""
    saga = Saga("place-order", input=PlaceOrder)
    booked = saga.step("shipping.book", request=PlaceOrder, response=CourierBooked)
    assert saga.returns(booked).output_type is CourierBooked
    declared = Saga("place-order", input=PlaceOrder, output=CourierBooked)
    declared.returns(declared.step("shipping.book", request=PlaceOrder, response=CourierBooked))
    assert saga.definition() == declared.definition()
    assert saga.definition().output_type == ""


def test_output_that_is_declared_and_taken_from_nowhere_is_a_problem() -> None:
    saga = Saga("place-order", input=PlaceOrder, output=CourierBooked)
    saga.step(Inventory.reserve)
    (problem,) = _problems(saga)
    assert problem == "output: expected what the CourierBooked is that this saga returns: say it with returns(...)"


def test_output_of_another_type_than_declared_is_a_problem() -> None:
    saga: Saga[PlaceOrder, Any] = Saga("place-order", input=PlaceOrder, output=CourierBooked)
    saga.returns(saga.step(Inventory.reserve))
    (problem,) = _problems(saga)
    assert problem == "output: expected a CourierBooked, as output=... says, found a StockReserved"


def test_input_that_can_be_no_message_is_a_problem() -> None:
    saga: Saga[Any, None] = Saga("place-order", input=int)
    saga.step("shipping.book", "CourierBooked{}", request=CourierBooked, response=CourierBooked)
    assert any("<class 'int'>" in problem for problem in _problems(saga))


# ── Hooks ────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_hooks_are_on_the_wire() -> None:  # R16, A11
    saga = Saga("place-order", input=PlaceOrder)
    reserved = saga.step(Inventory.reserve)
    saga.on_success("mail.thank", reserved, request=StockReserved, response=CourierBooked, time_limit=timedelta(hours=1))
    saga.on_failure(Inventory.count, attempt_timeout=timedelta(seconds=1), execute_retry=RetryPolicy(max_attempts=2))
    definition = saga.definition()
    assert definition.on_success == saga_pb2.HookDefinition(
        action="mail.thank",
        input="reserve",
        input_type="shop.v1.StockReserved",
        output_type="shop.v1.CourierBooked",
        time_limit=Duration(seconds=3600),
    )
    assert definition.on_failure.input == "input"
    assert definition.on_failure.execute_retry.max_attempts == 2
    assert definition.on_failure.attempt_timeout == Duration(seconds=1)


def test_saga_without_hooks_has_none() -> None:
    saga = Saga("place-order", input=PlaceOrder)
    saga.step(Inventory.reserve)
    definition = saga.definition()
    assert not definition.HasField("on_success")
    assert not definition.HasField("on_failure")


def test_hook_said_twice_and_hook_that_reads_another_saga_are_refused() -> None:
    other = Saga("other", input=PlaceOrder)
    saga = Saga("place-order", input=PlaceOrder)
    saga.step(Inventory.reserve)
    saga.on_success(Inventory.count)
    saga.on_success(Inventory.count, saga.input)
    saga.on_failure(Inventory.count, other.input)
    assert _problems(saga) == (
        "on_success: expected one action, found 2; call on_success(...) once",
        "on_failure, input: 'input' belongs to another saga",
    )


def test_hook_by_text_without_types_raises() -> None:
    saga = Saga("place-order", input=PlaceOrder)
    with pytest.raises(TypeError, match="needs request"):
        saga.on_failure("mail.sorry")  # type: ignore[call-overload]


def test_descriptors_hold_types_that_only_hooks_and_output_name() -> None:
    saga = Saga("place-order", input=Duration)
    saga.on_success("mail.thank", "error", request=Status, response=Duration)
    saga.returns("shop.v1.CourierBooked{}", CourierBooked)
    assert {file.name for file in saga.descriptors().file} == {"google/rpc/status.proto", "shop/v1/shop.proto"}


# ── What is wrong, and where ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_saga_without_steps_is_refused() -> None:
    (problem,) = _problems(Saga("place-order", input=PlaceOrder))
    assert problem.startswith("steps: expected 1 to 256")


def test_duplicate_id_is_refused_by_its_place() -> None:
    saga = Saga("place-order", input=PlaceOrder)
    saga.step(Inventory.reserve)
    saga.step(Inventory.reserve)
    (problem,) = _problems(saga)
    assert problem.startswith("step number 2 (reserve), id: 'reserve'")


@pytest.mark.parametrize(
    ("step_id", "place"),
    [("", "step number 1"), ("input", "step input"), ("2nd", "step 2nd"), ("re-serve", "step re-serve"), ("on_success", "step on_success")],
)
def test_step_id_that_is_no_identifier_is_refused(step_id: str, place: str) -> None:
    saga = Saga("place-order", input=PlaceOrder)
    saga.step(Inventory.reserve, id=step_id)
    assert _places(saga) == [f"{place}, id"]


def test_step_and_source_of_another_saga_are_refused() -> None:
    other = Saga("place-order", input=PlaceOrder)
    foreign = other.step(Inventory.reserve)
    saga = Saga("place-order", input=PlaceOrder)
    saga.step(Inventory.reserve, other.input, after=[foreign])
    saga.returns(foreign)
    assert _problems(saga) == (
        "output: 'reserve' belongs to another saga",
        "step reserve, after: 'reserve' is a step of another saga",
        "step reserve, input: 'input' belongs to another saga",
    )


def test_source_of_another_saga_is_told_once() -> None:
    foreign = Saga("other", input=PlaceOrder).step(Inventory.count, id="elsewhere")
    saga = Saga("place-order", input=PlaceOrder)
    saga.step("shipping.book", foreign, request=StockReserved, response=CourierBooked)
    assert _problems(saga) == ("step book, input: 'elsewhere' belongs to another saga",)


def test_input_from_a_parallel_step_is_refused() -> None:
    saga = Saga("place-order", input=PlaceOrder)
    reserved = saga.step(Inventory.reserve)
    saga.step("shipping.book", reserved, request=StockReserved, response=CourierBooked, after=[])
    (problem,) = _problems(saga)
    assert problem.startswith("step book, input: ")
    assert "reserve" in problem


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
    assert problem.startswith("step again, input: ")
    assert "shop.v1.PlaceOrder" in problem
    assert "shop.v1.StockReserved" in problem


def test_input_that_is_neither_source_nor_text_is_refused_for_untyped_callers() -> None:
    saga = Saga("place-order", input=PlaceOrder)
    saga.step(Inventory.reserve, PlaceOrder())  # type: ignore[call-overload]
    assert _problems(saga) == (
        "step reserve, input: expected the input or a step of this saga, or an expression as text, found PlaceOrder",
    )


def test_step_named_twice_in_after_is_named_once() -> None:
    saga = Saga("place-order", input=PlaceOrder)
    reserved = saga.step(Inventory.reserve)
    saga.step("shipping.book", request=PlaceOrder, response=CourierBooked, after=[reserved, reserved])
    assert list(saga.definition().steps[1].after.step_ids) == ["reserve"]


def test_all_problems_are_said_at_once_as_the_definition_is_read() -> None:
    other = Saga("other", input=PlaceOrder)
    saga = Saga("place order", input=PlaceOrder, version=0, time_limit=timedelta(0), labels={"": "x"})
    saga.step("Inventory", request=PlaceOrder, response=StockReserved, attempt_timeout=timedelta(days=9999))
    saga.step(Inventory.reserve, other.input)
    saga.on_success("mail", request=PlaceOrder, response=StockReserved)
    assert _places(saga) == [
        "name",
        "version",
        "time_limit",
        "labels['']",
        "step Inventory, action",
        "step Inventory, attempt_timeout",
        "step reserve, input",
        "on_success, action",
    ]


def test_what_does_not_fit_on_the_wire_is_said_without_what_follows_from_it() -> None:
    saga = Saga("place-order", input=PlaceOrder, version=-1)
    saga.step(Inventory.reserve)
    saga.step(Inventory.reserve, when="\ud800")
    problems = _problems(saga)
    assert [problem.partition(":")[0] for problem in problems] == ["definition", "step number 2"]
    assert all("does not fit into a definition" in problem for problem in problems)


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
        {"max_backoff": timedelta(days=367)},
        {"multiplier": 101},
        {"initial_backoff": timedelta(microseconds=999)},
    ],
)
def test_retry_policy_out_of_range_raises(fields: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="must be"):
        RetryPolicy(**fields)  # type: ignore[arg-type]
