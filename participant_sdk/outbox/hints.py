"""Telling relays of the same process that something was committed, so that they need not wait for their next look.

Only a hint: a commit that nobody hears of, as that of another process or of a barrier, is found by looking.
"""

from collections.abc import Callable
from typing import Any
from weakref import WeakSet

from sqlalchemy import event
from sqlalchemy.ext.asyncio import AsyncSession, async_scoped_session
from sqlalchemy.orm import Session, scoped_session


class Hints:
    """Who wants to know of commits."""

    def __init__(self) -> None:
        self._listeners: WeakSet[Hint] = WeakSet()

    def add(self, listener: "Hint") -> None:
        """From now on it is told, as long as somebody else holds it."""
        self._listeners.add(listener)

    def follow(self, session: Any) -> None:
        """Tells of the session's commits, if anybody wants to know."""
        if not self._listeners:
            return
        if isinstance(session, scoped_session | async_scoped_session):
            session = session()
        real = session.sync_session if isinstance(session, AsyncSession) else session
        if not event.contains(real, "after_commit", self._tell):
            event.listen(real, "after_commit", self._tell)

    def _tell(self, _: Session) -> None:
        for listener in tuple(self._listeners):
            listener.tell()


class Hint:
    """Passes a hint on. Its `tell` may be called in any thread."""

    def __init__(self, tell: Callable[[], None]) -> None:
        self.tell = tell
