"""One database transaction of the SQL barrier."""

import asyncio
import logging
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Final, NoReturn, Self, TypeVar

from sqlalchemy import RootTransaction
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session

from participant_sdk.barrier.access import Access, Link, joined_of
from participant_sdk.barrier.mysql import refuse_lax_mode
from participant_sdk.barrier.sessions import JoinedSession, forgive_loss, guard_connection, loss_on, release_connection
from participant_sdk.barrier.sql_errors import Loss, first_line, is_busy, translated
from participant_sdk.barrier.statements import Statements, insert_parameters, row_of, update_parameters
from participant_sdk.barrier.store import CommitInDoubtError, HandlerWriteError, StoreBusyError, StoreUnavailableError
from participant_sdk.barrier.verdict import BarrierRow
from participant_sdk.errors import SessionMisusedError

logger = logging.getLogger(__name__)

ResultT = TypeVar("ResultT")

_COMMIT_TIME_LIMIT_S: Final = 10.0
"""After this a COMMIT without an answer is in doubt."""
_CLOSE_TIME_LIMIT_S: Final = 5.0
"""After this a connection that does not roll back is dropped."""
_LOCK_TRIES: Final = 3
"""How often the key is tried again when its row vanishes between INSERT and SELECT, as retention may cause."""


class SqlUnit:
    """Implements `BarrierUnit`. Takes a connection from the pool when first used, and gives it back at its end."""

    def __init__(self, access: Access, statements: Statements, turn: asyncio.Lock | None) -> None:
        """`turn`: the lock by which the units of one SQLite file take turns in this process; None if rows are locked singly, or if
        the turn is somebody else's already, on whose behalf the unit works.
        """
        self._access = access
        self._statements = statements
        self._turn = turn
        self._has_turn = False
        self._link: Link | None = None
        self._root: RootTransaction | None = None
        self._session: AsyncSession | Session | None = None
        self._is_committed = False

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._link is not None or self._session is not None or self._has_turn:
            await self._close()

    @property
    def session(self) -> AsyncSession | Session:
        if self._session is None:
            self._session = self._access.session_on(self._link)
        return self._session

    @property
    def has_session(self) -> bool:
        return self._session is not None

    async def run_sync(self, work: Callable[[Session], ResultT]) -> ResultT:
        return await self._access.with_session(self.session, work)

    @property
    def link(self) -> Link | None:
        """The connection, once it is begun."""
        return self._link

    @property
    def is_broken(self) -> bool:
        """Whether somebody has ended the database transaction, or SQLAlchemy has given it up after an error."""
        return self._root is not None and not self._root.is_active and not self._is_committed

    async def lock_row(self, fresh: BarrierRow, wait_s: float | None = None) -> BarrierRow | None:
        with translated(self._statements.table.name):
            async with self._access.lock_limit(wait_s):
                link = await self._begun(wait_s)
                for _ in range(_LOCK_TRIES):
                    inserted = await link.execute(self._statements.insert, insert_parameters(fresh))
                    self._note_root(link)
                    if self._statements.has_put(inserted):
                        return None
                    found = await link.execute(self._statements.select_for_update, {"key": fresh.key})
                    row = found.one_or_none()
                    if row is not None:
                        return row_of(row)
        raise StoreBusyError(f"the row of key {fresh.key} comes and goes")

    async def lock_rows(self, fresh: Sequence[BarrierRow], wait_s: float) -> dict[str, BarrierRow]:
        """`lock_row` for many keys, each once, in two statements at most: the rows that are there by key; the others are put.

        On MySQL, which does not say what became of each, in one or two statements a key.
        """
        # In one order everywhere, so that groups of several processes do not wait for each other in a circle.
        rows = sorted(fresh, key=_key_of)
        if self._statements.insert_returning is None:
            found_singly = [(row.key, await self.lock_row(row, wait_s)) for row in rows]
            return {key: row for key, row in found_singly if row is not None}
        with translated(self._statements.table.name):
            async with self._access.lock_limit(wait_s):
                link = await self._begun(wait_s)
                inserted = await link.execute(self._statements.insert_returning, [insert_parameters(row) for row in rows])
                self._note_root(link)
                new = set(inserted.scalars())
                if len(new) == len(rows):
                    return {}
                known = [row.key for row in rows if row.key not in new]
                found = await link.execute(self._statements.select_many_for_update, {"keys": known})
                old = {row.key: row for row in map(row_of, found)}
        if len(new) + len(old) != len(rows):
            raise StoreBusyError("some of the rows come and go")
        return old

    async def prove_server(self) -> None:
        """Raises ParticipantSetupError if the server's way with connections like this one lets a barrier keep no promise."""
        if self._statements.is_mysql:
            with translated(self._statements.table.name):
                link = await self._begun(None)
                mode = (await link.exec_driver_sql("SELECT @@SESSION.sql_mode")).scalar_one()
            refuse_lax_mode(str(mode))

    async def put_rows(self, rows: Sequence[BarrierRow], without: Sequence[str]) -> None:
        """Replaces locked rows, and forgets those of the keys `without`."""
        link = await self._intact()
        with translated(self._statements.table.name):
            if rows:
                await link.execute(self._statements.update, [update_parameters(row) for row in rows])
            if without:
                await link.execute(self._statements.delete, [{"row_key": key} for key in without])

    async def roll_back_to(self, savepoint: str) -> None:
        link = await self._intact()
        with translated(self._statements.table.name):
            await link.exec_driver_sql(f"ROLLBACK TO SAVEPOINT {savepoint}")

    async def prove_intact(self, savepoint: str) -> None:
        """Raises StoreUnavailableError if a statement since that savepoint failed and was not rolled back, as PostgreSQL demands."""
        link = await self._intact()
        if self._access.engine.dialect.name == "postgresql":
            with translated(self._statements.table.name):
                await link.exec_driver_sql(f"RELEASE SAVEPOINT {savepoint}")

    async def put_row(self, row: BarrierRow) -> None:
        link = await self._intact()
        with translated(self._statements.table.name):
            updated = await link.execute(self._statements.update, update_parameters(row))
        if updated.rowcount == 0:
            refuse_misuse("something that made the locked row vanish")

    async def delete_row(self, row: BarrierRow) -> None:
        link = await self._intact()
        with translated(self._statements.table.name):
            await link.execute(self._statements.delete, {"row_key": row.key})

    async def delete_oldest(self, created_before_us: int, limit: int) -> int:
        """Forgets at most `limit` rows created before that instant, and commits; returns how many."""
        parameters = {"created_before_us": created_before_us, "row_limit": limit}
        with translated(self._statements.table.name):
            link = await self._begun(None)
            if self._statements.is_mysql:
                keys = list((await link.execute(self._statements.select_oldest, parameters)).scalars())
                known = {"keys": keys, "created_before_us": created_before_us}
                deleted = await link.execute(self._statements.delete_known, known)
            else:
                deleted = await link.execute(self._statements.delete_oldest, parameters)
            self._note_root(link)
        await self.commit()
        return deleted.rowcount

    async def commit(self) -> None:
        link = await self._intact()
        release_connection(self._access.connection_of(link))
        try:
            # Cut in two by a cancellation, a COMMIT would be in doubt without need.
            await self._access.whole(link.commit(), _COMMIT_TIME_LIMIT_S)
        except (SQLAlchemyError, OSError, TimeoutError) as error:
            # The connection is of no use any more: whether the database transaction took place is read on another one (R26).
            await link.invalidate()
            raise CommitInDoubtError(first_line(error)) from error
        self._is_committed = True

    def is_busy(self, error: BaseException) -> bool:
        return is_busy(error)

    async def _begun(self, wait_s: float | None) -> Link:
        """The connection with its database transaction, which is the session's if the handler was there first."""
        if self._link is None:
            if isinstance(self._session, AsyncSession) and self._session.in_transaction():
                self._link = await self._session.connection()
            else:
                await self._take_turn()
                self._link = await self._access.connect()
            guard_connection(self._access.connection_of(self._link))
            await self._access.limit_locks(self._link, wait_s)
        return self._link

    def _note_root(self, link: Link) -> None:
        self._root = self._access.connection_of(link).get_transaction()

    async def _intact(self) -> Link:
        """The connection, if its database transaction is still the one that holds the row's lock and the handler's effect."""
        if self._link is None:
            raise RuntimeError("lock_row comes first")
        if self._session is not None:
            await conclude_session(self._access, self._session)
        if self._root is None or self.is_broken:
            refuse_misuse("rollback or commit on the connection, or swallowed a database error,")
        if self._link.closed or self._link.invalidated:
            raise StoreUnavailableError("the connection was lost under a handler, and the handler went on")
        if loss_on(self._access.connection_of(self._link)) is not None:
            await self._refuse_loss(self._link)
        return self._link

    async def _refuse_loss(self, link: Link) -> None:
        """Raises StoreBusyError if the database has rolled back by itself, and a handler went on as if nothing had happened."""
        connection = self._access.connection_of(link)
        if loss_on(connection) is Loss.POSSIBLE:
            with translated(self._statements.table.name):
                found = await link.exec_driver_sql("SELECT @@innodb_rollback_on_timeout")
            if not found.scalar_one():
                forgive_loss(connection)
                return
        raise StoreBusyError("the database has rolled back what a handler wrote, and the handler went on")

    async def _take_turn(self) -> None:
        if self._turn is not None:
            await self._turn.acquire()
            self._has_turn = True

    async def _close(self) -> None:
        """Rolls back what is not committed, and gives back what is held. What fails here changes no outcome."""
        try:
            await self._access.whole(self._give_back(), _CLOSE_TIME_LIMIT_S)
        except (SQLAlchemyError, OSError, TimeoutError) as error:
            # The database rolls back by itself when the connection is gone.
            logger.warning("a connection of the participant's database was dropped: %s", first_line(error))
        finally:
            if self._turn is not None and self._has_turn:
                self._has_turn = False
                self._turn.release()

    async def _give_back(self) -> None:
        link = self._link
        try:
            if link is not None and not link.closed and not link.invalidated:
                release_connection(self._access.connection_of(link))
                if self.is_broken:
                    # Somebody tried to end the database transaction. SQLAlchemy takes it for ended and would not roll it back: the
                    # next user of the connection would find, and commit, what was written here.
                    await link.invalidate()
            if self._session is not None:
                await self._access.with_session(self._session, JoinedSession.end)
        finally:
            if link is not None:
                await link.close()


async def conclude_session(access: Access, session: AsyncSession | Session) -> None:
    """Writes what a handler's session still holds, which may fail like any statement of the handler itself.

    Raises SessionMisusedError, HandlerWriteError, StoreBusyError.
    """
    joined = joined_of(session)
    if joined.misuse is not None:
        refuse_misuse(joined.misuse)
    if joined.in_transaction() and joined.has_unwritten:
        try:
            await access.with_session(session, JoinedSession.flush)
        except SQLAlchemyError as error:
            raise (StoreBusyError(first_line(error)) if is_busy(error) else HandlerWriteError(first_line(error))) from error


def refuse_misuse(what: str) -> NoReturn:
    raise SessionMisusedError(
        f"a handler called {what} in the database transaction that it shares with the barrier, so nothing of it was kept; "
        "return to commit, raise to roll back, and use begin_nested() around statements that may fail"
    )


def _key_of(row: BarrierRow) -> str:
    return row.key
