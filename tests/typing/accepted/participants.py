"""What a team writes: accepted by type checkers as it stands."""

from collections.abc import Awaitable
from datetime import timedelta
from typing import assert_type

from google.protobuf.wrappers_pb2 import BytesValue, Int64Value, StringValue
from sqlalchemy import create_engine
from sqlalchemy.orm import Session

from participant_sdk import (
    DATABASE,
    EXTERNAL,
    Accepted,
    Action,
    NoBarrier,
    Participant,
    SagaClient,
    SqlBarrier,
    StepContext,
    SyncStepContext,
    action,
    beating,
)
from participant_sdk.testing import step_context, sync_step_context


class Inventory(Participant, name="inventory"):
    def __init__(self) -> None:
        super().__init__(barrier=NoBarrier())

    @action
    async def reserve(self, request: StringValue, step: StepContext) -> Int64Value:
        assert_type(step.key, str)
        return Int64Value()

    @reserve.compensation
    async def release(self, request: StringValue, reserved: Int64Value, step: StepContext) -> None: ...

    @action(effect=EXTERNAL)
    async def charge(self, request: StringValue, step: StepContext) -> Int64Value:
        return Int64Value()

    @charge.compensation
    async def refund(self, request: StringValue, charged: Int64Value | None, step: StepContext) -> None: ...

    @action(effect=EXTERNAL, name="weigh_it")
    def weigh(self, request: BytesValue, step: StepContext) -> Int64Value:
        return Int64Value()

    @weigh.compensation
    def unweigh(self, request: BytesValue, weighed: Int64Value | None, step: StepContext) -> None: ...

    @action(effect=DATABASE)
    async def count(self, request: StringValue, step: StepContext) -> Int64Value:
        return Int64Value()

    @count.compensation
    async def uncount(self, request: StringValue, counted: Int64Value | None, step: StepContext) -> None:
        """Accepts more than it is given."""

    @action
    async def ask(self, request: StringValue, step: StepContext) -> Int64Value | Accepted:
        assert_type(step.completion_token, str)
        return Accepted(timedelta(days=3))

    @ask.compensation
    async def withdraw(self, request: StringValue, answered: Int64Value | None, step: StepContext) -> None: ...

    @action(effect=EXTERNAL)
    async def print_it(self, request: StringValue, step: StepContext) -> Int64Value | Accepted:
        return Int64Value()

    @print_it.compensation
    async def shred(self, request: StringValue, printed: Int64Value | None, step: StepContext) -> None: ...

    @action(name="plainly")
    def ask_plainly(self, request: BytesValue, step: StepContext) -> Int64Value | Accepted:
        return Accepted(timedelta(hours=1))


class Blocking(Participant, name="blocking"):
    @action
    def reserve(self, request: StringValue, step: SyncStepContext) -> Int64Value:
        assert_type(step.session, Session)
        return Int64Value()

    @reserve.compensation
    def release(self, request: StringValue, reserved: Int64Value, step: SyncStepContext) -> None: ...

    @action(name="ask_it")
    def ask(self, request: StringValue, step: SyncStepContext) -> Int64Value | Accepted:
        return Accepted(timedelta(hours=1))

    @ask.compensation
    def withdraw(self, request: StringValue, answered: Int64Value | None, step: SyncStepContext) -> None: ...


def block() -> Int64Value:
    takes(Blocking.reserve)
    blocking = Blocking(barrier=SqlBarrier(create_engine("sqlite://"), calls_per_commit=64))
    return blocking.reserve(StringValue(), sync_step_context())


def takes(described: Action[StringValue, Int64Value]) -> str:
    return described.qualified_name


async def use() -> None:
    takes(Inventory.reserve)
    takes(Inventory.charge)
    assert_type(Inventory.reserve.request_type, type[StringValue])
    assert_type(Inventory.weigh.response_type, type[Int64Value])
    inventory = Inventory()
    step = step_context()
    pending: Awaitable[Int64Value] = inventory.reserve(StringValue(), step)
    assert_type(await pending, Int64Value)
    assert_type(inventory.weigh(BytesValue(), step), Int64Value)
    await inventory.release(StringValue(), Int64Value(), step)
    await inventory.refund(StringValue(), None, step)


async def complete(inventory: Inventory, client: SagaClient, token: str) -> None:
    takes(Inventory.ask)
    assert_type(Inventory.ask.response_type, type[Int64Value])
    assert_type(await inventory.ask(StringValue(), step_context()), Int64Value | Accepted)
    assert_type(inventory.ask_plainly(BytesValue(), step_context()), Int64Value | Accepted)
    async with inventory.completing(token, Inventory.ask, client=client) as completion:
        completion.succeed(Int64Value())
    async with inventory.completing(token) as completion:
        completion.reject("DENIED", "not this year")
    async with beating(client, token) as beat:
        beat.report(StringValue(value="half of it"))
