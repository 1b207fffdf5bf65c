"""`saga serve`, which kills itself with SIGKILL at one chosen commit. Run as a module; CRASH_AT names the moment.

`before:3`   when the third group of appends is handed to the database, before it is committed
`after:3`    when the third group is committed, before anybody is told
`released:3` when everything that the third commit released was handed to the network

CLOCK_SHIFT_S sets the clock of its machine forward by so many seconds, or back.
"""

import asyncio
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

from coordinator.bootstrap import OpenedJournal, Surroundings, open_sql_journal, serve
from coordinator.core.values import Failure
from coordinator.engine.ports import Append, Appended, Clock, JournalListener
from coordinator.settings import Settings


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


class _Listener:
    def __init__(self, listener: JournalListener, moment: str, at: int) -> None:
        self._listener = listener
        self._moment = moment
        self._at = at
        self._commits = 0

    def appended(self, results: Sequence[Appended], /) -> None:
        self._commits += 1
        if self._moment == "after" and self._commits == self._at:
            _die()
        self._listener.appended(results)
        if self._moment == "released" and self._commits == self._at:
            # Two turns of the loop let the calls reach the network, one more would let replies in.
            asyncio.get_running_loop().call_soon(lambda: asyncio.get_running_loop().call_later(0.002, _die))

    def shards_lost(self, shards: frozenset[int], reason: Failure, /) -> None:
        self._listener.shards_lost(shards, reason)

    def lost(self, reason: Failure, /) -> None:
        self._listener.lost(reason)


class CrashingJournal:
    """A journal that delegates, and dies."""

    def __init__(self, journal: OpenedJournal, moment: str, at: int) -> None:
        self._journal = journal
        self._moment = moment
        self._at = at
        self._appends = 0

    def listen(self, listener: JournalListener, /) -> None:
        self._journal.listen(_Listener(listener, self._moment, self._at))

    def append(self, batch: Sequence[Append], /) -> None:
        self._appends += 1
        if self._moment == "before" and self._appends == self._at:
            _die()
        self._journal.append(batch)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._journal, name)


@asynccontextmanager
async def _open(url: str, clock: Clock) -> AsyncIterator[OpenedJournal]:
    moment, _, at = os.environ.get("CRASH_AT", "never:0").partition(":")
    async with open_sql_journal(url, clock) as journal:
        yield CrashingJournal(journal, moment, int(at))


def _shift_clock(by_s: float) -> None:
    """As if somebody had set the clock of the machine before the process began."""
    read_ns = time.time_ns
    time.time_ns = lambda: read_ns() + round(by_s * 1e9)


if __name__ == "__main__":
    _shift_clock(float(os.environ.get("CLOCK_SHIFT_S", "0")))
    arguments = dict(zip(sys.argv[2::2], sys.argv[3::2], strict=True))
    settings = Settings(address=arguments["--address"], database=f"sqlite+aiosqlite:///{arguments['--database']}")
    sys.exit(asyncio.run(serve(settings, surroundings=Surroundings(open_journal=_open))))
