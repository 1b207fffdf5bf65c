"""The way of an action whose effect is outside of the database: two database transactions around the handler (R19).

THE STARTED ROW, LOCKED UNTIL THE ATTEMPT'S DEADLINE, IS COMMITTED BEFORE THE HANDLER RUNS; THE REPLY IS COMMITTED AFTER IT.
In between a crash leaves the row behind: nobody knows, and the next attempt runs the handler again with the same key.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from google.protobuf.any_pb2 import Any as PackedAny
from google.rpc import status_pb2

from participant_sdk.barrier import answers, transitions
from participant_sdk.barrier.barrier import RunCompensate, RunExecute
from participant_sdk.barrier.database_flow import output_to_undo, settle_without_handler
from participant_sdk.barrier.guard import Guard, OwnAnswer
from participant_sdk.barrier.outcomes import (
    HandlerAccepted,
    HandlerFailed,
    HandlerPostponed,
    HandlerRejected,
    HandlerSucceeded,
    HandlerUndid,
)
from participant_sdk.barrier.store import (
    BarrierUnit,
    CommitInDoubtError,
    HandlerWriteError,
    LockWaitError,
    StoreBusyError,
    StoreUnavailableError,
)
from participant_sdk.barrier.verdict import (
    BarrierRow,
    CompensateCall,
    ExecuteCall,
    Replay,
    Run,
    Undo,
    Undone,
    is_still_mine,
    judge_compensate,
    judge_execute,
)
from participant_sdk.errors import ParticipantSetupError, SessionMisusedError
from participant_sdk.shielding import finish
from saga.v1 import participant_pb2

logger = logging.getLogger(__name__)

AFTERWARDS_TIME_LIMIT_S: Final = 5.0
"""How long storing what a handler did may take when nobody waits for the answer any more."""

AnswerT = TypeVar("AnswerT")

_StoreErrors = (
    StoreBusyError,
    StoreUnavailableError,
    CommitInDoubtError,
    HandlerWriteError,
    LockWaitError,
    ParticipantSetupError,
    SessionMisusedError,
    TimeoutError,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Claim:
    """The right to run the handler: the committed row says that it may be running."""

    row: BarrierRow
    is_first: bool
    """Whether no earlier attempt can have had an effect."""
    output: PackedAny | None = None
    """What a compensation is to undo."""


class _ExternalRun:
    """What both directions share: the claim, and giving it back."""

    def __init__(self, guard: Guard, call: ExecuteCall | CompensateCall) -> None:
        self._guard = guard
        self._call = call
        self._attempted: _Claim | None = None
        """The claim whose COMMIT may have been in doubt."""

    async def _own_row(self, unit: BarrierUnit, claim: _Claim) -> BarrierRow | None:
        """Locks the row again; None if the claim still holds, otherwise what was decided without it."""
        row = await unit.lock_row(claim.row)
        return None if row is None or is_still_mine(row, claim.row) else row

    async def _let_go(self, claim: _Claim, *, forget: bool) -> None:
        """The handler has ended: the next attempt need not wait until the deadline.

        `forget`: this attempt was the first and had no effect, so the key is as if it had never been seen. If all this fails,
        the lock ends by itself and the row stands for an unknown outcome, which is safe.
        """
        try:
            async with asyncio.timeout(AFTERWARDS_TIME_LIMIT_S), self._guard.store.unit(self._call.step) as unit:
                if await self._own_row(unit, claim) is not None:
                    return
                if forget:
                    await unit.delete_row(claim.row)
                else:
                    await unit.put_row(transitions.unlocked(claim.row, self._guard.clock()))
                await unit.commit()
        except _StoreErrors as error:
            logger.warning("key %s stays locked until the deadline of its attempt: %s", self._call.key, error)

    async def _store_with(self, unit: BarrierUnit, conclude: Callable[[BarrierUnit], Awaitable[AnswerT]]) -> AnswerT | OwnAnswer:
        """Commits the reply together with what the handler wrote through its session, which only this unit holds."""
        try:
            async with asyncio.timeout(AFTERWARDS_TIME_LIMIT_S):
                return await conclude(unit)
        except _StoreErrors as error:
            logger.warning("storing the reply of key %s failed: %s", self._call.key, error)
            return answers.outcome_unknown(f"{self._call.action} ran, but its reply could not be stored: {error}")

    async def _store_alone(self, conclude: Callable[[BarrierUnit], Awaitable[AnswerT]]) -> AnswerT | OwnAnswer:
        """Commits the reply in units of its own."""

        async def attempt() -> AnswerT:
            async with self._guard.store.unit(self._call.step) as unit:
                return await conclude(unit)

        try:
            async with asyncio.timeout(AFTERWARDS_TIME_LIMIT_S):
                answer = await self._guard.repeated(self._call, attempt)
        except TimeoutError:
            return answers.outcome_unknown(f"{self._call.action} ran, but its reply could not be stored in time")
        if isinstance(answer, participant_pb2.RetryLater):  # Not "nothing happened": the handler did run.
            return answers.outcome_unknown(f"{self._call.action} ran, but its reply could not be stored")
        return answer

    async def _settle(
        self, claim: _Claim, stored: AnswerT | OwnAnswer | None, conclude: Callable[[BarrierUnit], Awaitable[AnswerT]]
    ) -> AnswerT | OwnAnswer:
        """Sees to it that what the handler did is stored, unless its own unit did so, and gives the claim back if it cannot be."""
        answer = await self._store_alone(conclude) if stored is None else stored
        if isinstance(answer, status_pb2.Status):
            await self._let_go(claim, forget=False)
        return answer

    async def _claimed(self, claim: Callable[[], Awaitable[AnswerT]]) -> AnswerT | OwnAnswer:
        """Takes the claim; if that is cut short, gives it back, since no handler ran."""
        try:
            return await self._guard.repeated(self._call, claim)
        except BaseException:
            if self._attempted is not None:
                await finish(self._let_go(self._attempted, forget=self._attempted.is_first))
            raise

    async def _guarded(self, claim: _Claim, work: Coroutine[Any, Any, AnswerT]) -> AnswerT:
        """Runs the handler; whatever cuts it short, the claim is given back."""
        try:
            return await work
        except BaseException:  # Cancelled, mostly: its effect is not known.
            await finish(self._let_go(claim, forget=False))
            raise


class ExternalExecution(_ExternalRun):
    """One call to execute an action with an EXTERNAL effect."""

    def __init__(self, guard: Guard, call: ExecuteCall, run: RunExecute) -> None:
        super().__init__(guard, call)
        self._execute = call
        self._run = run

    async def answer(self) -> participant_pb2.ExecuteResponse | OwnAnswer:
        claim = await self._claimed(self._claim)
        if not isinstance(claim, _Claim):
            return claim
        return await self._guarded(claim, self._run_claimed(claim))

    async def _claim(self) -> _Claim | participant_pb2.ExecuteResponse | OwnAnswer:
        guard, call = self._guard, self._execute
        async with guard.store.unit(call.step) as unit:
            fresh = transitions.fresh_execution(call, guard.clock())
            row = await guard.lock(unit, fresh, call)
            if row is not None and self._attempted is not None and is_still_mine(row, self._attempted.row):
                return self._attempted  # Its COMMIT was in doubt, and did take place.
            verdict = judge_execute(row, call, now_us=guard.clock(), retention_us=guard.retention_us)
            if not isinstance(verdict, Run):
                return guard.refuse_execute(call, verdict)
            claimed = fresh if row is None else transitions.taken_over(row, call, guard.clock())
            self._attempted = _Claim(row=claimed, is_first=verdict.is_first)
            if row is not None:
                await unit.put_row(claimed)
            await unit.commit()
            return self._attempted

    async def _run_claimed(self, claim: _Claim) -> participant_pb2.ExecuteResponse | OwnAnswer:
        stored = None
        async with self._guard.store.unit(self._call.step) as unit:
            outcome = await self._run(unit)
            if isinstance(outcome, (HandlerSucceeded, HandlerAccepted)) and unit.has_session:
                stored = await finish(self._store_with(unit, self._conclusion(claim, outcome.response)))
        match outcome:
            case HandlerSucceeded(response=response) | HandlerAccepted(response=response):
                return await finish(self._settle(claim, stored, self._conclusion(claim, response)))
            case HandlerRejected(status=status):
                return await finish(self._reject(claim, status))
            case HandlerPostponed(after=after, status=status):
                await finish(self._let_go(claim, forget=claim.is_first))
                return answers.retry_later(after, status)
            case HandlerFailed(status=status):
                await finish(self._let_go(claim, forget=False))
                return status

    async def _reject(self, claim: _Claim, status: status_pb2.Status) -> participant_pb2.ExecuteResponse | OwnAnswer:
        """R5: a rejection is sealed only if no earlier attempt can have had an effect; else it says nothing about that one."""
        if claim.is_first:
            # If it cannot be stored, nobody may take it for clean: the answer is that the outcome is unknown.
            return await self._settle(claim, None, self._conclusion(claim, answers.rejection(status, sealed=True)))
        await self._let_go(claim, forget=False)
        return answers.rejection(status, sealed=False)

    def _conclusion(
        self, claim: _Claim, response: participant_pb2.ExecuteResponse
    ) -> Callable[[BarrierUnit], Awaitable[participant_pb2.ExecuteResponse | OwnAnswer]]:
        async def conclude(unit: BarrierUnit) -> participant_pb2.ExecuteResponse | OwnAnswer:
            now_us = self._guard.clock()
            foreign = await self._own_row(unit, claim)
            if foreign is not None:
                return self._overtaken(foreign)
            await unit.put_row(transitions.answered(claim.row, response, self._execute.completion_token, now_us))
            await unit.commit()
            return response

        return conclude

    def _overtaken(self, row: BarrierRow) -> participant_pb2.ExecuteResponse | OwnAnswer:
        """The handler ran beyond its deadline and others decided, or the COMMIT in doubt did take place."""
        guard = self._guard
        verdict = judge_execute(row, self._execute, now_us=guard.clock(), retention_us=guard.retention_us)
        if isinstance(verdict, Replay):
            return guard.refuse_execute(self._execute, verdict)
        return answers.outcome_unknown(
            f"{self._call.action} with key {self._call.key} ended after its deadline, when its key had been taken over"
        )


class ExternalCompensation(_ExternalRun):
    """One call to compensate an action with an EXTERNAL effect."""

    def __init__(self, guard: Guard, call: CompensateCall, claimed: PackedAny | None, run: RunCompensate) -> None:
        super().__init__(guard, call)
        self._compensate = call
        self._claimed_output = claimed
        self._run = run

    async def answer(self) -> participant_pb2.CompensateResponse | OwnAnswer:
        claim = await self._claimed(self._claim)
        if not isinstance(claim, _Claim):
            return claim
        return await self._guarded(claim, self._run_claimed(claim))

    async def _claim(self) -> _Claim | participant_pb2.CompensateResponse | OwnAnswer:
        guard, call = self._guard, self._compensate
        async with guard.store.unit(call.step) as unit:
            fresh = transitions.fresh_compensation(call, guard.clock())
            row = await guard.lock(unit, fresh, call)
            if row is not None and self._attempted is not None and is_still_mine(row, self._attempted.row):
                return self._attempted  # Its COMMIT was in doubt, and did take place.
            verdict = judge_compensate(row, call, now_us=guard.clock(), retention_us=guard.retention_us)
            if not isinstance(verdict, Undo):
                return await settle_without_handler(guard, unit, call, row, verdict)
            claimed = fresh if row is None else transitions.undoing(row, call, guard.clock())
            output = output_to_undo(verdict.source, row, self._claimed_output)
            self._attempted = _Claim(row=claimed, is_first=row is None, output=output)
            if row is not None:
                await unit.put_row(claimed)
            await unit.commit()
            return self._attempted

    async def _run_claimed(self, claim: _Claim) -> participant_pb2.CompensateResponse | OwnAnswer:
        stored = None
        async with self._guard.store.unit(self._call.step) as unit:
            outcome = await self._run(unit, claim.output)
            if isinstance(outcome, HandlerUndid) and unit.has_session:
                stored = await finish(self._store_with(unit, self._conclusion(claim)))
        if isinstance(outcome, HandlerUndid):
            return await finish(self._settle(claim, stored, self._conclusion(claim)))
        # The key stays sealed, and the next attempt runs the handler again.
        await finish(self._let_go(claim, forget=False))
        match outcome:
            case HandlerPostponed(after=after, status=status):
                return answers.retry_later(after, status)
            case HandlerFailed(status=status):
                return status

    def _conclusion(self, claim: _Claim) -> Callable[[BarrierUnit], Awaitable[participant_pb2.CompensateResponse | OwnAnswer]]:
        async def conclude(unit: BarrierUnit) -> participant_pb2.CompensateResponse | OwnAnswer:
            now_us = self._guard.clock()
            foreign = await self._own_row(unit, claim)
            if foreign is not None:
                return self._overtaken(foreign)
            await unit.put_row(transitions.undone(claim.row, now_us, handler_ran=True))
            await unit.commit()
            return answers.compensated(handler_ran=True)

        return conclude

    def _overtaken(self, row: BarrierRow) -> participant_pb2.CompensateResponse | OwnAnswer:
        guard = self._guard
        verdict = judge_compensate(row, self._compensate, now_us=guard.clock(), retention_us=guard.retention_us)
        if isinstance(verdict, Undone):
            return answers.compensated(handler_ran=verdict.handler_ran)
        return answers.outcome_unknown(
            f"compensating {self._call.action} with key {self._call.key} ended after its deadline, when another attempt had begun"
        )
