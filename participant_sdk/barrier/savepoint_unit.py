"""One call's part of a database transaction that several calls share."""

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import Final, Self, TypeVar

from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session

from participant_sdk.barrier.access import Access, joined_of
from participant_sdk.barrier.sessions import JoinedSession
from participant_sdk.barrier.sql_errors import is_busy
from participant_sdk.barrier.sql_unit import SqlUnit, conclude_session
from participant_sdk.barrier.store import AnswerT, BarrierUnit, Flow, StoreBusyError, StoreUnavailableError
from participant_sdk.barrier.verdict import BarrierRow, CompensateCall, ExecuteCall, StepIdentity
from participant_sdk.errors import SessionMisusedError

ResultT = TypeVar("ResultT")


class SharedKey:
    """The row of one key, as the database transaction sees it. Implements `BarrierStore` for the flow of the call that it is for."""

    @property
    def is_blocking(self) -> bool:
        return False

    def __init__(self, access: Access, whole: SqlUnit, row: BarrierRow | None, number: int) -> None:
        """`number`: of the call in its database transaction."""
        self._number = number
        self._units = 0
        self.access: Final = access
        self.whole: Final = whole
        self.row = row
        """What is to be stored of it; None: nothing."""
        self.is_changed = False

    def next_savepoint(self) -> str:
        """A name that no other call of the database transaction has."""
        self._units += 1
        return f"saga_{self._number}_{self._units}"

    def unit(self, step: StepIdentity) -> AbstractAsyncContextManager[BarrierUnit]:
        return SavepointUnit(self)

    async def run(self, call: ExecuteCall | CompensateCall, flow: Flow[AnswerT], *, wait_s: float, now_us: int) -> AnswerT:
        return await flow(self)

    async def check(self) -> None:
        """The store that it is of is proven."""

    async def delete_before(self, created_before_us: int, limit: int) -> int:
        return 0


class SavepointUnit:
    """Implements `BarrierUnit`: committed with all the others, or rolled back alone.

    The savepoint is made when the session is first used. All end with the COMMIT; the next one lies within it, where releasing it is
    not needed.
    """

    def __init__(self, shared: SharedKey) -> None:
        self._shared = shared
        self._savepoint = shared.next_savepoint()
        self._row: BarrierRow | None = None
        self._session: AsyncSession | Session | None = None
        self._is_kept = False

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._session is None:
            return
        shared, joined = self._shared, joined_of(self._session)
        await shared.access.with_session(self._session, JoinedSession.end)
        if shared.whole.is_broken or self._is_kept or not joined.has_begun:
            return
        # WHAT CANNOT BE UNDONE ALONE IS UNDONE WITH ALL THE OTHERS.
        if not joined.has_savepoint:
            raise StoreBusyError("the savepoint of a call could not be made")
        try:
            await shared.whole.roll_back_to(self._savepoint)
        except (StoreUnavailableError, SessionMisusedError) as failure:
            raise StoreBusyError("a call could not be rolled back alone") from failure

    @property
    def session(self) -> AsyncSession | Session:
        if self._session is None:
            self._session = self._shared.access.session_on(self._shared.whole.link, self._savepoint)
        return self._session

    @property
    def has_session(self) -> bool:
        return self._session is not None

    async def run_sync(self, work: Callable[[Session], ResultT]) -> ResultT:
        return await self._shared.access.with_session(self.session, work)

    async def lock_row(self, fresh: BarrierRow, wait_s: float | None = None) -> BarrierRow | None:
        self._row = self._shared.row or fresh
        return self._shared.row

    async def put_row(self, row: BarrierRow) -> None:
        self._row = row

    async def delete_row(self, row: BarrierRow) -> None:
        self._row = None

    async def commit(self) -> None:
        if self._session is not None:
            await conclude_session(self._shared.access, self._session)
            if joined_of(self._session).has_savepoint:
                await self._shared.whole.prove_intact(self._savepoint)
        self._is_kept = True
        self._shared.row, self._shared.is_changed = self._row, True

    def is_busy(self, error: BaseException) -> bool:
        return is_busy(error)
