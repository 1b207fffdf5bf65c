"""What the barrier decides about a call: a pure function of the key's row and the call (R18). Stores only execute it.

One row per key of an execution holds both of its directions, so that the row's lock puts them in an order. Instants are
microseconds since 1970-01-01T00:00Z. Source of the idea: the sub-transaction barrier of dtm.
"""

import hashlib
import hmac
from dataclasses import dataclass, field
from enum import Enum, StrEnum, auto
from typing import Final, TypeAlias

from participant_sdk.effects import Effect

TOKEN_DIGEST_BYTES: Final = 32
"""SHA-256 of the completion token, before the reply of an ACCEPTED row."""


class ExecutionState(StrEnum):
    """What the row says about executing. No row: never seen."""

    STARTED = "STARTED"
    """A handler is or was running; whether it took effect is not known. Only an EXTERNAL effect is ever seen like this."""
    ACCEPTED = "ACCEPTED"
    """It is begun and finished later; the reply that says so is stored, behind the digest of the completion token (R24)."""
    SUCCEEDED = "SUCCEEDED"
    """It took effect; the reply is stored."""
    REJECTED = "REJECTED"
    """It had no effect and never will; the reply is stored (R5)."""
    SEALED = "SEALED"
    """It will not run any more: its compensation came first."""


class CompensationState(StrEnum):
    """What the row says about compensating."""

    NONE = "NONE"
    """Not asked for."""
    STARTED = "STARTED"
    """A handler is or was running. Only an EXTERNAL effect is ever seen like this."""
    DONE = "DONE"
    """Undone, or there was nothing to undo."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BarrierRow:
    """What a participant remembers about one key."""

    key: str
    """Key of the execution."""
    saga_id: str
    """For people who look into the table."""
    step_id: str
    """For people who look into the table."""
    action: str
    """What the key was used for. Example: "inventory.reserve"."""
    fingerprint: bytes
    """SHA-256 of the input's type and bytes: the same key must not carry another input (R22)."""
    execution: ExecutionState
    """How far executing has come."""
    reply: bytes | None = None
    """The encoded ExecuteResponse to replay; ACCEPTED has 32 bytes before it. None unless ACCEPTED, SUCCEEDED or REJECTED."""
    locked_until_us: int = 0
    """Until when the attempt that STARTED may still run. Grows with every attempt that takes over, so it names the attempt."""
    compensation: CompensationState = CompensationState.NONE
    """How far compensating has come."""
    compensation_locked_until_us: int = 0
    """The same as `locked_until_us`, for the compensation."""
    handler_ran: bool = False
    """Whether the compensation handler ran to its end; false as well if there was nothing to undo."""
    created_at_us: int
    """When the key was first seen; retention counts from here."""
    updated_at_us: int
    """When this row was last written."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StepIdentity:
    """Which step of which saga a call is for. All that a choice between databases may depend on (R21)."""

    saga_id: str
    step_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecuteCall:
    """A call to execute, as far as the barrier cares."""

    key: str
    """Key of the execution."""
    step: StepIdentity
    action: str
    fingerprint: bytes
    """SHA-256 of the input's type and bytes."""
    effect: Effect
    """Where the effect takes place."""
    first_attempt_at_us: int
    """When the first attempt was due, by the coordinator's clock (R21)."""
    deadline_us: int
    """When this attempt ends."""
    completion_token: str = field(default="", repr=False)
    """What the coordinator will believe if the handler accepts; empty if it sent none."""


class Knowledge(Enum):
    """What the coordinator knows about the execution that is to be undone (R20)."""

    SUCCEEDED = auto()
    UNKNOWN = auto()


@dataclass(frozen=True, slots=True, kw_only=True)
class CompensateCall:
    """A call to compensate, as far as the barrier cares."""

    key: str
    """Key of the execution that is to be undone, by which the row is found. The compensation's own key is not stored."""
    step: StepIdentity
    action: str
    fingerprint: bytes
    """SHA-256 of the type and bytes of the execution's input."""
    effect: Effect
    """Where the effect takes place."""
    first_attempt_at_us: int
    """When the first attempt to execute was due, by the coordinator's clock (R21)."""
    deadline_us: int
    """When this attempt ends."""
    knowledge: Knowledge


@dataclass(frozen=True, slots=True, kw_only=True)
class CompletionCall:
    """A wish to complete an accepted step, as far as the barrier cares (R24)."""

    key: str
    """Key of the execution."""
    step: StepIdentity
    token: str = field(repr=False)
    """The completion token, as its bearer has it."""
    wait_s: float
    """How long it may wait for others on its key, and for an acceptance that is about to be committed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """Run the handler."""

    is_first: bool
    """Whether no earlier attempt can have had an effect. If not, a rejection seals nothing (R5, R19)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Replay:
    """Answer what was answered before."""

    reply: bytes


@dataclass(frozen=True, slots=True)
class Sealed:
    """Refuse: the compensation came first, or is under way."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Locked:
    """Ask to be called again: another attempt may be running until then."""

    until_us: int


@dataclass(frozen=True, slots=True)
class Expired:
    """Refuse: the key may have been forgotten, so nobody can say whether it took effect (R21)."""


@dataclass(frozen=True, slots=True)
class Mismatch:
    """Refuse: the key was used for something else (R22)."""


ExecuteVerdict: TypeAlias = Run | Replay | Sealed | Locked | Expired | Mismatch


class OutputSource(Enum):
    """Where the output that a compensation undoes comes from."""

    STORED = auto()
    """From the reply in the row."""
    CLAIMED = auto()
    """From the coordinator."""
    MISSING = auto()
    """There is none: nobody knows whether the step took effect (R19)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Undo:
    """Run the compensation handler."""

    source: OutputSource


