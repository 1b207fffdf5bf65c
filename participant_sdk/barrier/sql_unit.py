"""One database transaction of the SQL barrier."""

import asyncio
import logging
from types import TracebackType
from typing import Final, Self

from sqlalchemy import RootTransaction
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, AsyncSession

from participant_sdk.barrier.sessions import end_session, guard_connection, joined_session, misuse_of, release_connection
from participant_sdk.barrier.sql_errors import is_busy, translated
from participant_sdk.barrier.statements import Statements, insert_parameters, row_of, update_parameters
from participant_sdk.barrier.store import CommitInDoubtError, HandlerWriteError, StoreBusyError
from participant_sdk.barrier.verdict import BarrierRow
from participant_sdk.errors import SessionMisusedError
from participant_sdk.shielding import finish

logger = logging.getLogger(__name__)

_COMMIT_TIME_LIMIT_S: Final = 10.0
"""After this a COMMIT without an answer is in doubt."""
_CLOSE_TIME_LIMIT_S: Final = 5.0
"""After this a connection that does not roll back is dropped."""
_LOCK_TRIES: Final = 3
"""How often the key is tried again when its row vanishes between INSERT and SELECT, as retention may cause."""


class SqlUnit:
    """Implements `BarrierUnit`. Takes a connection from the pool when first used, and gives it back at its end."""

    def __init__(self, engine: AsyncEngine, statements: Statements, turn: asyncio.Lock | None) -> None:
        """`turn`: the lock by which the units of one SQLite file take turns in this process; None if rows are locked singly."""
        self._engine = engine
        self._statements = statements
        self._turn = turn
        self._has_turn = False
        self._connection: AsyncConnection | None = None
        self._root: RootTransaction | None = None
        self._session: AsyncSession | None = None
        self._is_committed = False

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._connection is not None or self._session is not None or self._has_turn:
            await finish(self._close())

    @property
    def session(self) -> AsyncSession:
        if self._session is None:
            self._session = joined_session(self._engine if self._connection is None else self._connection)
        return self._session

    @property
    def has_session(self) -> bool:
        return self._session is not None

    async def lock_row(self, fresh: BarrierRow) -> BarrierRow | None:
        with translated(self._statements.table.name):
            connection = await self._begun()
            for _ in range(_LOCK_TRIES):
                inserted = await connection.execute(self._statements.insert, insert_parameters(fresh))
                self._root = _root_of(connection)
                if inserted.rowcount == 1:
                    return None
                found = await connection.execute(self._statements.select_for_update, {"key": fresh.key})
                row = found.one_or_none()
                if row is not None:
                    return row_of(row)
        raise StoreBusyError(f"the row of key {fresh.key} comes and goes")

    async def put_row(self, row: BarrierRow) -> None:
        connection = await self._intact()
        with translated(self._statements.table.name):
            await connection.execute(self._statements.update, update_parameters(row))

    async def delete_row(self, row: BarrierRow) -> None:
        connection = await self._intact()
        with translated(self._statements.table.name):
            await connection.execute(self._statements.delete, {"row_key": row.key})

    async def delete_oldest(self, created_before_us: int, limit: int) -> int:
        """Forgets at most `limit` rows created before that instant, and commits; returns how many."""
        parameters = {"created_before_us": created_before_us, "row_limit": limit}
        with translated(self._statements.table.name):
            connection = await self._begun()
            deleted = await connection.execute(self._statements.delete_oldest, parameters)
            self._root = _root_of(connection)
        await self.commit()
        return deleted.rowcount

    async def commit(self) -> None:
        connection = await self._intact()
        release_connection(connection)
        # Cut in two by a cancellation, a COMMIT would be in doubt without need.
        await finish(self._commit(connection))

    def is_busy(self, error: BaseException) -> bool:
        return is_busy(error)

    async def _commit(self, connection: AsyncConnection) -> None:
        try:
            async with asyncio.timeout(_COMMIT_TIME_LIMIT_S):
                await connection.commit()
        except (SQLAlchemyError, OSError, TimeoutError) as error:
            # The connection is of no use any more: whether the database transaction took place is read on another one (R26).
            await connection.invalidate()
            raise CommitInDoubtError(str(error).partition("\n")[0]) from error
        self._is_committed = True

    async def _begun(self) -> AsyncConnection:
        """The connection with its database transaction, which is the session's if the handler was there first."""
        if self._connection is None:
            if self._session is not None and self._session.in_transaction():
                self._connection = await self._session.connection()
            else:
                await self._take_turn()
                self._connection = await self._engine.connect()
            guard_connection(self._connection)
        return self._connection

    async def _intact(self) -> AsyncConnection:
        """The connection, if its database transaction is still the one that holds the row's lock and the handler's effect."""
        connection = self._connection
        if connection is None:
            raise RuntimeError("lock_row comes first")
        if self._session is not None:
            self._refuse_misuse(misuse_of(self._session))
            if self._session.in_transaction():
                await _flush(self._session)
        if self._root is None or self._is_broken():
            self._refuse_misuse("rollback or commit on the connection, or swallowed a database error,")
        return connection

    def _is_broken(self) -> bool:
        return self._root is not None and not self._root.is_active and not self._is_committed

    def _refuse_misuse(self, what: str | None) -> None:
        if what is not None:
            raise SessionMisusedError(
                f"a handler called {what} in the database transaction that it shares with the barrier, so nothing of it was kept; "
                "return to commit, raise to roll back, and use begin_nested() around statements that may fail"
            )

    async def _take_turn(self) -> None:
        if self._turn is not None:
            await self._turn.acquire()
            self._has_turn = True

    async def _close(self) -> None:
        """Rolls back what is not committed, and gives back what is held. What fails here changes no outcome."""
        try:
            async with asyncio.timeout(_CLOSE_TIME_LIMIT_S):
                await self._give_back()
        except (SQLAlchemyError, OSError, TimeoutError) as error:
            # The database rolls back by itself when the connection is gone.
            logger.warning("a connection of the participant's database was dropped: %s", str(error).partition("\n")[0])
        finally:
            if self._turn is not None and self._has_turn:
                self._has_turn = False
                self._turn.release()

    async def _give_back(self) -> None:
        connection = self._connection
        try:
            if connection is not None and not connection.closed and not connection.invalidated:
                release_connection(connection)
                if self._is_broken():
                    # Somebody tried to end the database transaction. SQLAlchemy takes it for ended and would not roll it back: the
                    # next user of the connection would find, and commit, what was written here.
                    await connection.invalidate()
            if self._session is not None:
                await end_session(self._session)
        finally:
            if connection is not None:
                await connection.close()


async def _flush(session: AsyncSession) -> None:
    """Writes what the handler's session still holds, which may fail like any statement of the handler itself."""
    try:
        await session.flush()
    except SQLAlchemyError as error:
        first_line = str(error).partition("\n")[0]
        raise (StoreBusyError(first_line) if is_busy(error) else HandlerWriteError(first_line)) from error


def _root_of(connection: AsyncConnection) -> RootTransaction | None:
    return connection.sync_connection.get_transaction() if connection.sync_connection is not None else None
