"""A participant for tests, and requests for it."""

import asyncio
import contextvars
import threading
from collections.abc import Callable
from datetime import timedelta

from google.protobuf.wrappers_pb2 import BytesValue, Int64Value, StringValue

from participant_sdk import EXTERNAL, Barrier, NoBarrier, Participant, Rejected, RetryLater, StepContext, action, new_saga_id
from saga.v1 import participant_pb2

CURRENT: contextvars.ContextVar[str] = contextvars.ContextVar("current", default="")


class UnprintableError(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text for you")


class Till(Participant, name="till"):
    """Ends every step as its input says."""

    def __init__(self, *, barrier: Barrier | None = None) -> None:
        super().__init__(barrier=barrier if barrier is not None else NoBarrier())
        self.steps: list[StepContext] = []
        self.undone: list[Int64Value | None] = []
        self.entered = asyncio.Event()
        self.gate = asyncio.Event()
        self.cancelled = asyncio.Event()

    @action
    async def take(self, request: StringValue, step: StepContext) -> Int64Value:
        self.steps.append(step)
        self.entered.set()
        return await self._end(request.value)

    @take.compensation
    async def give_back(self, request: StringValue, output: Int64Value, step: StepContext) -> None:
        self.steps.append(step)
        self.undone.append(output)
        await self._end(request.value)

    @action(effect=EXTERNAL)
    async def charge(self, request: StringValue, step: StepContext) -> Int64Value:
        return Int64Value(value=7)

    @charge.compensation
    async def refund(self, request: StringValue, output: Int64Value | None, step: StepContext) -> None:
        self.undone.append(output)

    @action
    async def look(self, request: StringValue, step: StepContext) -> BytesValue:
        return BytesValue(value=b"x" * int(request.value))

    async def _end(self, how: str) -> Int64Value:
        match how:
            case "reject":
                raise Rejected("TILL_EMPTY", "nothing in it", metadata={"reason": "spent"})
            case "later":
                raise RetryLater(timedelta(seconds=3), "counting")
            case "bug":
                raise KeyError("boom")
            case "unprintable":
                raise UnprintableError
            case "wrong type":
                return StringValue(value="7")  # type: ignore[return-value]
            case "wait":
                try:
                    await self.gate.wait()
                except asyncio.CancelledError:
                    self.cancelled.set()
                    raise
        return Int64Value(value=7)


class Scale(Participant, name="scale"):
    """Plain handlers, in threads."""

    def __init__(self) -> None:
        super().__init__(barrier=NoBarrier())
        self.entered = threading.Event()
        self.saw_cancellation = threading.Event()

    @action
    def weigh(self, request: StringValue, step: StepContext) -> StringValue:
        match request.value:
            case "session":
                return StringValue(value=str(step.session))
            case "stop":
                raise StopIteration
            case "wait":
                self.entered.set()
                if _until(lambda: step.cancelled):
                    self.saw_cancellation.set()
        is_main = threading.current_thread() is threading.main_thread()
        return StringValue(value=f"{'loop' if is_main else 'thread'} {CURRENT.get()}")


def _until(condition: Callable[[], bool]) -> bool:
    """Polls in a thread, where nothing tells of a change; bounded by some seconds."""
    pause = threading.Event()
    return any(condition() or pause.wait(0.005) for _ in range(2_000))


def execute(
    value: str, *, action_name: str = "till.take", saga_id: str = "", time_left_s: float | None = None
) -> participant_pb2.ExecuteRequest:
    saga = saga_id or new_saga_id()
    request = participant_pb2.ExecuteRequest(saga_id=saga, step_id="take", action=action_name, key=f"{saga}/take/execute/1", attempt=2)
    request.definition.name = "buy"
    request.definition.version = 3
    request.first_attempt_at.GetCurrentTime()
    request.input.Pack(StringValue(value=value))
    if time_left_s is not None:
        request.time_left.FromTimedelta(timedelta(seconds=time_left_s))
    return request


def compensate(
    value: str, *, action_name: str = "till.take", saga_id: str = "", output: Int64Value | None = None
) -> participant_pb2.CompensateRequest:
    saga = saga_id or new_saga_id()
    request = participant_pb2.CompensateRequest(
        saga_id=saga,
        step_id="take",
        action=action_name,
        key=f"{saga}/take/compensate/1",
        execute_key=f"{saga}/take/execute/1",
        attempt=1,
    )
    request.first_attempt_at.GetCurrentTime()
    request.input.Pack(StringValue(value=value))
    if output is None:
        request.unknown.SetInParent()
    else:
        request.succeeded.output.Pack(output)
    return request
