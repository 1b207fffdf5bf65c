"""A step that a coordinator might call: made up for one check, with keys of its own."""

import asyncio
import os
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Final

from google.protobuf.any_pb2 import Any as PackedAny

from participant_sdk.completion_token import SIGNATURE_BYTES, CompletionIdentity, write_token
from participant_sdk.ids import new_saga_id
from participant_sdk.testing.conformance.replies import Kind, Reply
from participant_sdk.testing.conformance.ways import Caller
from saga.v1 import participant_pb2, saga_pb2

STEP_ID: Final = "step"
_DEFINITION: Final = saga_pb2.DefinitionReference(name="conformance", version=1)
_FIRST_PAUSE_S: Final = 0.05
_PAUSE_S_MAX: Final = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """The way to one action."""

    caller: Caller
    action: str
    input: PackedAny
    timeout_s: float
    """For one call."""
    patience_s: float
    """For one answer that is definite, over several calls."""


@dataclass(slots=True)
class Step:
    """One round of a step: every call of it carries the same keys (R1)."""

    line: Line
    input: PackedAny
    saga_id: str = field(default_factory=new_saga_id)
    first_attempt_at_ns: int = field(default_factory=time.time_ns)
    replies: list[Reply] = field(default_factory=list)
    """Of every execution, in the order in which they came."""
    was_executed: bool = False
    """Whether it may have taken effect, and has not been undone."""
    _attempts: int = 0

    @property
    def key(self) -> str:
        return f"{self.saga_id}/{STEP_ID}/execute/1"

    async def execute(self, *, time_left_s: float | None = None, action: str = "") -> Reply:
        """One call."""
        left_s = self.line.timeout_s if time_left_s is None else time_left_s
        return self.note_execution(await self.line.caller.execute(self.execute_request(left_s, action), left_s))

    async def compensate(self) -> Reply:
        """One call, with what is known of the execution from its replies."""
        reply = await self.line.caller.compensate(self.compensate_request(), self.line.timeout_s)
        self.was_executed = self.was_executed and reply.kind is not Kind.COMPENSATED
        return reply

    def execute_request(self, time_left_s: float, action: str = "") -> participant_pb2.ExecuteRequest:
        """What the next call of it asks for."""
        self._attempts += 1
        token = write_token(CompletionIdentity(self.saga_id, STEP_ID, 1), os.urandom(SIGNATURE_BYTES))
        request = participant_pb2.ExecuteRequest(
            saga_id=self.saga_id, definition=_DEFINITION, step_id=STEP_ID, action=action or self.line.action, key=self.key,
            attempt=self._attempts, input=self.input, completion_token=token,
        )  # fmt: skip
        request.first_attempt_at.FromNanoseconds(self.first_attempt_at_ns)
        request.time_left.FromNanoseconds(round(time_left_s * 1e9))
        return request

    def note_execution(self, reply: Reply) -> Reply:
        """What was answered to a call of it."""
        self.replies.append(reply)
        self.was_executed = self.was_executed or reply.took_effect or reply.kind is Kind.UNKNOWN
        return reply

    def compensate_request(self) -> participant_pb2.CompensateRequest:
        """What the next undo of it asks for."""
        self._attempts += 1
        request = participant_pb2.CompensateRequest(
            saga_id=self.saga_id, definition=_DEFINITION, step_id=STEP_ID, action=self.line.action,
            key=f"{self.saga_id}/{STEP_ID}/compensate/1", execute_key=self.key, attempt=self._attempts, input=self.input,
        )  # fmt: skip
        request.first_attempt_at.FromNanoseconds(self.first_attempt_at_ns)
        request.time_left.FromNanoseconds(round(self.line.timeout_s * 1e9))
        if (known := self._known_success()) is not None:
            request.succeeded.CopyFrom(known)
        else:
            request.unknown.SetInParent()
        return request

    async def execute_to_the_end(self) -> Reply:
        """Calls until the answer is definite, as a coordinator would, or patience is over; returns the last answer."""
        return await self._repeat(self.execute)

    async def compensate_to_the_end(self) -> Reply:
        """The same for the compensation."""
        return await self._repeat(self.compensate)

    async def _repeat(self, call: Callable[[], Awaitable[Reply]]) -> Reply:
        pause_s = _FIRST_PAUSE_S
        until = time.monotonic() + self.line.patience_s
        while True:
            reply = await call()
            if reply.is_definite or time.monotonic() >= until:
                return reply
            await asyncio.sleep(min(pause_s if reply.delay_s is None else reply.delay_s, _PAUSE_S_MAX))
            pause_s *= 2

    def _known_success(self) -> participant_pb2.Succeeded | None:
        for reply in self.replies:
            if reply.kind is Kind.SUCCEEDED and isinstance(reply.response, participant_pb2.ExecuteResponse):
                return reply.response.succeeded
        return None
