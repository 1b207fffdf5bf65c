"""The way of an action whose effect is inside the barrier's database transaction: lock, judge, run, store, commit, as one."""

from google.protobuf.any_pb2 import Any as PackedAny
from google.rpc import status_pb2

from participant_sdk.barrier import answers, transitions
from participant_sdk.barrier.barrier import RunCompensate, RunExecute
from participant_sdk.barrier.guard import Guard, OwnAnswer
from participant_sdk.barrier.outcomes import (
    ExecuteOutcome,
    HandlerAccepted,
    HandlerFailed,
    HandlerPostponed,
    HandlerRejected,
    HandlerSucceeded,
    HandlerUndid,
)
from participant_sdk.barrier.store import BarrierUnit, StoreBusyError
from participant_sdk.barrier.verdict import (
    BarrierRow,
    CompensateCall,
    ExecuteCall,
    Expired,
    Locked,
    Mismatch,
    NothingToUndo,
    OutputSource,
    Run,
    Undo,
    Undone,
    judge_compensate,
    judge_execute,
)
from saga.v1 import participant_pb2


async def execute_in_database(guard: Guard, call: ExecuteCall, run: RunExecute) -> participant_pb2.ExecuteResponse | OwnAnswer:
    """One database transaction around one run of the handler; to be repeated as a whole (R18)."""
    async with guard.store.unit(call.step) as unit:
        fresh = transitions.fresh_execution(call, guard.clock())
        row = await guard.lock(unit, fresh, call)
        verdict = judge_execute(row, call, now_us=guard.clock(), retention_us=guard.retention_us)
        if not isinstance(verdict, Run):
            return guard.refuse_execute(call, verdict)
        outcome = await run(unit)
        if isinstance(outcome, (HandlerSucceeded, HandlerAccepted)):
            # THE REPLY IS STORED IN THE SAME DATABASE TRANSACTION AS THE EFFECT.
            await unit.put_row(transitions.answered(row or fresh, outcome.response, call.completion_token, guard.clock()))
            await unit.commit()
            return outcome.response
        _raise_if_busy(unit, outcome)
    # From here on everything the handler wrote is rolled back.
    match outcome:
        case HandlerRejected(status=status) if verdict.is_first:
            return await _seal_rejection(guard, call, status)
        case HandlerRejected(status=status):
            return answers.rejection(status, sealed=False)
        case HandlerPostponed(after=after, status=status):
            return answers.retry_later(after, status)
        case HandlerFailed(status=status):
            return status


async def _seal_rejection(guard: Guard, call: ExecuteCall, status: status_pb2.Status) -> participant_pb2.ExecuteResponse | OwnAnswer:
    """R5: locks and judges again, since another process may have been faster, and stores the rejection if it was not."""
    response = answers.rejection(status, sealed=True)
    now_us = guard.clock()
    async with guard.store.unit(call.step) as unit:
        fresh = transitions.answered(transitions.fresh_execution(call, now_us), response, call.completion_token, now_us)
        row = await guard.lock(unit, fresh, call)
        if row is None:
            await unit.commit()
            return response
        verdict = judge_execute(row, call, now_us=guard.clock(), retention_us=guard.retention_us)
        if isinstance(verdict, Run):
            return answers.rejection(status, sealed=False)
        return guard.refuse_execute(call, verdict)


async def compensate_in_database(
    guard: Guard, call: CompensateCall, claimed: PackedAny | None, run: RunCompensate
) -> participant_pb2.CompensateResponse | OwnAnswer:
    """One database transaction around one run of the compensation; to be repeated as a whole (R18, R20)."""
    async with guard.store.unit(call.step) as unit:
        fresh = transitions.fresh_compensation(call, guard.clock())
        row = await guard.lock(unit, fresh, call)
        verdict = judge_compensate(row, call, now_us=guard.clock(), retention_us=guard.retention_us)
        if not isinstance(verdict, Undo):
            return await settle_without_handler(guard, unit, call, row, verdict)
        outcome = await run(unit, output_to_undo(verdict.source, row, claimed))
        if isinstance(outcome, HandlerUndid):
            begun = transitions.undoing(row or fresh, call, guard.clock())
            await unit.put_row(transitions.undone(begun, guard.clock(), handler_ran=True))
            await unit.commit()
            return answers.compensated(handler_ran=True)
        _raise_if_busy(unit, outcome)
    match outcome:
        case HandlerPostponed(after=after, status=status):
            return answers.retry_later(after, status)
        case HandlerFailed(status=status):
            return status


async def settle_without_handler(
    guard: Guard,
    unit: BarrierUnit,
    call: CompensateCall,
    row: BarrierRow | None,
    verdict: NothingToUndo | Undone | Locked | Expired | Mismatch,
) -> participant_pb2.CompensateResponse | OwnAnswer:
    """The answer to a compensation whose handler is not to run; seals the key if there is nothing to undo."""
    match verdict:
        case NothingToUndo():
            if row is not None:  # Otherwise the fresh row, sealed and done, is in its place already.
                await unit.put_row(transitions.undone(row, guard.clock(), handler_ran=False))
            await unit.commit()
            return answers.compensated(handler_ran=False)
        case Undone(handler_ran=handler_ran):
            return answers.compensated(handler_ran=handler_ran)
        case Locked():
            return guard.locked(call, verdict)
        case Expired():
            return answers.key_expired(call, guard.retention)
        case Mismatch():
            return answers.key_mismatch(call)


def output_to_undo(source: OutputSource, row: BarrierRow | None, claimed: PackedAny | None) -> PackedAny | None:
    """The output that the compensation is given."""
    match source:
        case OutputSource.STORED:
            if row is None or row.reply is None:
                raise ValueError("a stored output was chosen without a stored reply")
            return participant_pb2.ExecuteResponse.FromString(row.reply).succeeded.output
        case OutputSource.CLAIMED:
            return claimed
        case OutputSource.MISSING:
            return None


def _raise_if_busy(unit: BarrierUnit, outcome: ExecuteOutcome | HandlerUndid) -> None:
    """Lets the database's wish for repetition through: rolling back undoes all of it, so the handler may run again."""
    if isinstance(outcome, HandlerFailed) and outcome.error is not None and unit.is_busy(outcome.error):
        raise StoreBusyError(f"under a handler: {type(outcome.error).__qualname__}") from outcome.error  # Its text may not be printable.
