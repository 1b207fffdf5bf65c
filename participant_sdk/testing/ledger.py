"""What participants were asked to do and did, call by call, as a test looks at it."""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import TypeVar

from google.protobuf.any_pb2 import Any as PackedAny

from participant_sdk.payloads import Payload, payload_type

MessageT = TypeVar("MessageT", bound=Payload)


class CallOutcome(StrEnum):
    """How a call ended at the participant, whatever became of its reply."""

    SUCCEEDED = "succeeded"
    REJECTED = "rejected"
    ACCEPTED = "accepted"
    RETRY_LATER = "retry later"
    UNDONE = "undone"
    NOTHING_TO_UNDO = "nothing to undo"
    FAILED = "failed"
    CUT = "cut short"
    """Its process died or nobody waited any more; what it had done by then only the participant's database knows."""


@dataclass(slots=True, kw_only=True)
class Call:
    """One call that arrived at a participant."""

    saga_id: str
    step_id: str
    action: str
    """Example: "payments.charge"."""
    is_undo: bool
    """Whether it is to compensate."""
    key: str
    execute_key: str
    """Key that the step was executed with; of an execution the same as `key`."""
    attempt: int
    packed_input: PackedAny
    arrived_s: float
    """Virtual seconds since the world began."""
    ended_s: float | None = None
    """None: it is under way."""
    outcome: CallOutcome | None = None
    error: str = ""
    """Why it was rejected or failed."""
    handler_ran: bool = False
    """Whether a handler of the participant was called for it; False too for a participant without the SDK."""
    is_guarded: bool = False
    """Whether the participant promises that each key takes effect at most once: a barrier, and an effect inside its database."""
    took_effect: bool = False
    """Whether it was this very call that did it, or undid it: a repeated answer did nothing."""

    @property
    def name(self) -> str:
        """The step, or "undo" and the step."""
        return f"undo {self.step_id}" if self.is_undo else self.step_id

    def input(self, message_type: type[MessageT]) -> MessageT:
        """What it was given. Raises TypeError if that is of another type."""
        expected = payload_type(message_type)
        if not expected.is_in(self.packed_input):
            raise TypeError(f"input of {self.name}: expected {expected.name}, found {self.packed_input.TypeName()}")
        return expected.unpack(self.packed_input)

    def __str__(self) -> str:
        said = f"{self.outcome or 'under way'}{f': {self.error}' if self.error else ''}"
        return f"+{self.arrived_s:.3f} s  {self.name} (try {self.attempt}): {said}"


def order_of(calls: Iterable[Call]) -> list[str]:
    """What was called, in the order in which it was first called: repeated attempts of one call count as one."""
    return list(dict.fromkeys(call.name for call in calls))
