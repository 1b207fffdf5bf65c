"""Database transactions of the outbox, on an engine that waits or one that blocks.

What one does stands once, as a coroutine over a `Link`; on an engine that blocks a thread takes it through as a whole.
"""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, Final, TypeAlias, TypeVar

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from participant_sdk.barrier.access import Access, AsyncAccess, BlockingAccess, Link, run_through
from participant_sdk.outbox.errors import OutboxUnavailableError
from participant_sdk.outbox.statements import READ_COMMITTED
from participant_sdk.shielding import outlast

TIME_LIMIT_S: Final = 20.0
"""After this a database transaction that has come to nothing is given up. Those that block end by their driver's own limits."""

AnyEngine: TypeAlias = AsyncEngine | Engine
ResultT = TypeVar("ResultT")


class OutboxDatabase:
    """Runs database transactions, each on a connection of its own. The engine stays its owner's."""

    def __init__(self, engine: AnyEngine) -> None:
        self._is_blocking = isinstance(engine, Engine)
        self.dialect_name: Final = engine.dialect.name
        self._access = _access(engine)

    async def transact(self, work: Callable[[Link], Coroutine[Any, Any, ResultT]]) -> ResultT:
        """Runs `work` and commits. Rolls back if it raises. Runs to its end if the caller is cancelled.

        Raises OutboxUnavailableError; whether a COMMIT took place is then not known.
        """
        try:
            if not self._is_blocking:
                return await self._access.whole(self._transact(work), TIME_LIMIT_S)
            running = asyncio.get_running_loop().run_in_executor(None, run_through, self._transact(work))
            return await outlast(running)
        except (SQLAlchemyError, OSError, TimeoutError) as error:
            # Without the statement and its parameters, which hold payloads.
            first_line = str(error).partition("\n")[0]
            raise OutboxUnavailableError(f"{type(error).__name__}: {first_line or 'no answer in time'}") from error

    async def run_sync(self, work: Callable[[Connection], ResultT]) -> ResultT:
        """The same for what SQLAlchemy has for connections that block only, as it makes and inspects tables."""

        async def on(link: Link) -> ResultT:
            if isinstance(link, AsyncConnection):
                return await link.run_sync(work)
            return work(self._access.connection_of(link))

        return await self.transact(on)

    async def _transact(self, work: Callable[[Link], Coroutine[Any, Any, ResultT]]) -> ResultT:
        link = await self._access.connect()
        try:
            result = await work(link)
            await link.commit()
        finally:
            await link.close()
        return result


def _access(engine: AnyEngine) -> Access:
    options: dict[str, Any] = {"isolation_level": "READ COMMITTED"} if engine.dialect.name in READ_COMMITTED else {}
    if isinstance(engine, AsyncEngine):
        return AsyncAccess(engine.execution_options(**options))
    return BlockingAccess(engine.execution_options(**options))
