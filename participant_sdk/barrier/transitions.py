"""How the row of a key changes: every way in which one is made or replaced, as pure functions."""

from dataclasses import replace

from participant_sdk.barrier.verdict import (
    BarrierRow,
    CompensateCall,
    CompensationState,
    ExecuteCall,
    ExecutionState,
    Knowledge,
    token_digest,
)
from saga.v1 import participant_pb2


def fresh_execution(call: ExecuteCall, now_us: int) -> BarrierRow:
    """The row of a key that was never seen, as an execution of it begins."""
    return BarrierRow(
        key=call.key,
        saga_id=call.step.saga_id,
        step_id=call.step.step_id,
        action=call.action,
        fingerprint=call.fingerprint,
        execution=ExecutionState.STARTED,
        locked_until_us=_lock(call.deadline_us, 0, now_us),
        created_at_us=now_us,
        updated_at_us=now_us,
    )


def fresh_compensation(call: CompensateCall, now_us: int) -> BarrierRow:
    """The row of a key that was never seen, as its compensation comes first: sealed, and done unless R20 has a handler run."""
    done = call.knowledge is Knowledge.UNKNOWN
    return BarrierRow(
        key=call.key,
        saga_id=call.step.saga_id,
        step_id=call.step.step_id,
        action=call.action,
        fingerprint=call.fingerprint,
        execution=ExecutionState.SEALED,
        compensation=CompensationState.DONE if done else CompensationState.STARTED,
        compensation_locked_until_us=0 if done else _lock(call.deadline_us, 0, now_us),
        created_at_us=now_us,
        updated_at_us=now_us,
    )


def taken_over(row: BarrierRow, call: ExecuteCall, now_us: int) -> BarrierRow:
    """A STARTED execution whose lock is over, as the next attempt begins."""
    lock = _lock(call.deadline_us, row.locked_until_us, now_us)
    return replace(row, locked_until_us=lock, updated_at_us=now_us)


def undoing(row: BarrierRow, call: CompensateCall, now_us: int) -> BarrierRow:
    """The row as a compensation begins. From here on no execution runs (R19); a success keeps its reply to undo."""
    succeeded = row.execution is ExecutionState.SUCCEEDED
    return replace(
        row,
        execution=ExecutionState.SUCCEEDED if succeeded else ExecutionState.SEALED,
        compensation=CompensationState.STARTED,
        compensation_locked_until_us=_lock(call.deadline_us, row.compensation_locked_until_us, now_us),
        updated_at_us=now_us,
    )


def answered(row: BarrierRow, response: participant_pb2.ExecuteResponse, token: str, now_us: int) -> BarrierRow:
    """The row with that answer stored, to be replayed. `token` is what an accepted step is completed with."""
    reply = response.SerializeToString(deterministic=True)
    match response.WhichOneof("outcome"):
        case "succeeded":
            return succeeded(row, reply, now_us)
        case "accepted":
            return accepted(row, reply, token, now_us)
        case "rejected":
            return rejected(row, reply, now_us)
        case other:
            raise ValueError(f"expected an answer that is stored, found {other}")


def succeeded(row: BarrierRow, reply: bytes, now_us: int) -> BarrierRow:
    """The execution took effect."""
    return replace(
        row, execution=ExecutionState.SUCCEEDED, reply=reply, locked_until_us=0, updated_at_us=now_us
    )  # fmt: skip


def accepted(row: BarrierRow, reply: bytes, token: str, now_us: int) -> BarrierRow:
    """The execution is begun, and is finished later with that token (R24)."""
    return replace(
        row, execution=ExecutionState.ACCEPTED, reply=token_digest(token) + reply, locked_until_us=0, updated_at_us=now_us
    )  # fmt: skip


def rejected(row: BarrierRow, reply: bytes, now_us: int) -> BarrierRow:
    """The execution had no effect and never will have one (R5)."""
    return replace(
        row, execution=ExecutionState.REJECTED, reply=reply, locked_until_us=0, updated_at_us=now_us
    )  # fmt: skip


def undone(row: BarrierRow, now_us: int, *, handler_ran: bool) -> BarrierRow:
    """The compensation is done."""
    return replace(
        row,
        compensation=CompensationState.DONE,
        compensation_locked_until_us=0,
        handler_ran=handler_ran,
        updated_at_us=now_us,
    )


def unlocked(row: BarrierRow, now_us: int) -> BarrierRow:
    """The handler has ended without telling whether it took effect: the next attempt need not wait for the deadline."""
    return replace(
        row,
        locked_until_us=min(row.locked_until_us, now_us),
        compensation_locked_until_us=min(row.compensation_locked_until_us, now_us),
        updated_at_us=now_us,
    )


def _lock(deadline_us: int, before_us: int, now_us: int) -> int:
    """The end of a new lock: the attempt's deadline, and later than any lock of that row before, so that it names the attempt."""
    return max(deadline_us, before_us + 1, now_us + 1)
