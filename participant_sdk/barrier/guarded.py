"""The barrier on any store: one flight per key, then the way that the action's effect asks for."""

from collections.abc import Coroutine
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from datetime import timedelta
from typing import Any, Final

from google.protobuf.any_pb2 import Any as PackedAny

from participant_sdk.barrier import answers
from participant_sdk.barrier.barrier import RunCompensate, RunExecute
from participant_sdk.barrier.completion_flow import complete_in_database
from participant_sdk.barrier.completions import OpenCompletion, StoredResult
from participant_sdk.barrier.database_flow import compensate_in_database, execute_in_database
from participant_sdk.barrier.external_flow import ExternalCompensation, ExternalExecution
from participant_sdk.barrier.flights import Flights
from participant_sdk.barrier.guard import BUSY_DELAY, Guard, OwnAnswer
from participant_sdk.barrier.outcomes import CompensateAnswer, ExecuteAnswer
from participant_sdk.barrier.store import BarrierStore
from participant_sdk.barrier.verdict import CompensateCall, CompletionCall, ExecuteCall
from participant_sdk.clock import Clock, micros_of, wall_clock_us
from participant_sdk.effects import Effect
from saga.v1 import participant_pb2

RETENTION_DEFAULT: Final = timedelta(days=30)
"""How long keys are remembered unless said otherwise (R21)."""
RETENTION_MARGIN: Final = timedelta(days=1)
"""How much longer rows are kept: the coordinator's clock, which tells the age of a key, may be ahead of this machine's."""


class GuardedBarrier:
    """Lets each key take effect at most once, by rows in a store (R18-R22). Implements `Barrier`."""

    def __init__(self, store: BarrierStore, *, retention: timedelta = RETENTION_DEFAULT, clock: Clock = wall_clock_us) -> None:
        if retention <= timedelta():
            raise ValueError(f"retention must be longer than nothing, found {retention}")
        self._guard = Guard(store=store, retention=retention, clock=clock)
        self._executions: Flights[ExecuteAnswer] = Flights()
        self._compensations: Flights[CompensateAnswer] = Flights()

    def follow(self, clock: Clock) -> None:
        """Tells time by another clock from now on, as in a test whose time is its own."""
        self._guard = replace(self._guard, clock=clock)

    @property
    def is_effect_once(self) -> bool:
        return True

    @property
    def is_blocking(self) -> bool:
        return self._guard.store.is_blocking

    @property
    def retention(self) -> timedelta | None:
        return self._guard.retention

    async def execute(self, call: ExecuteCall, run: RunExecute) -> ExecuteAnswer:
        async def start() -> ExecuteAnswer:
            return _execute_answer(await self._execute(call, run))

        answer = await self._executions.join(call.key, (call.action, call.fingerprint), wait_s=self._guard.wait_s(call), start=start)
        return answer if answer is not None else _execute_answer(answers.locked(call, BUSY_DELAY))

    async def compensate(self, call: CompensateCall, claimed: PackedAny | None, run: RunCompensate) -> CompensateAnswer:
        async def start() -> CompensateAnswer:
            return _compensate_answer(await self._compensate(call, claimed, run))

        request = (call.action, call.fingerprint, call.knowledge, None if claimed is None else claimed.value)
        answer = await self._compensations.join(call.key, request, wait_s=self._guard.wait_s(call), start=start)
        return answer if answer is not None else _compensate_answer(answers.locked(call, BUSY_DELAY))

    def completing(self, call: CompletionCall) -> AbstractAsyncContextManager[OpenCompletion | StoredResult]:
        return complete_in_database(self._guard, call)

    async def check(self) -> None:
        await self._guard.store.check()

    async def delete_expired(self, limit: int) -> int:
        kept_for_us = micros_of(self._guard.retention + RETENTION_MARGIN)
        return await self._guard.store.delete_before(self._guard.clock() - kept_for_us, limit)

    async def _execute(self, call: ExecuteCall, run: RunExecute) -> participant_pb2.ExecuteResponse | OwnAnswer:
        if call.effect is Effect.EXTERNAL:
            return await ExternalExecution(self._guard, call, run).answer()
        guard = self._guard

        def flow(store: BarrierStore) -> Coroutine[Any, Any, participant_pb2.ExecuteResponse | OwnAnswer]:
            return execute_in_database(guard.on(store), call, run)

        return await guard.repeated(call, lambda: guard.store.run(call, flow, wait_s=guard.wait_s(call), now_us=guard.clock()))

    async def _compensate(
        self, call: CompensateCall, claimed: PackedAny | None, run: RunCompensate
    ) -> participant_pb2.CompensateResponse | OwnAnswer:
        if call.effect is Effect.EXTERNAL:
            return await ExternalCompensation(self._guard, call, claimed, run).answer()
        guard = self._guard

        def flow(store: BarrierStore) -> Coroutine[Any, Any, participant_pb2.CompensateResponse | OwnAnswer]:
            return compensate_in_database(guard.on(store), call, claimed, run)

        return await guard.repeated(call, lambda: guard.store.run(call, flow, wait_s=guard.wait_s(call), now_us=guard.clock()))


def _execute_answer(
    answer: participant_pb2.ExecuteResponse | OwnAnswer,
) -> ExecuteAnswer:
    if isinstance(answer, participant_pb2.RetryLater):
        return participant_pb2.ExecuteResponse(retry_later=answer)
    return answer


def _compensate_answer(
    answer: participant_pb2.CompensateResponse | OwnAnswer,
) -> CompensateAnswer:
    if isinstance(answer, participant_pb2.RetryLater):
        return participant_pb2.CompensateResponse(retry_later=answer)
    return answer