@dataclass(frozen=True, slots=True)
class NothingToUndo:
    """Seal the key without running a handler: a null compensation."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Undone:
    """It is undone already; answer so."""

    handler_ran: bool


CompensateVerdict: TypeAlias = Undo | NothingToUndo | Undone | Locked | Expired | Mismatch


@dataclass(frozen=True, slots=True)
class Complete:
    """Store the result: the step waits for it."""


@dataclass(frozen=True, slots=True)
class NotAccepted:
    """Wait: nothing is known of an acceptance, which may be about to be committed."""


CompletionVerdict: TypeAlias = Complete | Replay | NotAccepted | Sealed | Mismatch


def judge_execute(row: BarrierRow | None, call: ExecuteCall, *, now_us: int, retention_us: int) -> ExecuteVerdict:
    """Decides about a call to execute; `row` is None if the key has never been seen or was forgotten (R18, R19, R21, R22)."""
    if row is None:
        return Expired() if _may_be_forgotten(call, now_us, retention_us) else Run(is_first=True)
    if _is_for_something_else(row, call):
        return Mismatch()
    if row.compensation is not CompensationState.NONE:
        return Sealed()
    match row.execution:
        case ExecutionState.SEALED:
            return Sealed()
        case ExecutionState.SUCCEEDED | ExecutionState.REJECTED:
            return Replay(reply=_stored(row))
        case ExecutionState.ACCEPTED:
            # The same limit again, not what is left of it: it counts from when the coordinator hears of it first.
            return Replay(reply=_stored(row)[TOKEN_DIGEST_BYTES:])
        case ExecutionState.STARTED:
            locked = now_us < row.locked_until_us
            return Locked(until_us=row.locked_until_us) if locked else Run(is_first=False)


def judge_compensate(row: BarrierRow | None, call: CompensateCall, *, now_us: int, retention_us: int) -> CompensateVerdict:
    """Decides about a call to compensate; `row` is None if the key has never been seen or was forgotten (R18-R22)."""
    if row is None:
        if _may_be_forgotten(call, now_us, retention_us):
            return Expired()
        # R20: what the coordinator knows to have succeeded is never taken for a null compensation.
        claimed = call.knowledge is Knowledge.SUCCEEDED
        return Undo(source=OutputSource.CLAIMED) if claimed else NothingToUndo()
    if _is_for_something_else(row, call):
        return Mismatch()
    if row.compensation is CompensationState.DONE:
        return Undone(handler_ran=row.handler_ran)
    locked_until_us = _locked_until(row)
    if now_us < locked_until_us:
        return Locked(until_us=locked_until_us)
    return _judge_undoing(row, call)


def judge_completion(row: BarrierRow | None, call: CompletionCall) -> CompletionVerdict:
    """Decides about completing an accepted step; `row` is None if its key is not known, or not yet (R24).

    Mismatch: the token is not the one that came with the call that was accepted. Its signature only the coordinator can check, and only
    afterwards; so a forged one must not get as far as this row.
    """
    if row is None:
        return NotAccepted()
    if row.compensation is not CompensationState.NONE:
        return Sealed()
    match row.execution:
        case ExecutionState.SEALED:
            return Sealed()
        case ExecutionState.SUCCEEDED | ExecutionState.REJECTED:
            return Replay(reply=_stored(row))
        case ExecutionState.STARTED:
            return NotAccepted()
        case ExecutionState.ACCEPTED:
            is_genuine = hmac.compare_digest(_stored(row)[:TOKEN_DIGEST_BYTES], token_digest(call.token))
            return Complete() if is_genuine else Mismatch()


def token_digest(token: str) -> bytes:
    """What is kept of a completion token: enough to know it again, and of no use to who reads the table."""
    return hashlib.sha256(token.encode()).digest()


def is_still_mine(row: BarrierRow | None, mine: BarrierRow) -> bool:
    """Whether nobody has written the row since the attempt that asks wrote `mine`.

    Each attempt that takes over sets a later lock, so no two write the same row: a handler that ran on beyond its deadline must not
    overwrite what was decided without it.
    """
    return row == mine


def _judge_undoing(row: BarrierRow, call: CompensateCall) -> Undo | NothingToUndo:
    if row.execution is ExecutionState.SUCCEEDED:
        return Undo(source=OutputSource.STORED)
    if call.knowledge is Knowledge.SUCCEEDED:
        return Undo(source=OutputSource.CLAIMED)  # A person said so (R17), or the row is from a restored database (R20).
    if row.execution in {ExecutionState.STARTED, ExecutionState.ACCEPTED} or row.compensation is CompensationState.STARTED:
        return Undo(source=OutputSource.MISSING)  # R19: only "no row at all" is a null compensation; an acceptance is a beginning.
    return NothingToUndo()


def _locked_until(row: BarrierRow) -> int:
    if row.compensation is CompensationState.STARTED:
        return row.compensation_locked_until_us
    return row.locked_until_us if row.execution is ExecutionState.STARTED else 0


def _may_be_forgotten(call: ExecuteCall | CompensateCall, now_us: int, retention_us: int) -> bool:
    return now_us - call.first_attempt_at_us > retention_us


def _is_for_something_else(row: BarrierRow, call: ExecuteCall | CompensateCall) -> bool:
    return row.fingerprint != call.fingerprint or row.action != call.action


def _stored(row: BarrierRow) -> bytes:
    if row.reply is None:
        raise ValueError(f"the barrier row of {row.key} is {row.execution} without a reply; it was changed by hand")
    return row.reply
