"""A barrier in memory, for tests only (R23): after a restart it would take a compensation for a null one."""

import asyncio
from collections.abc import Callable
from datetime import timedelta
from types import TracebackType
from typing import TYPE_CHECKING, NoReturn, Self

from participant_sdk.barrier.guarded import RETENTION_DEFAULT, GuardedBarrier
from participant_sdk.barrier.store import AnswerT, Flow, LockWaitError, StoreUnavailableError
from participant_sdk.barrier.verdict import BarrierRow, CompensateCall, ExecuteCall, StepIdentity
from participant_sdk.clock import Clock, wall_clock_us
from participant_sdk.errors import SessionUnavailableError
from participant_sdk.step_context import Step

if TYPE_CHECKING:
    from sqlalchemy.orm import Session


class MemoryDatabase:
    """What outlives a process in a test: the committed rows, and the locks on their keys."""

    def __init__(self) -> None:
        self.rows: dict[str, BarrierRow] = {}
        """The committed rows by key."""
        self._locks: dict[str, asyncio.Lock] = {}

    def lock_of(self, key: str) -> asyncio.Lock:
        """The lock of a key, held by one unit at a time."""
        return self._locks.setdefault(key, asyncio.Lock())


class MemoryUnit:
    """One database transaction in memory. Implements `BarrierUnit`."""

    def __init__(self, store: "MemoryStore") -> None:
        self._store = store
        self._key: str | None = None
        self._row: BarrierRow | None = None
        self._effects: list[Callable[[], None]] = []

    async def __aenter__(self) -> Self:
        self._store.units.append(self)
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.discard()

    @property
    def session(self) -> NoReturn:
        raise SessionUnavailableError("step.session needs a database: test with SqlBarrier on a SQLite file")

    async def run_sync(self, work: "Callable[[Session], AnswerT]") -> AnswerT:
        raise SessionUnavailableError("a session needs a database: test with SqlBarrier on a SQLite file")

    @property
    def has_session(self) -> bool:
        return bool(self._effects)

    def add_effect(self, effect: Callable[[], None]) -> None:
        """What a handler writes: happens at the commit, or not at all."""
        self._effects.append(effect)

    async def lock_row(self, fresh: BarrierRow, wait_s: float | None = None) -> BarrierRow | None:
        try:
            async with asyncio.timeout(wait_s):
                await self._store.reach()
                if self._key is None:
                    await self._store.database.lock_of(fresh.key).acquire()
                    self._key = fresh.key
        except TimeoutError as error:
            raise LockWaitError(fresh.key) from error
        self._store.refuse_if_crashed()
        self._row = self._store.database.rows.get(fresh.key)
        if self._row is not None:
            return self._row
        self._row = fresh
        return None

    async def put_row(self, row: BarrierRow) -> None:
        await self._store.reach()
        self._row = row

    async def delete_row(self, row: BarrierRow) -> None:
        await self._store.reach()
        self._row = None

    async def commit(self) -> None:
        await self._store.reach()
        if self._key is None:
            raise RuntimeError("lock_row comes first")
        if self._row is None:
            self._store.database.rows.pop(self._key, None)
        else:
            self._store.database.rows[self._key] = self._row
        for effect in self._effects:
            effect()
        self._effects.clear()

    def is_busy(self, error: BaseException) -> bool:
        return False

    def discard(self) -> None:
        """Rolls back what is not committed and lets the key go. Safe to call twice."""
        self._effects.clear()
        if self._key is not None:
            self._store.database.lock_of(self._key).release()
            self._key = None
        if self in self._store.units:
            self._store.units.remove(self)


def at_commit(step: Step, effect: Callable[[], None]) -> None:
    """Has something happen together with the commit of a handler's call, or not at all: what `step.session` is for, under a MemoryBarrier.

    A handler that changes a dictionary directly has done so also when its call is rolled back. Raises TypeError under another barrier.
    """
    if not isinstance(step.sessions, MemoryUnit):
        raise TypeError(f"at_commit needs a MemoryBarrier, found {type(step.sessions).__name__}; with a database use step.session")
    step.sessions.add_effect(effect)


class MemoryStore:
    """One process's way to a MemoryDatabase. Implements `BarrierStore`."""

    def __init__(self, database: MemoryDatabase) -> None:
        self.database = database
        self.units: list[MemoryUnit] = []
        self._is_crashed = False

    def unit(self, step: StepIdentity) -> MemoryUnit:
        return MemoryUnit(self)

    @property
    def is_blocking(self) -> bool:
        return False

    async def run(self, call: ExecuteCall | CompensateCall, flow: Flow[AnswerT], *, wait_s: float, now_us: int) -> AnswerT:
        return await flow(self)

    async def check(self) -> None:
        """There is nothing to prove."""

    async def delete_before(self, created_before_us: int, limit: int) -> int:
        old = [row.key for row in self.database.rows.values() if row.created_at_us < created_before_us][:limit]
        for key in old:
            del self.database.rows[key]
        return len(old)

    async def reach(self) -> None:
        """The way to the database: where others get their turn, and where a crashed process gets no further."""
        await asyncio.sleep(0)
        self.refuse_if_crashed()

    def refuse_if_crashed(self) -> None:
        if self._is_crashed:
            raise StoreUnavailableError("this process has crashed")

    def crash(self) -> None:
        """The process dies: what it had not committed is rolled back, and nothing that it still does reaches the database."""
        self._is_crashed = True
        for unit in list(self.units):
            unit.discard()


class MemoryBarrier(GuardedBarrier):
    """A barrier for tests without a database: the same decisions as `SqlBarrier`, forgotten with the process (R23).

    Never use it in a service. Several barriers on one MemoryDatabase stand for replicas, or for one that was restarted.
    """

    def __init__(
        self,
        database: MemoryDatabase | None = None,
        *,
        retention: timedelta = RETENTION_DEFAULT,
        clock: Clock = wall_clock_us,
    ) -> None:
        self.store: MemoryStore = MemoryStore(database if database is not None else MemoryDatabase())
        super().__init__(self.store, retention=retention, clock=clock)
