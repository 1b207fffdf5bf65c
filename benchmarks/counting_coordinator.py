"""`saga serve` that counts its commits: on SIGUSR1 it writes the counters as JSON into the file that COUNTS names.

Settings come from the environment, as for `saga serve`, and from the two arguments: the address and the database.
"""

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from coordinator.bootstrap import OpenedJournal, Surroundings, open_sql_journal, run
from coordinator.core.values import Failure
from coordinator.engine.ports import Appended, Clock, JournalListener
from coordinator.settings import load_settings


class _Counting:
    def __init__(self, listener: JournalListener) -> None:
        self._listener = listener
        self.commits = 0
        self.events = 0
        self.rows = 0
        asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, self._write)

    def appended(self, results: Sequence[Appended], /) -> None:
        self.commits += 1
        for result in results:
            events = len(result.append.events)
            self.events += events
            self.rows += events + (result.append.start is not None)
        self._listener.appended(results)

    def shards_lost(self, shards: frozenset[int], reason: Failure, /) -> None:
        self._listener.shards_lost(shards, reason)

    def lost(self, reason: Failure, /) -> None:
        self._listener.lost(reason)

    def _write(self) -> None:
        path = Path(os.environ["COUNTS"])
        path.with_suffix(".new").write_text(json.dumps({"commits": self.commits, "events": self.events, "rows": self.rows}))
        path.with_suffix(".new").rename(path)


class _CountedJournal:
    def __init__(self, journal: OpenedJournal) -> None:
        self._journal = journal

    def listen(self, listener: JournalListener, /) -> None:
        self._journal.listen(_Counting(listener))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._journal, name)


@asynccontextmanager
async def _open(url: str, clock: Clock) -> AsyncIterator[OpenedJournal]:
    async with open_sql_journal(url, clock) as journal:
        yield _CountedJournal(journal)


if __name__ == "__main__":
    settings = load_settings(environment=os.environ, flags={"address": sys.argv[1], "database": sys.argv[2], "log_level": "warning"})
    sys.exit(run(settings, surroundings=Surroundings(open_journal=_open)))
