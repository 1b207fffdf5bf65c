"""The session that handlers see: it is part of the barrier's database transaction, and must not end it."""

from typing import Final, NoReturn

from sqlalchemy import Connection, Engine, event
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, AsyncSession
from sqlalchemy.orm import Session, SessionTransaction

from participant_sdk.errors import SessionMisusedError

_GUARDED: Final = "saga_barrier_guarded"
"""Marks a connection, in its `info`, as one on which only the barrier may commit."""


class JoinedSession(Session):
    """A session that joins a database transaction owned by somebody else: the barrier ends it, the handler must not.

    A misuse is remembered even if the handler swallows the exception, so that the unit cannot be committed afterwards.
    """

    misuse: str | None = None
    """What the handler did; None if nothing."""

    def commit(self) -> None:
        self._refuse("commit()")

    def rollback(self) -> None:
        self._refuse("rollback()")

    def close(self) -> None:
        self._refuse("close()")

    def reset(self) -> None:
        self._refuse("reset()")

    def invalidate(self) -> None:
        self._refuse("invalidate()")

    def prepare(self) -> None:
        self._refuse("prepare()")

    def begin(self, nested: bool = False) -> SessionTransaction:  # the signature of SQLAlchemy
        if not nested:
            self._refuse("begin()")
        return super().begin(nested=True)

    def end(self) -> None:
        """Closes the session for its owner; what it wrote stays in the database transaction that it joined."""
        super().close()

    def _refuse(self, what: str) -> NoReturn:
        self.misuse = what
        raise SessionMisusedError(
            f"a handler called {what} on step.session, which shares its database transaction with the barrier: return to commit, "
            "raise to roll back, and use begin_nested() for savepoints"
        )


def joined_session(bind: AsyncConnection | AsyncEngine) -> AsyncSession:
    """A session for a handler, on the barrier's connection, or on a connection of its own that the barrier will use too."""
    return AsyncSession(bind, sync_session_class=JoinedSession, join_transaction_mode="rollback_only", expire_on_commit=False)


def misuse_of(session: AsyncSession) -> str | None:
    """What the handler did to end the database transaction; None if nothing."""
    joined = session.sync_session
    return joined.misuse if isinstance(joined, JoinedSession) else None


async def end_session(session: AsyncSession) -> None:
    """Closes it for its owner."""

    def end(joined: Session) -> None:
        if isinstance(joined, JoinedSession):
            joined.end()

    await session.run_sync(end)


def watch_commits(engine: Engine) -> None:
    """Lets the engine refuse a COMMIT on guarded connections, however a handler came by the connection."""
    if not event.contains(engine, "commit", _refuse_foreign_commit):
        event.listen(engine, "commit", _refuse_foreign_commit)


def guard_connection(connection: AsyncConnection) -> None:
    """From now on only the barrier may commit on it."""
    connection.info[_GUARDED] = True


def release_connection(connection: AsyncConnection) -> None:
    """The barrier itself commits now, or is done with it."""
    connection.info.pop(_GUARDED, None)


def _refuse_foreign_commit(connection: Connection) -> None:
    if connection.info.get(_GUARDED):
        raise SessionMisusedError(
            "a handler committed the database transaction that it shares with the barrier: return to commit, raise to roll back"
        )
