"""What nodes call to each other through PostgreSQL: hints that there is something to look at, and never more.

A hint may be lost, late or doubled, and a pooler in transaction mode lets none through: whoever waits for one looks by himself all the
same. None is sent within the database transaction of an append, because NOTIFY takes a lock that all commits of the server share (R31).
"""

import asyncio
import logging
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Final

from sqlalchemy import Connection, Engine, func, select

from coordinator.core.values import MICROS_PER_SECOND
from coordinator.engine.pause import pause
from coordinator.engine.ports import Clock
from coordinator.journal.hosts import Host
from coordinator.journal.store import words_of

CHANNEL: Final = "saga_hint"
GATHER_US: Final = 20_000
"""Hints that come within so long go out together."""
WORDS_MAX: Final = 100
"""Hints in one notification: 8,000 bytes is what it can carry."""
WAITING_MAX: Final = 10_000
"""Hints that may wait to be sent; further ones are dropped."""
RETRY_DELAY_US: Final = 5 * MICROS_PER_SECOND
"""Before it is tried again to listen."""
ECHO_TIME_LIMIT_S: Final = 5.0
"""For a notification to come back to whoever sent it. One that does not come back does not reach others either."""

_logger = logging.getLogger(__name__)


class PostgresSignals:
    """Implements `Signals`. From `start` to `aclose` it has a coroutine of its own, and one connection."""

    def __init__(self, engine: Engine, host: Host, clock: Clock, node_id: str) -> None:
        self._engine = engine
        self._host = host
        self._clock = clock
        self._node_id = node_id
        self._heard: list[Callable[[str], None]] = []
        self._waiting: dict[str, None] = {}
        self._work = asyncio.Event()
        self._echo = asyncio.Event()
        self._runner: asyncio.Task[None] | None = None
        self.is_heard = False
        """Whether notifications come through now."""

    def follow(self, heard: Callable[[str], None], /) -> None:
        """Calls back with every hint of other nodes."""
        self._heard.append(heard)

    def send(self, word: str, /) -> None:
        """Hints something to other nodes, without waiting; nothing if nobody would hear it."""
        if self.is_heard and len(self._waiting) < WAITING_MAX:
            self._waiting[word] = None
            self._work.set()

    def start(self) -> None:
        """Begins to listen."""
        self._runner = asyncio.get_running_loop().create_task(self._run(), name="signals")

    async def aclose(self) -> None:
        """Ends it. Safe to call twice."""
        runner, self._runner = self._runner, None
        if runner is not None:
            runner.cancel()
            await asyncio.wait((runner,))

    async def _run(self) -> None:
        while True:
            try:
                await self._listen()
            except _UnheardError:
                _logger.info("hints of other nodes do not come through, as behind a pooler in transaction mode; looking instead")
                return
            except Exception as error:  # of the database, or of its driver, which is used past SQLAlchemy here
                if self.is_heard:
                    _logger.warning("hints of other nodes do not come through now; looking instead", extra={"reason": words_of(error)})
            finally:
                self.is_heard = False
                self._waiting.clear()
            await pause(self._clock, RETRY_DELAY_US)

    async def _listen(self) -> None:
        connection = await self._host.run(self._engine.connect)
        try:
            driver: Any = connection.connection.driver_connection
            if await self._host.run(partial(_session_of, connection)) != driver.get_server_pid():
                # LISTEN would stay behind in a session that belongs to all. Its echo would prove nothing: it comes wherever the pooler
                # lends the same session twice in a row.
                raise _UnheardError
            driver.add_termination_listener(self._note_cut)
            await driver.add_listener(CHANNEL, self._note)
            await self._wait_for_echo(connection)
            self.is_heard = True
            while not driver.is_closed():
                await self._work.wait()
                await pause(self._clock, GATHER_US)
                self._work.clear()
                await self._send_waiting(connection)
        finally:
            await self._host.run(partial(_throw_away, connection))

    async def _wait_for_echo(self, connection: Connection) -> None:
        self._echo.clear()
        await self._notify(connection, [])
        try:
            async with asyncio.timeout(ECHO_TIME_LIMIT_S):
                await self._echo.wait()
        except TimeoutError as error:
            raise _UnheardError from error

    async def _send_waiting(self, connection: Connection) -> None:
        words = list(self._waiting)
        self._waiting.clear()
        for start in range(0, len(words), WORDS_MAX):
            await self._notify(connection, words[start : start + WORDS_MAX])

    async def _notify(self, connection: Connection, words: list[str]) -> None:
        await self._host.run(partial(_notify_alone, connection, self._node_id, words))

    def _note(self, _connection: object, _pid: int, _channel: str, payload: str) -> None:
        sender, *words = payload.split("\n")
        if sender == self._node_id:
            self._echo.set()
            return
        for word in words:
            for heard in self._heard:
                heard(word)

    def _note_cut(self, _connection: object) -> None:
        self._work.set()


class _UnheardError(Exception):
    """What is said here comes back to nobody."""


def notify(connection: Connection, node_id: str, words: Sequence[str]) -> None:
    """Tells the other nodes when the database transaction is committed."""
    connection.execute(select(func.pg_notify(CHANNEL, "\n".join((node_id, *words)))))


def _notify_alone(connection: Connection, node_id: str, words: Sequence[str]) -> None:
    with connection.begin():
        notify(connection, node_id, words)


def _session_of(connection: Connection) -> int:
    with connection.begin():
        return int(connection.execute(select(func.pg_backend_pid())).scalar_one())


def _throw_away(connection: Connection) -> None:
    connection.invalidate()  # what it listens to must not stay with it
    connection.close()
