"""The way of a completion: lock the row of the accepted step, judge it, let the effect happen, store the result, commit (R24).

THE RESULT IS STORED IN THE SAME DATABASE TRANSACTION AS ITS EFFECT, UNDER THE LOCK THAT A COMPENSATION NEEDS TOO: an approval and an
undo come one after the other, and the second one sees the first.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Final, NoReturn, TypeVar

from participant_sdk.barrier import transitions
from participant_sdk.barrier.completions import OpenCompletion, StoredResult
from participant_sdk.barrier.guard import Guard
from participant_sdk.barrier.store import BarrierUnit, CommitInDoubtError, HandlerWriteError, StoreBusyError, StoreUnavailableError
from participant_sdk.barrier.verdict import (
    BarrierRow,
    Complete,
    CompletionCall,
    CompletionVerdict,
    ExecutionState,
    Mismatch,
    NotAccepted,
    Replay,
    Sealed,
    judge_completion,
)
from participant_sdk.errors import CompletionPostponedError, CompletionRefusedError
from participant_sdk.step_context import SessionSource
from saga.v1 import participant_pb2

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

ResultT = TypeVar("ResultT")

logger = logging.getLogger(__name__)

_POLL_FIRST_S: Final = 0.02
_POLL_MAX_S: Final = 0.5
"""Longest pause before an acceptance that is not there yet is looked for again: nothing tells when it comes."""
_SETTLE_TIME_LIMIT_S: Final = 5.0
"""How long finding out about a COMMIT in doubt may take."""


@asynccontextmanager
async def complete_in_database(guard: Guard, call: CompletionCall) -> AsyncIterator[OpenCompletion | StoredResult]:
    """See `Barrier.completing`."""
    async with AsyncExitStack() as stack:
        yield await _opened(guard, call, stack)


async def _opened(guard: Guard, call: CompletionCall, stack: AsyncExitStack) -> OpenCompletion | StoredResult:
    pause_s = _POLL_FIRST_S
    why = "another call holds its key"
    try:
        async with asyncio.timeout(call.wait_s):
            while True:
                try:
                    found = await _try_to_open(guard, call, stack)
                except StoreBusyError as error:
                    found, why = None, f"the database is busy: {error}"
                else:
                    why = "nobody has accepted it yet, as far as this database knows"
                if found is not None:
                    return found
                await asyncio.sleep(pause_s)
                pause_s = min(pause_s * 2, _POLL_MAX_S)
    except TimeoutError as error:
        _postpone(call, why, error)
    except StoreUnavailableError as error:
        _postpone(call, f"the participant's database cannot be used: {error}", error)


async def _try_to_open(guard: Guard, call: CompletionCall, stack: AsyncExitStack) -> OpenCompletion | StoredResult | None:
    """None if there is no acceptance yet. What is opened is left with `stack`; otherwise nothing stays open."""
    async with AsyncExitStack() as trial:
        unit = await trial.enter_async_context(guard.store.unit(call.step))
        # Nobody's row: it only takes the lock of a key that is not there, and goes with the unit.
        row = await unit.lock_row(_placeholder(call, guard.clock()))
        match judge_completion(row, call):
            case Complete() if row is not None:
                await stack.enter_async_context(trial.pop_all())
                return _Open(guard, call, unit, row, stack)
            case Replay(reply=reply) if row is not None:
                return StoredResult(action=row.action, response=participant_pb2.ExecuteResponse.FromString(reply))
            case NotAccepted():
                return None
            case verdict:
                raise _refusal(call, verdict)


class _Open:
    """Implements `OpenCompletion`."""

    def __init__(self, guard: Guard, call: CompletionCall, unit: BarrierUnit, row: BarrierRow, stack: AsyncExitStack) -> None:
        self._guard = guard
        self._call = call
        self._unit = unit
        self._row = row
        self._stack = stack
        """What closes the unit."""

    @property
    def action(self) -> str:
        return self._row.action

    @property
    def sessions(self) -> SessionSource:
        return self._unit

    async def run_sync(self, work: "Callable[[Session], ResultT]") -> ResultT:
        return await self._unit.run_sync(work)

    async def conclude(self, response: participant_pb2.ExecuteResponse) -> None:
        concluded = transitions.answered(self._row, response, self._call.token, self._guard.clock())
        try:
            await self._unit.put_row(concluded)
            await self._unit.commit()
        except CommitInDoubtError as error:
            await self._settle(concluded, error)
        except (StoreBusyError, StoreUnavailableError) as error:
            _postpone(self._call, f"nothing was stored: {error}", error)
        except HandlerWriteError as error:
            # What the caller wrote is refused by the database: that error is the caller's own.
            raise error.__cause__ or error from None

    async def _settle(self, concluded: BarrierRow, in_doubt: CommitInDoubtError) -> None:
        """Reads whether the COMMIT took place (R26). Raises CompletionPostponedError if it did not, or nobody can tell."""
        logger.warning("COMMIT of the completion of %s is in doubt, reading its row again: %s", self._call.key, in_doubt)
        await self._stack.aclose()  # Its unit may hold what the one that reads must wait for.
        try:
            async with asyncio.timeout(_SETTLE_TIME_LIMIT_S), self._guard.store.unit(self._call.step) as unit:
                row = await unit.lock_row(_placeholder(self._call, self._guard.clock()))
        except (StoreBusyError, StoreUnavailableError, TimeoutError) as error:
            _postpone(self._call, "whether its result was stored cannot be read now", error)
        # A compensation may have come in between: it keeps what it undoes.
        if row is None or (row.execution, row.reply) != (concluded.execution, concluded.reply):
            _postpone(self._call, "the COMMIT failed and nothing was stored", in_doubt)


def _placeholder(call: CompletionCall, now_us: int) -> BarrierRow:
    return BarrierRow(
        key=call.key,
        saga_id=call.step.saga_id,
        step_id=call.step.step_id,
        action="",
        fingerprint=b"",
        execution=ExecutionState.STARTED,
        created_at_us=now_us,
        updated_at_us=now_us,
    )


def _refusal(call: CompletionCall, verdict: CompletionVerdict) -> CompletionRefusedError:
    match verdict:
        case Sealed():
            why = "its compensation came first"
        case Mismatch():
            why = "the token is not the one that the accepted call came with"
        case other:
            raise AssertionError(f"not a refusal: {other}")
    return CompletionRefusedError(f"{_named(call)} cannot be completed: {why}", saga_id=call.step.saga_id, step_id=call.step.step_id)


def _postpone(call: CompletionCall, why: str, error: BaseException) -> NoReturn:
    raise CompletionPostponedError(
        f"{_named(call)} cannot be completed now: {why}; call completing() again with the same token",
        saga_id=call.step.saga_id,
        step_id=call.step.step_id,
    ) from error


def _named(call: CompletionCall) -> str:
    return f"step {call.step.step_id} of saga {call.step.saga_id}"
