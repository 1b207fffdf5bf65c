"""What is wrong with a participant class is told when it is created, with what to write."""

from collections.abc import AsyncIterator, Callable, Iterator
from typing import TYPE_CHECKING, Any, cast

import pytest
from google.protobuf.message import Message
from google.protobuf.wrappers_pb2 import BytesValue, Int64Value, StringValue
from sqlalchemy import create_engine

from participant_sdk import (
    EXTERNAL,
    Action,
    Effect,
    NoBarrier,
    Participant,
    ParticipantDefinitionError,
    ParticipantSetupError,
    SqlBarrier,
    StepContext,
    SyncStepContext,
    action,
)
from participant_sdk.testing import MemoryBarrier, step_context

if TYPE_CHECKING:
    from decimal import Decimal

untyped = cast("Any", action)
"""The decorator without its types, to write what a type checker would refuse."""


class Inventory(Participant, name="inventory"):
    @action
    async def reserve(self, request: StringValue, step: StepContext) -> Int64Value:
        return Int64Value(value=len(request.value))

    @reserve.compensation
    async def release(self, request: StringValue, output: Int64Value, step: StepContext) -> None:
        """Nothing to undo in a test."""

    @action(name="count_all", effect=EXTERNAL)
    def count(self, request: StringValue, step: StepContext) -> Int64Value:
        return Int64Value(value=7)


def test_action_read_from_the_class_describes_itself() -> None:
    assert isinstance(Inventory.reserve, Action)
    assert Inventory.reserve.qualified_name == "inventory.reserve"
    assert (Inventory.reserve.request_type, Inventory.reserve.response_type) == (StringValue, Int64Value)
    assert Inventory.reserve.is_compensatable
    assert Inventory.reserve.effect is Effect.DATABASE
    assert Inventory.count.qualified_name == "inventory.count_all"
    assert not Inventory.count.is_compensatable
    assert Inventory.count.effect is EXTERNAL
    assert list(Inventory.actions) == ["reserve", "count_all"]


async def test_action_read_from_an_instance_is_the_handler() -> None:
    inventory = Inventory(barrier=NoBarrier())
    step = step_context()
    assert (await inventory.reserve(StringValue(value="abc"), step)).value == 3
    assert inventory.count(StringValue(), step).value == 7
    await inventory.release(StringValue(), Int64Value(), step)


def test_subclass_without_a_name_keeps_it_and_one_with_a_name_has_its_own_actions() -> None:
    class Fake(Inventory):
        pass

    class Depot(Inventory, name="depot"):
        pass

    assert Fake.reserve.qualified_name == "inventory.reserve"
    assert Depot.reserve.qualified_name == "depot.reserve"
    assert Depot.reserve.is_compensatable
    assert Inventory.reserve.qualified_name == "inventory.reserve"


def test_abstract_base_needs_no_name_and_cannot_be_served() -> None:
    class Base(Participant):
        @action
        async def reserve(self, request: StringValue, step: StepContext) -> Int64Value:
            return Int64Value()

    with pytest.raises(ParticipantDefinitionError, match='name="'):
        Base(barrier=NoBarrier())
    with pytest.raises(ParticipantDefinitionError, match='name="'):
        _ = Base.reserve.qualified_name


@pytest.mark.parametrize("name", ["", "Inventory", "1nventory", "in ventory", "in.ventory", "x" * 65])
def test_bad_name_is_refused(name: str) -> None:
    with pytest.raises(ParticipantDefinitionError, match="lower-case letter"):
        type("Bad", (Participant,), {}, name=name)


async def _no_annotations(self, request, step):  # type: ignore[no-untyped-def]
    return request


async def _no_message(self: object, request: int, step: StepContext) -> StringValue:
    return StringValue()


async def _message_itself(self: object, request: Message, step: StepContext) -> StringValue:
    return StringValue()


async def _no_step(self: object, request: StringValue) -> StringValue:
    return request


async def _wrong_step(self: object, request: StringValue, step: int) -> StringValue:
    return request


async def _returns_nothing(self: object, request: StringValue, step: StepContext) -> None:
    """A step has an output."""


async def _unknown_name(self: object, request: "Decimal", step: StepContext) -> StringValue:
    return StringValue()


async def _keyword_only(self: object, request: StringValue, *, step: StepContext) -> StringValue:
    return request


async def _yields(self: object, request: StringValue, step: StepContext) -> AsyncIterator[StringValue]:
    yield request


def _yields_plainly(self: object, request: StringValue, step: StepContext) -> Iterator[StringValue]:
    yield request


@pytest.mark.parametrize(
    ("handler", "message"),
    [
        (_yields, "a handler returns its result once, and this one uses `yield`"),
        (_yields_plainly, "a handler returns its result once, and this one uses `yield`"),
        (_no_annotations, "no annotation for request, step, return"),
        (_no_message, "request: expected a generated protobuf message class, a dataclass or a Pydantic model, found <class 'int'>"),
        (_message_itself, "expected a generated protobuf message class"),
        (_no_step, "expected 2 arguments after self"),
        (_wrong_step, "must be a StepContext, found int"),
        (_returns_nothing, "return: expected a generated protobuf message class"),
        (_unknown_name, "'Decimal' is not known when the class is created"),
        (_keyword_only, "expected 2 arguments after self"),
    ],
)
def test_bad_handler_is_refused(handler: object, message: str) -> None:
    with pytest.raises(ParticipantDefinitionError) as caught:
        type("Bad", (Participant,), {"reserve": untyped(handler)}, name="bad")
    assert message in str(caught.value)
    assert "Bad cannot be a participant" in str(caught.value)


async def _other_request(self: object, request: BytesValue, output: Int64Value, step: StepContext) -> None: ...


