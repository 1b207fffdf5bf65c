"""A journal whose database outlives it, on a disk whose faults somebody decides, in virtual time.

What is queued is committed as a group, in one instant, after as long as the disk takes; then it takes a while until anybody is told. In
both gaps a coordinator can die: before the commit, when nothing of it happened, and after it, when nobody heard of it.
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol, cast

from coordinator.core.values import MICROS_PER_SECOND, Code, Failure
from coordinator.engine.hints import Signals, Silence
from coordinator.engine.ports import Append, Appended, Clock, JournalListener, JournalUnavailableError, Moved
from coordinator.engine.shards import ONE_SHARD, Shards
from coordinator.journal.leases import LeaseKeeper
from coordinator.journal.membership import Membership, Node
from coordinator.journal.memory_journal import MemoryDatabase, MemoryJournal
from coordinator.journal.memory_membership import MemoryMembership
from coordinator.journal.ownership import Ownership
from coordinator.journal.settling import doom, verdicts_of
from participant_sdk.testing.suspension import Suspension


@dataclass(frozen=True, slots=True, kw_only=True)
class CommitFate:
    """What becomes of one commit. Times are seconds."""

    takes_s: float = 0.0
    """From its beginning until it is in."""
    fails_for_s: float = 0.0
    """How long the database is away before that: nothing is written and nothing can be read."""
    told_after_s: float = 0.0
    """From the instant at which it is in until the coordinator knows: its outcome is in doubt for so long."""


PROMPT: Final = CommitFate()
TURNS_OF_THE_WAY: Final = 20
"""Of the loop, that a question to the database takes at least."""


class Disk(Protocol):
    """Decides how commits go."""

    def fate_of(self, number: int, appends: Sequence[Append], /) -> CommitFate:
        """Asked once for each commit of this database, before it begins. `number` counts from 1."""

    def committed(self, number: int, appends: Sequence[Append], /) -> None:
        """That commit is in, and nobody knows."""

    def told(self, number: int, appends: Sequence[Append], /) -> None:
        """The coordinator knows, and has released what that commit justifies."""


class PromptDisk:
    """Every commit is in at once."""

    def fate_of(self, number: int, appends: Sequence[Append], /) -> CommitFate:
        return PROMPT

    def committed(self, number: int, appends: Sequence[Append], /) -> None:
        """Nothing follows from it."""

    def told(self, number: int, appends: Sequence[Append], /) -> None:
        """Nothing follows from it."""


@dataclass(slots=True)
class SimulatedDatabase:
    """What stays when a coordinator dies."""

    content: MemoryDatabase
    disk: Disk
    commits: int = 0


class SimulatedJournal:
    """Implements `Journal` for one life of a coordinator: alone on its database, or as one node of several that share it."""

    signals: Signals = Silence()

    def __init__(self, database: SimulatedDatabase, clock: Clock, suspension: Suspension, node: Node | None = None) -> None:
        """`suspension`: of its process. `node`: as which it shares the database; None: it does not."""
        self._database = database
        self._clock = clock
        self._suspension = suspension
        self.way: Suspension = Suspension()
        """To the database: while it is stopped, nothing is read or written, and the process goes on."""
        ownership = None if node is None else Ownership(node.id, {})
        self._inner = MemoryJournal(clock=clock, database=database.content, commits_by_itself=False, ownership=ownership)
        self._leases = None if node is None or ownership is None else self._lease_keeper(node, ownership)
        self.shards: Shards = ONE_SHARD if self._leases is None else self._leases
        self._inner.listen(_Collector(self))
        self._listener: JournalListener | None = None
        self._queue: list[Append] = []
        self._results: list[Appended] = []
        self._is_committing = False
        self._is_dead = False
        self._failing_since_us: int | None = None

    def _lease_keeper(self, node: Node, ownership: Ownership) -> LeaseKeeper:
        loop = asyncio.get_running_loop()
        inner = MemoryMembership(self._database.content, lambda: round(loop.time() * MICROS_PER_SECOND))
        membership = _OnTheWay(inner, self._suspension, lambda: self.is_away)
        # Whatever is called of it goes through `__getattr__`, which is all that the protocol asks for.
        return LeaseKeeper(
            node=node, membership=cast("Membership", membership), ownership=ownership, give_up=self._give_up, clock=self._clock
        )

    async def start(self) -> None:
        """Takes part, if the database is shared."""
        if self._leases is not None:
            await self._leases.start()

    @property
    def is_away(self) -> bool:
        """Whether the database cannot be reached, or nobody is left who would."""
        return self._is_dead or self.way.is_stopped or self._failing_since_us is not None

    def listen(self, listener: JournalListener, /) -> None:
        """Says who is told what becomes of appends. To be called once, before anything is appended."""
        self._listener = listener

    def append(self, batch: Sequence[Append], /) -> None:
        """Queues appends; after the end of its coordinator they are dropped."""
        if self._is_dead:
            return
        self._queue += batch
        if not self._is_committing:
            self._is_committing = True
            asyncio.get_running_loop().call_soon(self._suspension.run, self._begin)

    @property
    def stalled_for_us(self) -> int:
        """How long the database has been away; 0 while it is there."""
        return 0 if self._failing_since_us is None else self._clock.now() - self._failing_since_us

    def die(self) -> None:
        """The process has ended: what is not in by now never will be, and nobody is told anything any more."""
        self._is_dead = True
        self._queue.clear()
        if self._leases is not None:
            self._leases.abandon()
        if self._listener is not None:
            self._listener.lost(Failure(Code.UNAVAILABLE, "the process has ended"))

    async def aclose(self) -> None:
        """Takes nothing any more, and gives up its shards. Safe to call twice."""
        if self._leases is not None and not self._is_dead:
            await self._leases.aclose()
        self._is_dead = True

    def __getattr__(self, name: str) -> Any:
        # Everything that reads and every registry: as the journal in memory does it, while the database is there.
        found = getattr(self._inner, name)
        if self.is_away:
            return _unavailable
        return found

    # ── Commits ─────────────────────────────────────────────────────────────────────────────────────────────────────────────────

    def _begin(self) -> None:
        if self._is_dead or not self._queue:
            self._is_committing = False
            return
        self._database.commits += 1
        number, taken = self._database.commits, tuple(self._queue)
        self._queue.clear()  # it is on its way: who gives a shard up now cannot take it back
        fate = self._database.disk.fate_of(number, taken)
        if fate.fails_for_s:
            self._failing_since_us = self._clock.now()
        # A process that is stopped meanwhile has sent the COMMIT already: the database goes on without it.
        self._later(fate.fails_for_s + fate.takes_s, lambda: self.way.run(lambda: self._commit(number, taken, fate)))

    def _commit(self, number: int, taken: Sequence[Append], fate: CommitFate) -> None:
        if self._is_dead:
            return
        self._failing_since_us = None
        self._inner.append(taken)
        self._inner.commit()
        self._database.disk.committed(number, taken)
        self._later(fate.told_after_s, lambda: self._suspension.run(lambda: self._tell(number, taken)))

    def _tell(self, number: int, taken: Sequence[Append]) -> None:
        results, self._results = self._results, []
        if self._is_dead:
            return
        going_on, fallen = doom(self._queue, verdicts_of(results))
        self._queue = going_on
        results += fallen
        if results and self._listener is not None:
            self._listener.appended(results)
        self._database.disk.told(number, taken)
        self._begin()

    def collect(self, results: Sequence[Appended]) -> None:
        """What became of appends, before anybody is told."""
        self._results += results

    def _give_up(self, shards: frozenset[int], reason: str) -> None:
        """The leases have ended, or are given back. What is queued comes to nothing; what is being committed may be in."""
        self._inner.give_up(shards, reason)
        moved = [Moved(append=append) for append in self._queue if append.shard in shards]
        self._queue = [append for append in self._queue if append.shard not in shards]
        if moved and self._listener is not None:
            self._listener.appended(moved)

    def lose_shards(self, shards: frozenset[int], reason: Failure) -> None:
        """Another journal writes these shards."""
        if not self._is_dead and self._listener is not None:
            self._listener.shards_lost(shards, reason)

    def lose(self, reason: Failure) -> None:
        """Another journal writes this database."""
        self._is_dead = True
        if self._listener is not None:
            self._listener.lost(reason)

    def _later(self, delay_s: float, callback: Callable[[], None]) -> None:
        if delay_s:
            asyncio.get_running_loop().call_later(delay_s, callback)
        else:
            callback()


class _Collector:
    def __init__(self, journal: SimulatedJournal) -> None:
        self._journal = journal

    def appended(self, results: Sequence[Appended], /) -> None:
        self._journal.collect(results)

    def shards_lost(self, shards: frozenset[int], reason: Failure, /) -> None:
        self._journal.lose_shards(shards, reason)

    def lost(self, reason: Failure, /) -> None:
        self._journal.lose(reason)


class _OnTheWay:
    """A membership whose database may be away, for a process that may be stopped while it asks."""

    def __init__(self, inner: MemoryMembership, suspension: Suspension, is_away: Callable[[], bool]) -> None:
        self._inner = inner
        self._suspension = suspension
        self._is_away = is_away

    def __getattr__(self, name: str) -> Any:
        asked = getattr(self._inner, name)

        async def ask(*arguments: object, **named: object) -> Any:
            for _ in range(TURNS_OF_THE_WAY):
                await asyncio.sleep(0)  # the way there takes a moment, in which calls that were sent before have left
            await self._suspension.passed()
            if self._is_away():
                raise JournalUnavailableError("the database is away")
            answer = await asked(*arguments, **named)
            await self._suspension.passed()
            return answer

        return ask


async def _unavailable(*_: object, **__: object) -> Any:
    raise JournalUnavailableError("the database is away")
