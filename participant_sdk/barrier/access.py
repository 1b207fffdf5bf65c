"""How a unit reaches its database: by awaiting it, or by blocking the thread that it runs in.

What a unit does stands in one place, as coroutines. On a blocking access those never wait for the event loop, so `run_through` takes
them through in a thread, and one hop there carries a whole database transaction: hops are what costs on SQLite.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from contextvars import Context
from typing import Any, Protocol, TypeAlias, TypeVar

from sqlalchemy import Connection, CursorResult, Engine, Executable
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, AsyncSession
from sqlalchemy.orm import Session

from participant_sdk.barrier.cut_connections import roll_back_when_cut
from participant_sdk.barrier.mysql import is_mysql
from participant_sdk.barrier.sessions import JoinedSession
from participant_sdk.barrier.store import LockWaitError
from participant_sdk.shielding import finish

ResultT = TypeVar("ResultT")

Parameters: TypeAlias = Mapping[str, object] | Sequence[Mapping[str, object]]


class Link(Protocol):
    """A connection, as far as a unit needs one."""

    @property
    def closed(self) -> bool: ...
    @property
    def invalidated(self) -> bool: ...
    async def execute(self, statement: Executable, parameters: Any = None, /) -> CursorResult[Any]: ...
    async def exec_driver_sql(self, statement: str, /) -> CursorResult[Any]: ...
    async def commit(self) -> None: ...
    async def invalidate(self) -> None: ...
    async def close(self) -> None: ...


class Access(Protocol):
    """A database, as units reach it."""

    @property
    def engine(self) -> Engine:
        """Its engine, or the one beneath."""

    async def connect(self) -> Link:
        """A connection of its pool."""

    def connection_of(self, link: Link) -> Connection:
        """The connection itself."""

    def session_on(self, link: Link | None, savepoint: str | None = None) -> AsyncSession | Session:
        """A session for a handler; see `JoinedSession`. On a connection of its own without `link`."""

    async def with_session(self, session: AsyncSession | Session, work: Callable[[JoinedSession], ResultT]) -> ResultT:
        """Runs what blocks with the session beneath."""

    async def whole(self, work: Coroutine[Any, Any, ResultT], limit_s: float) -> ResultT:
        """Runs `work` to its end, whoever stops waiting for it. Raises TimeoutError, where it can be cut short."""

    def lock_limit(self, wait_s: float | None) -> AbstractAsyncContextManager[object]:
        """Around what waits for locks, so long at most. Raises LockWaitError, where waiting can be cut short."""

    async def limit_locks(self, link: Link, wait_s: float | None) -> None:
        """Has the database give up waiting, where nobody else can."""

    async def within(self, context: Context, work: Callable[[], Coroutine[Any, Any, ResultT]]) -> ResultT:
        """Runs `work` with the context variables of whoever asked for it."""


class AsyncAccess:
    """Implements `Access` by an AsyncEngine."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine
        roll_back_when_cut(engine.sync_engine)

    @property
    def engine(self) -> Engine:
        return self._engine.sync_engine

    async def connect(self) -> Link:
        return await self._engine.connect()

    def connection_of(self, link: Link) -> Connection:
        assert isinstance(link, AsyncConnection)
        assert link.sync_connection is not None
        return link.sync_connection

    def session_on(self, link: Link | None, savepoint: str | None = None) -> AsyncSession:
        assert link is None or isinstance(link, AsyncConnection)
        bind = self._engine if link is None else link
        return AsyncSession(
            bind,
            sync_session_class=JoinedSession,
            join_transaction_mode="rollback_only",
            expire_on_commit=False,
            savepoint=savepoint,
        )

    async def with_session(self, session: AsyncSession | Session, work: Callable[[JoinedSession], ResultT]) -> ResultT:
        assert isinstance(session, AsyncSession)
        joined = joined_of(session)
        return await session.run_sync(lambda _: work(joined))

    async def whole(self, work: Coroutine[Any, Any, ResultT], limit_s: float) -> ResultT:
        async def limited() -> ResultT:
            async with asyncio.timeout(limit_s):
                return await work

        return await finish(limited())

    @asynccontextmanager
    async def lock_limit(self, wait_s: float | None) -> AsyncIterator[None]:
        limit = asyncio.timeout(wait_s)
        try:
            async with limit:
                yield
        except TimeoutError as error:
            if limit.expired():
                raise LockWaitError(f"not locked within {wait_s} s") from error
            raise

    async def limit_locks(self, link: Link, wait_s: float | None) -> None:
        """`lock_limit` does it."""

    async def within(self, context: Context, work: Callable[[], Coroutine[Any, Any, ResultT]]) -> ResultT:
        return await asyncio.get_running_loop().create_task(work(), context=context)


