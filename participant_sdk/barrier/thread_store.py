"""The SQL barrier on an engine that blocks: whole flows run in threads of its own, one hop for each.

A thread cannot be interrupted: a flow that has begun runs to its end, and whoever asked for it waits for that end, also when cancelled.
"""

import asyncio
import contextvars
from collections.abc import Callable, Coroutine, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager, nullcontext
from types import TracebackType
from typing import Any, Final, NoReturn, Self, TypeVar

from sqlalchemy.orm import Session

from participant_sdk.barrier.access import run_through
from participant_sdk.barrier.sql_store import AnyEngine, Database, EngineChoice, SqlStore
from participant_sdk.barrier.store import AnswerT, BarrierUnit, Flow, LockWaitError
from participant_sdk.barrier.verdict import BarrierRow, CompensateCall, ExecuteCall, StepIdentity
from participant_sdk.errors import SessionUnavailableError
from participant_sdk.shielding import outlast

THREADS_MAX: Final = 8
"""Flows that run at the same time on one database. SQLite has one writer, so one thread."""

ResultT = TypeVar("ResultT")


class ThreadStore(SqlStore):
    """Implements `BarrierStore`."""

    @property
    def is_blocking(self) -> bool:
        return True

    def __init__(self, choose: EngineChoice, databases: Mapping[AnyEngine, Database]) -> None:
        """`databases`: reached by blocking, and taking no turns by themselves."""
        super().__init__(choose, databases)
        self._inner = SqlStore(choose, databases)
        """What flows see in their thread."""
        self._desks = {engine: _Desk(engine) for engine in databases}

    def unit(self, step: StepIdentity) -> AbstractAsyncContextManager[BarrierUnit]:
        return _SteppingUnit(self._inner.unit(step), self._desks[self.engine_for(step)])

    async def run(self, call: ExecuteCall | CompensateCall, flow: Flow[AnswerT], *, wait_s: float, now_us: int) -> AnswerT:
        return await self._desks[self.engine_for(call.step)].carry(lambda: flow(self._inner), wait_s)

    async def run_on(self, engine: AnyEngine, work: Callable[[Database], Coroutine[Any, Any, AnswerT]]) -> AnswerT:
        return await self._desks[engine].carry(lambda: work(self.databases[engine]))


class _SteppingUnit:
    """Implements `BarrierUnit` for flows of the event loop, as those of EXTERNAL effects are: one hop for each of its steps."""

    def __init__(self, context: AbstractAsyncContextManager[BarrierUnit], desk: "_Desk") -> None:
        self._context = context
        self._desk = desk
        self._unit: BarrierUnit | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._unit is not None:
            try:
                await self._desk.hop(self._context.__aexit__(None, None, None))
            finally:
                self._desk.end_turn()

    @property
    def session(self) -> NoReturn:
        raise SessionUnavailableError(
            "the barrier's engine blocks, so its session is only there in plain `def` handlers with an effect in the database, and in "
            "completion.run_sync(…); open a session of your own here"
        )

    @property
    def has_session(self) -> bool:
        return False

    async def run_sync(self, work: Callable[[Session], ResultT]) -> ResultT:
        if self._unit is None:
            _ = self.session
        return await self._desk.hop(self._begun.run_sync(work))

    async def lock_row(self, fresh: BarrierRow, wait_s: float | None = None) -> BarrierRow | None:
        if self._unit is None:
            await self._desk.begin_turn(wait_s)
            try:
                self._unit = await self._desk.hop(self._context.__aenter__())
            except BaseException:
                self._desk.end_turn()
                raise
        return await self._desk.hop(self._unit.lock_row(fresh, wait_s))

    async def put_row(self, row: BarrierRow) -> None:
        await self._desk.hop(self._begun.put_row(row))

    async def delete_row(self, row: BarrierRow) -> None:
        await self._desk.hop(self._begun.delete_row(row))

    async def commit(self) -> None:
        await self._desk.hop(self._begun.commit())

    def is_busy(self, error: BaseException) -> bool:
        return self._unit is not None and self._unit.is_busy(error)

    @property
    def _begun(self) -> BarrierUnit:
        if self._unit is None:
            raise RuntimeError("lock_row comes first")
        return self._unit


class _Desk:
    """Where what is to be done in one database waits and runs. Its threads are made when first needed, and end with the barrier."""

    def __init__(self, engine: AnyEngine) -> None:
        has_one_writer = engine.dialect.name == "sqlite"
        self._turn = asyncio.Lock() if has_one_writer else None
        self._pool = ThreadPoolExecutor(1 if has_one_writer else THREADS_MAX, thread_name_prefix="barrier")

    async def carry(self, work: Callable[[], Coroutine[Any, Any, ResultT]], wait_s: float | None = None) -> ResultT:
        """Runs a coroutine that opens units and never waits for the event loop, in one hop to a thread.

        `wait_s`: how long it may wait for its turn. Raises LockWaitError.
        """
        await self.begin_turn(wait_s)
        try:
            return await self.hop(work())
        finally:
            self.end_turn()

    async def hop(self, work: Coroutine[Any, Any, ResultT]) -> ResultT:
        """The same, for a part of what has its turn already."""
        context = contextvars.copy_context()
        return await outlast(asyncio.get_running_loop().run_in_executor(self._pool, context.run, run_through, work))

    async def begin_turn(self, wait_s: float | None) -> None:
        """Waits until nobody else writes, if there is one writer. Raises LockWaitError."""
        if self._turn is None:
            return
        try:
            async with asyncio.timeout(wait_s) if self._turn.locked() else nullcontext():
                await self._turn.acquire()
        except TimeoutError as error:
            raise LockWaitError(f"the database was not free within {wait_s} s") from error

    def end_turn(self) -> None:
        if self._turn is not None:
            self._turn.release()