async def _other_output(self: object, request: StringValue, output: BytesValue, step: StepContext) -> None: ...


async def _no_output(self: object, request: StringValue, step: StepContext) -> None: ...


async def _returns(self: object, request: StringValue, output: Int64Value, step: StepContext) -> Int64Value:
    return output


@pytest.mark.parametrize(
    ("compensation", "message"),
    [
        (_other_request, "its request must be what the action takes, StringValue; found BytesValue"),
        (_other_output, "its output must be what the action returns, Int64Value; found BytesValue"),
        (_no_output, "expected 3 arguments after self"),
        (_returns, "annotate `-> None`; found Int64Value"),
    ],
)
def test_compensation_that_does_not_fit_is_refused(compensation: object, message: str) -> None:
    async def reserve(self: object, request: StringValue, step: StepContext) -> Int64Value:
        return Int64Value()

    declared = untyped(reserve)
    declared.compensation(compensation)
    with pytest.raises(ParticipantDefinitionError) as caught:
        type("Bad", (Participant,), {"reserve": declared}, name="bad")
    assert message in str(caught.value)


def test_external_compensation_must_accept_a_missing_output() -> None:  # R19
    async def charge(self: object, request: StringValue, step: StepContext) -> Int64Value:
        return Int64Value()

    async def refund(self: object, request: StringValue, output: Int64Value, step: StepContext) -> None: ...

    declared = untyped(effect=EXTERNAL)(charge)
    declared.compensation(refund)
    with pytest.raises(ParticipantDefinitionError, match=r"`Int64Value \| None`"):
        type("Bad", (Participant,), {"charge": declared}, name="bad")


def test_all_problems_are_told_at_once() -> None:
    with pytest.raises(ParticipantDefinitionError) as caught:
        type("Bad", (Participant,), {"one": untyped(_no_step), "two": untyped(_no_message)}, name="bad")
    assert "_no_step" in str(caught.value)
    assert "_no_message" in str(caught.value)


def test_two_actions_of_one_name_are_refused() -> None:
    async def reserve(self: object, request: StringValue, step: StepContext) -> Int64Value:
        return Int64Value()

    with pytest.raises(ParticipantDefinitionError, match="an action 'reserve' already"):
        type("Bad", (Participant,), {"reserve": untyped(reserve), "other": untyped(name="reserve")(reserve)}, name="bad")


def test_second_compensation_of_an_action_is_refused() -> None:
    async def reserve(self: object, request: StringValue, step: StepContext) -> Int64Value:
        return Int64Value()

    declared = untyped(reserve)
    declared.compensation(_other_request)
    with pytest.raises(ParticipantDefinitionError, match="has a compensation already"):
        declared.compensation(_other_output)


def test_action_overridden_by_something_else_is_refused() -> None:
    with pytest.raises(ParticipantDefinitionError, match="declare it with @action as well"):
        type("Bad", (Inventory,), {"reserve": _no_step}, name="bad")


def test_plain_handler_with_a_database_effect_is_refused_under_a_barrier_that_could_not_guard_it() -> None:
    class Plain(Participant, name="plain"):
        @action
        def reserve(self, request: StringValue, step: StepContext) -> Int64Value:
            return Int64Value()

    with pytest.raises(ParticipantSetupError, match="EXTERNAL"):
        Plain(barrier=MemoryBarrier())
    Plain(barrier=NoBarrier())


@pytest.fixture
def blocking_barrier() -> SqlBarrier:
    return SqlBarrier(create_engine("sqlite://"))  # it is never connected


def test_handlers_are_of_the_kind_that_the_engine_asks_for(blocking_barrier: SqlBarrier) -> None:
    class Taking(Participant, name="taking"):
        @action
        def reserve(self, request: StringValue, step: SyncStepContext) -> Int64Value:
            return Int64Value()

        @action(effect=EXTERNAL)
        async def charge(self, request: StringValue, step: StepContext) -> Int64Value:
            return Int64Value()

    class Waiting(Participant, name="waiting"):
        @action
        async def reserve(self, request: StringValue, step: StepContext) -> Int64Value:
            return Int64Value()

    Taking(barrier=blocking_barrier)
    Taking(barrier=NoBarrier())
    with pytest.raises(ParticipantSetupError, match="give SqlBarrier an Engine"):
        Taking(barrier=MemoryBarrier())
    with pytest.raises(ParticipantSetupError, match="SyncStepContext"):
        Waiting(barrier=blocking_barrier)


async def _waits(self: object, request: StringValue, step: SyncStepContext) -> Int64Value:
    return Int64Value()


def _blocks(self: object, request: StringValue, step: SyncStepContext) -> Int64Value:
    return Int64Value()


async def _undoes(self: object, request: StringValue, output: Int64Value, step: StepContext) -> None: ...


@pytest.mark.parametrize(
    ("declare", "told"),
    [
        (lambda: untyped(_waits), "for plain `def` handlers"),
        (lambda: untyped(effect=EXTERNAL)(_blocks), "effect=EXTERNAL take a StepContext"),
        (lambda: _with(untyped(_blocks), _undoes), "must be a SyncStepContext, as that of its action"),
    ],
)
def test_step_of_the_wrong_kind_is_told(declare: Callable[[], object], told: str) -> None:
    with pytest.raises(ParticipantDefinitionError, match=told):
        type("Bad", (Participant,), {"reserve": declare()}, name="bad")


def _with(declared: Any, compensation: object) -> object:
    declared.compensation(compensation)
    return declared


def test_forgotten_super_init_is_told() -> None:
    class Forgetful(Inventory):
        def __init__(self) -> None:
            """Does not pass the barrier on."""

    with pytest.raises(ParticipantSetupError, match="super"):
        _ = Forgetful().barrier
