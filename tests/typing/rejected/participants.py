"""What a team must not write: refused by type checkers at each marked line, and nowhere else."""

from datetime import timedelta

from google.protobuf.wrappers_pb2 import BytesValue, Int64Value, StringValue

from participant_sdk import EXTERNAL, Accepted, Action, NoBarrier, Participant, Rejected, StepContext, SyncStepContext, action
from participant_sdk.testing import step_context


class Inventory(Participant, name="inventory"):
    @action
    async def reserve(self, request: StringValue, step: StepContext) -> Int64Value:
        return Int64Value()

    @reserve.compensation  # E: other request
    async def other_request(self, request: BytesValue, reserved: Int64Value, step: StepContext) -> None: ...

    @reserve.compensation  # E: other output
    async def other_output(self, request: StringValue, reserved: BytesValue, step: StepContext) -> None: ...

    @reserve.compensation  # E: no output
    async def no_output(self, request: StringValue, step: StepContext) -> None: ...

    @reserve.compensation  # E: returns something
    async def returns(self, request: StringValue, reserved: Int64Value, step: StepContext) -> Int64Value:
        return reserved

    @action(effect=EXTERNAL)
    async def charge(self, request: StringValue, step: StepContext) -> Int64Value:
        return Int64Value()

    @charge.compensation  # E: must accept None
    async def refund(self, request: StringValue, charged: Int64Value, step: StepContext) -> None: ...

    @action
    async def ask(self, request: StringValue, step: StepContext) -> Int64Value | Accepted:
        return Accepted(timedelta(days=3))

    @ask.compensation  # E: must accept None
    async def withdraw(self, request: StringValue, answered: Int64Value, step: StepContext) -> None: ...

    @action
    async def no_union(self, request: StringValue, step: StepContext) -> Int64Value:
        return Accepted(timedelta(days=3))  # E: not annotated so

    @action  # E: not a message
    async def number(self, request: int, step: StepContext) -> Int64Value:
        return Int64Value()

    @action  # E: no step
    async def no_step(self, request: StringValue) -> Int64Value:
        return Int64Value()

    @action(effect="outside")  # E: no effect
    async def outside(self, request: StringValue, step: StepContext) -> Int64Value:
        return Int64Value()


class Blocking(Participant, name="blocking"):
    @action
    def reserve(self, request: StringValue, step: SyncStepContext) -> Int64Value:
        return Int64Value()

    @reserve.compensation  # E: the step of another kind
    def release(self, request: StringValue, reserved: Int64Value, step: StepContext) -> None: ...

    @action  # E: waits, and has a session that blocks
    async def wait(self, request: StringValue, step: SyncStepContext) -> Int64Value:
        return Int64Value()


def takes(described: Action[BytesValue, Int64Value]) -> str:
    return described.qualified_name


async def use() -> None:
    inventory = Inventory(barrier=NoBarrier())
    takes(Inventory.reserve)  # E: other request
    await inventory.reserve(BytesValue(), step_context())  # E: other request
    await inventory.reserve(StringValue())  # E: no step
    async with inventory.completing("token", Inventory.ask) as completion:
        completion.succeed(StringValue())  # E: other output
    raise Rejected("NO", "no", code=5)  # E: no status code
