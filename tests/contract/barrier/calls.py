"""Calls and handlers for tests of barriers, below gRPC."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import timedelta

import grpc
from google.protobuf.any_pb2 import Any as PackedAny
from google.protobuf.wrappers_pb2 import StringValue

from participant_sdk.barrier.outcomes import (
    CompensateOutcome,
    ExecuteOutcome,
    HandlerAccepted,
    HandlerFailed,
    HandlerPostponed,
    HandlerRejected,
    HandlerSucceeded,
    HandlerUndid,
)
from participant_sdk.barrier.verdict import CompensateCall, CompletionCall, ExecuteCall, Knowledge, StepIdentity
from participant_sdk.effects import Effect
from participant_sdk.rpc_errors import error_details, status_with
from participant_sdk.step_context import SessionSource
from saga.v1 import participant_pb2

THREAD_TIME_LIMIT_S = 10.0
START_US = 1_780_000_000_000_000
SECOND_US = 1_000_000
DAY_US = 86_400 * SECOND_US
KEY = "0197c8a4-5f0e-7c31-9a52-3f1d6b0e8a77/reserve/execute/1"
TOKEN = "the token of that key"
STEP = StepIdentity(saga_id="0197c8a4-5f0e-7c31-9a52-3f1d6b0e8a77", step_id="reserve")

Write = Callable[[SessionSource, str], Awaitable[None]]
"""Writes a line to the participant's own tables, in the database transaction that the barrier shares."""


@dataclass
class ManualClock:
    """A clock that stands still until it is told."""

    now_us: int = START_US

    def __call__(self) -> int:
        return self.now_us

    def advance(self, seconds: float) -> None:
        self.now_us += int(seconds * SECOND_US)


def execute_call(
    clock: ManualClock, *, effect: Effect = Effect.DATABASE, value: bytes = b"input", age_s: float = 0, time_left_s: float = 10
) -> ExecuteCall:
    return ExecuteCall(
        key=KEY,
        step=STEP,
        action="inventory.reserve",
        fingerprint=value.ljust(32, b"."),
        effect=effect,
        first_attempt_at_us=clock() - int(age_s * SECOND_US),
        deadline_us=clock() + int(time_left_s * SECOND_US),
        completion_token=TOKEN,
    )


def completion_call(*, token: str = TOKEN, wait_s: float = 5) -> CompletionCall:
    return CompletionCall(key=KEY, step=STEP, token=token, wait_s=wait_s)


def compensate_call(
    clock: ManualClock,
    knowledge: Knowledge = Knowledge.UNKNOWN,
    *,
    effect: Effect = Effect.DATABASE,
    value: bytes = b"input",
    age_s: float = 0,
    time_left_s: float = 10,
) -> CompensateCall:
    return CompensateCall(
        key=KEY,
        step=STEP,
        action="inventory.reserve",
        fingerprint=value.ljust(32, b"."),
        effect=effect,
        first_attempt_at_us=clock() - int(age_s * SECOND_US),
        deadline_us=clock() + int(time_left_s * SECOND_US),
        knowledge=knowledge,
    )


def packed(text: str) -> PackedAny:
    output = PackedAny()
    output.Pack(StringValue(value=text))
    return output


def reply(text: str) -> participant_pb2.ExecuteResponse:
    return participant_pb2.ExecuteResponse(succeeded=participant_pb2.Succeeded(output=packed(text)))


def acceptance(seconds: int = 3_600) -> participant_pb2.ExecuteResponse:
    response = participant_pb2.ExecuteResponse()
    response.accepted.time_limit.seconds = seconds
    return response


def accepted(seconds: int = 3_600) -> HandlerAccepted:
    return HandlerAccepted(response=acceptance(seconds))


def refusal() -> participant_pb2.ExecuteResponse:
    return participant_pb2.ExecuteResponse(rejected=participant_pb2.Rejected(status=rejected().status, sealed=True))


def rejected() -> HandlerRejected:
    return HandlerRejected(status=status_with(grpc.StatusCode.FAILED_PRECONDITION, "none left", error_details("OUT_OF_STOCK")))


def postponed() -> HandlerPostponed:
    return HandlerPostponed(after=timedelta(seconds=7), status=status_with(grpc.StatusCode.UNAVAILABLE, "not now"))


def failed(error: BaseException | None = None) -> HandlerFailed:
    return HandlerFailed(status=status_with(grpc.StatusCode.UNKNOWN, "broken"), error=error)


def _loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


@dataclass
class Gate:
    """Where a run of a handler says that it is there, and waits until it may go on; in the event loop, or in a thread of a barrier."""

    entered: asyncio.Event = field(default_factory=asyncio.Event)
    gate: asyncio.Event | None = None
    """What a run waits for after it has written; None: nothing."""
    loop: asyncio.AbstractEventLoop | None = field(default_factory=_loop)
    """That of the test."""

    async def pass_through(self) -> None:
        if _loop() is None:
            assert self.loop is not None
            self.loop.call_soon_threadsafe(self.entered.set)
            if self.gate is not None:
                asyncio.run_coroutine_threadsafe(self.gate.wait(), self.loop).result(THREAD_TIME_LIMIT_S)
            return
        self.entered.set()
        if self.gate is not None:
            await self.gate.wait()


class Handler(Gate):
    """A handler that writes one line per run, and then ends as it is told."""

    def __init__(self, write: Write, outcomes: list[ExecuteOutcome] | None = None) -> None:
        """`outcomes`: how its runs end, one after the other; after the last it succeeds with its number."""
        super().__init__()
        self.write = write
        self.outcomes = outcomes or []
        self.runs = 0

    async def __call__(self, sessions: SessionSource) -> ExecuteOutcome:
        self.runs += 1
        number = self.runs
        await self.write(sessions, f"execute {number}")
        await self.pass_through()
        return self.outcomes.pop(0) if self.outcomes else HandlerSucceeded(response=reply(f"reply {number}"))


class Undo(Gate):
    """A compensation that writes one line per run, and then ends as it is told."""

    def __init__(self, write: Write, outcomes: list[CompensateOutcome] | None = None) -> None:
        super().__init__()
        self.write = write
        self.outcomes = outcomes or []
        self.seen: list[str | None] = []
        """The outputs that it was given to undo."""

    async def __call__(self, sessions: SessionSource, output: PackedAny | None) -> CompensateOutcome:
        self.seen.append(None if output is None else StringValue.FromString(output.value).value)
        await self.write(sessions, f"undo {len(self.seen)}")
        await self.pass_through()
        return self.outcomes.pop(0) if self.outcomes else HandlerUndid()