class BlockingAccess:
    """Implements `Access` by an Engine: nothing here waits for the event loop."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    @property
    def engine(self) -> Engine:
        return self._engine

    async def connect(self) -> Link:
        return BlockingLink(self._engine.connect())

    def connection_of(self, link: Link) -> Connection:
        assert isinstance(link, BlockingLink)
        return link.connection

    def session_on(self, link: Link | None, savepoint: str | None = None) -> Session:
        bind = self._engine if link is None else self.connection_of(link)
        return JoinedSession(bind, join_transaction_mode="rollback_only", expire_on_commit=False, savepoint=savepoint)

    async def with_session(self, session: AsyncSession | Session, work: Callable[[JoinedSession], ResultT]) -> ResultT:
        return work(joined_of(session))

    async def whole(self, work: Coroutine[Any, Any, ResultT], limit_s: float) -> ResultT:
        return await work  # A thread is not cut short: the driver's own timeouts bound it.

    def lock_limit(self, wait_s: float | None) -> AbstractAsyncContextManager[object]:
        return nullcontext()

    async def limit_locks(self, link: Link, wait_s: float | None) -> None:
        # SQLite waits as long as the `timeout` of its connections says.
        dialect = self._engine.dialect
        if wait_s is None:
            return
        if dialect.name == "postgresql":
            await link.exec_driver_sql(f"SET LOCAL lock_timeout = {max(int(wait_s * 1_000), 1)}")
        elif is_mysql(dialect.name):
            assert isinstance(link, BlockingLink)
            # Whole seconds. 0, which does not wait at all, only MariaDB knows.
            link.limit_waits(max(int(wait_s), 0 if getattr(dialect, "is_mariadb", False) else 1))

    async def within(self, context: Context, work: Callable[[], Coroutine[Any, Any, ResultT]]) -> ResultT:
        return context.run(run_through, work())


class BlockingLink:
    """Implements `Link` by a Connection that blocks."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self._has_limit = False

    def limit_waits(self, seconds: int) -> None:
        """Has MySQL wait so long for locks until the connection is given back: it knows no limit of one database transaction."""
        self._has_limit = True
        self.connection.exec_driver_sql(
            f"SET @saga_lock_wait = @@SESSION.innodb_lock_wait_timeout, SESSION innodb_lock_wait_timeout = {seconds}"
        )

    @property
    def closed(self) -> bool:
        return self.connection.closed

    @property
    def invalidated(self) -> bool:
        return self.connection.invalidated

    async def execute(self, statement: Executable, parameters: Any = None, /) -> CursorResult[Any]:
        return self.connection.execute(statement, parameters)

    async def exec_driver_sql(self, statement: str, /) -> CursorResult[Any]:
        return self.connection.exec_driver_sql(statement)

    async def commit(self) -> None:
        self.connection.commit()

    async def invalidate(self) -> None:
        self.connection.invalidate()

    async def close(self) -> None:
        if self._has_limit and not self.closed and not self.invalidated:
            try:
                self.connection.exec_driver_sql("SET SESSION innodb_lock_wait_timeout = @saga_lock_wait")
            except SQLAlchemyError:
                self.connection.invalidate()  # Nobody must inherit the limit.
                raise
        self.connection.close()


def joined_of(session: AsyncSession | Session) -> JoinedSession:
    """The session beneath."""
    joined = session.sync_session if isinstance(session, AsyncSession) else session
    assert isinstance(joined, JoinedSession)
    return joined


def run_through(work: Coroutine[Any, Any, ResultT]) -> ResultT:
    """Runs a coroutine that never waits for the event loop, in a thread that has none."""
    try:
        work.send(None)
    except StopIteration as ended:
        result: ResultT = ended.value
        return result
    work.close()
    raise RuntimeError("what runs in the barrier's thread must not wait for the event loop")
