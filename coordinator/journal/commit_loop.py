"""Group commit: what is appended while one commit is under way goes into the next.

A COMMIT COMES BEFORE EVERY WORD TO THE LISTENER. Appends of one saga are settled in the order in which they came, and each gets exactly
one result. When one comes to nothing, so do those of the same saga that wait behind it: they were decided on the strength of it.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final, TypeVar, assert_never

from coordinator.core.values import MICROS_PER_SECOND, Code, Failure, Instant
from coordinator.engine.pause import pause
from coordinator.engine.ports import Append, Appended, Clock, JournalFigures, JournalListener, JournalUnavailableError, Moved, Refused
from coordinator.journal import side_writes
from coordinator.journal.hosts import Host
from coordinator.journal.records import Record, record_of
from coordinator.journal.settling import doom, verdicts_of
from coordinator.journal.writer import Defective, Lost, ShardsLost, Unavailable, Write, Writer, Written

BATCH_APPENDS_MAX: Final = 2_000
"""Appends in one database transaction."""
BATCH_BYTES_MAX: Final = 8 * 1024 * 1024
"""Bytes of events in one database transaction; a single append may exceed it, alone."""
RETRY_DELAY_MIN_US: Final = 50_000
"""Before the second try of a commit; doubles from try to try. No jitter: one process, and nobody to collide with."""
RETRY_DELAY_MAX_US: Final = 1_000_000
"""Between two tries at most: so long does the journal stand still after its database has come back."""
COMMIT_SLOW_US: Final = 1_000_000
"""A commit that is under way for longer counts as stalled: a disk can hang without an error."""
CLOSE_TIME_LIMIT_S: Final = 30.0
"""For the last commit. A disk that hangs for longer keeps its thread, and with it the lock on the database."""

_logger = logging.getLogger(__name__)

ResultT = TypeVar("ResultT")


@dataclass(frozen=True, slots=True, kw_only=True)
class _SideWrite:
    """A write that is no append, waiting for its turn."""

    run: Callable[[], Defective | Unavailable | Lost | None]
    """In the thread of the writer. None: it is committed."""
    settle: Callable[[], None]
    """In the loop, after `run` returned None."""
    fail: Callable[[Exception], None]
    after: int
    """Number of appends that were queued before it and come first."""
    is_repeated: bool
    """Whether it waits for a database that is away, as appends do."""


class CommitLoop:
    """Owns the queue, the writer, and from `start` to `close` the coroutine that brings the one to the other."""

    def __init__(self, *, writer: Writer, host: Host, clock: Clock) -> None:
        self._writer = writer
        self._host = host
        self._clock = clock
        self._listener: JournalListener | None = None
        self._queue: deque[Append] = deque()
        self._side_writes: deque[_SideWrite] = deque()
        self._appended = 0
        self._suspects = 0
        self._work = asyncio.Event()
        self._alarm = asyncio.Event()
        self._runner: asyncio.Task[None] | None = None
        self._is_closing = False
        self._lost: Failure | None = None
        self._condition = ""
        self._failing_since: Instant | None = None
        self._try_began_at: Instant | None = None
        self.figures = JournalFigures(commits=0, appends=0, refused=0)
        """Since it was made."""

    # ── From outside ────────────────────────────────────────────────────────────────────────────────────────────────────────────

    def start(self) -> None:
        """Begins to write. Called once, in the loop."""
        assert self._runner is None
        self._runner = asyncio.get_running_loop().create_task(self._run(), name="journal")

    async def close(self) -> bool:
        """Commits what is queued, if the database takes it now, and stops. Safe to call twice.

        Returns whether the writer is at rest; if not, a commit hangs, and the database must not be given to anybody else.
        """
        self._is_closing = True
        self._work.set()
        self._alarm.set()
        if self._runner is not None:
            done, _ = await asyncio.wait({self._runner}, timeout=CLOSE_TIME_LIMIT_S)
            if not done:
                _logger.error("a commit hangs; the database stays locked until this process ends", extra={"limit_s": CLOSE_TIME_LIMIT_S})
                return False
        self._fail_side_writes(JournalUnavailableError("the journal is closed"), repeated_too=True)
        return True

    def listen(self, listener: JournalListener) -> None:
        """Names who is told. Called once, before the first append."""
        assert self._listener is None, "a journal has one listener"
        self._listener = listener
        if self._lost is not None:
            asyncio.get_running_loop().call_soon(listener.lost, self._lost)

    def append(self, batch: Sequence[Append]) -> None:
        """Queues appends. After `lost` or `close` they are dropped, as a crash would drop them."""
        assert self._listener is not None, "nobody would be told: `listen` comes before the first append"
        if self._lost is None and not self._is_closing:
            self._queue.extend(batch)
            self._appended += len(batch)
            self._work.set()

    async def write_beside(self, write: Write[ResultT], *, is_repeated: bool = False) -> ResultT:
        """Commits a write that is no append. Raises JournalUnavailableError if the database is away, unless it is to be repeated until it
        is in; if the journal is lost or closed; and if the database refuses it."""
        if self._lost is not None or self._is_closing:
            raise JournalUnavailableError(self._lost.message if self._lost is not None else "the journal is closed")
        if self._failing_since is not None and not is_repeated:
            raise JournalUnavailableError(f"the database cannot be written now: {self._condition}")
        answer: asyncio.Future[ResultT] = asyncio.get_running_loop().create_future()
        self._side_writes.append(_side_write(self._writer, write, answer, self._appended, is_repeated=is_repeated))
        self._work.set()
        return await answer

    def give_up(self, shards: frozenset[int], reason: str) -> None:
        """Nothing further of the sagas of these shards is committed or announced by this process (R26)."""
        waiting = sum(append.shard in shards for append in self._queue)
        _logger.warning("shards are no longer held", extra={"shards": sorted(shards), "reason": reason, "appends_dropped": waiting})
        assert self._listener is not None
        self._listener.shards_lost(shards, Failure(Code.UNAVAILABLE, reason))
        moved = tuple(Moved(append=append) for append in self._queue if append.shard in shards)
        self._queue = deque(append for append in self._queue if append.shard not in shards)
        if moved:
            self._listener.appended(moved)

    @property
    def stalled_for_us(self) -> int:
        """How long the oldest queued append has been failing, or its commit has hung; 0 while all is well."""
        now = self._clock.now()
        if self._failing_since is not None:
            return max(1, now - self._failing_since)
        if self._try_began_at is not None and now - self._try_began_at > COMMIT_SLOW_US:
            return now - self._try_began_at
        return 0

    @property
    def lost(self) -> Failure | None:
        """Why nothing further will be committed; None: all is well."""
        return self._lost

    # ── The coroutine ───────────────────────────────────────────────────────────────────────────────────────────────────────────

    async def _run(self) -> None:
        try:
            while self._lost is None and not (self._is_closing and not self._queue):
                await self._work.wait()
                self._work.clear()
                await self._empty_queues()
        except Exception as error:
            # Neither the database nor the rows are at fault but this program. Memory and journal may differ now: only a new start helps.
            _logger.exception("the journal cannot go on")
            self._lose(f"the journal cannot go on: {type(error).__name__}: {error}")

    async def _empty_queues(self) -> None:
        while self._lost is None and (self._queue or self._side_writes):
            settled = self._appended - len(self._queue)
            if self._side_writes and self._side_writes[0].after <= settled:
                await self._write_side(self._side_writes.popleft())
            else:
                await self._write_next()
            if self._is_closing and self._failing_since is not None:
                self._queue.clear()  # as if this process had been killed: nothing of it was announced

    async def _write_next(self) -> None:
        taken = self._take()
        if isinstance(taken, Refused):
            await self._refuse(taken)
            return
        outcome = await self._until_settled(partial(self._writer.write, taken))
        match outcome:
            case Written():
                self._suspects = max(0, self._suspects - len(taken))
                done = self.figures
                self.figures = done._replace(commits=done.commits + 1, appends=done.appends + len(taken))
                self._deliver(outcome.results)
            case Defective() if len(taken) == 1:
                self._suspects = 0
                await self._refuse(_refused(taken[0].append, outcome.reason))
            case Defective():
                self._suspects = len(taken)
                self._queue.extendleft(record.append for record in reversed(taken))
            case ShardsLost():
                refused = sum(record.append.shard in outcome.shards for record in taken)
                self.figures = self.figures._replace(refused=self.figures.refused + refused)
                _logger.warning("the database has refused what another node may write only", extra={"appends_refused": refused})
                self._queue.extendleft(record.append for record in reversed(taken))
                self.give_up(outcome.shards, outcome.reason)
            case Lost():
                self._lose(outcome.reason)
            case Unavailable():
                assert self._is_closing
            case _:
                assert_never(outcome)

    def _take(self) -> list[Record] | Refused:
        """The next batch, encoded. One that cannot be encoded is refused when its turn comes.

        While there are suspects, appends of which one made a database transaction fail, half of them at most: so the culprit is found in
        a number of database transactions that grows with the logarithm of the batch (R28).
        """
        appends_max = max(1, self._suspects // 2) if self._suspects else BATCH_APPENDS_MAX
        records: list[Record] = []
        size = 0
        while self._queue and len(records) < appends_max:
            try:
                record = record_of(self._queue[0])
            except (ValueError, TypeError, OverflowError) as error:
                if not records:
                    return _refused(self._queue.popleft(), str(error))
                break
            size += record.payload_bytes
            if records and size > BATCH_BYTES_MAX:
                break
            self._queue.popleft()
            records.append(record)
        return records

    async def _until_settled(self, write: Callable[[], ResultT]) -> ResultT:
        """Tries for ever, while the database is away. `Unavailable` is only returned when the journal is closing."""
        delay_us = RETRY_DELAY_MIN_US
        while True:
            began_at = self._try_began_at = self._clock.now()
            try:
                outcome = await self._host.run(write)
            finally:
                self._try_began_at = None
            if not isinstance(outcome, Unavailable):
                self._note_success()
                return outcome
            self._note_failure(outcome, began_at)
            if self._is_closing:
                return outcome
            self._alarm.clear()
            await pause(self._clock, delay_us, self._alarm)
            delay_us = min(2 * delay_us, RETRY_DELAY_MAX_US)

    # ── Results ─────────────────────────────────────────────────────────────────────────────────────────────────────────────────

    def _deliver(self, results: Sequence[Appended]) -> None:
        assert self._listener is not None
        verdicts = verdicts_of(results)
        if verdicts:
            going_on, fallen = doom(self._queue, verdicts)
            self._queue = deque(going_on)
            results = (*results, *fallen)
        self._listener.appended(results)

    async def _refuse(self, refused: Refused) -> None:
        """Sets the saga aside, then says so. A start that is refused has no saga that could be set aside."""
        append = refused.append
        _logger.error("append refused", extra={"saga.id": append.saga_id, "reason": refused.failure.message})
        if append.start is None:
            set_aside = partial(side_writes.quarantine, saga_id=append.saga_id, failure=refused.failure, now=append.events[-1].occurred_at)
            outcome = await self._until_settled(partial(self._writer.run, set_aside))
            match outcome:
                case Lost():
                    self._lose(outcome.reason)
                    return
                case Unavailable():
                    return
                case Defective():
                    _logger.error("saga not set aside", extra={"saga.id": append.saga_id, "reason": outcome.reason})
                case bool():
                    pass
                case _:
                    assert_never(outcome)
        self._deliver((refused,))

    async def _write_side(self, side_write: _SideWrite) -> None:
        if side_write.is_repeated:
            outcome = await self._until_settled(side_write.run)
        else:
            outcome = await self._host.run(side_write.run)
        match outcome:
            case None:
                side_write.settle()
            case Unavailable() | Defective():
                side_write.fail(JournalUnavailableError(f"the database cannot be written now: {outcome.reason}"))
            case Lost():
                side_write.fail(JournalUnavailableError(outcome.reason))
                self._lose(outcome.reason)
            case _:
                assert_never(outcome)

    # ── Trouble ─────────────────────────────────────────────────────────────────────────────────────────────────────────────────

    def _note_failure(self, outcome: Unavailable, began_at: Instant) -> None:
        """Once per change of condition, not per try: a database that is away for a night must not fill the disk with lines."""
        if self._failing_since is None:
            self._failing_since = began_at
        if outcome.condition != self._condition:
            self._condition = outcome.condition
            _logger.warning(
                "the database cannot be written; trying again", extra={"condition": outcome.condition, "reason": outcome.reason}
            )
        self._fail_side_writes(JournalUnavailableError(f"the database cannot be written now: {outcome.reason}"), repeated_too=False)

    def _note_success(self) -> None:
        if self._failing_since is not None:
            stalled_s = (self._clock.now() - self._failing_since) / MICROS_PER_SECOND
            _logger.warning("the database can be written again", extra={"condition": self._condition, "stalled_s": stalled_s})
            self._failing_since = None
            self._condition = ""

    def _fail_side_writes(self, error: Exception, *, repeated_too: bool) -> None:
        kept = deque[_SideWrite]()
        for side_write in self._side_writes:
            if side_write.is_repeated and not repeated_too:
                kept.append(side_write)
            else:
                side_write.fail(error)
        self._side_writes = kept

    def _lose(self, reason: str) -> None:
        """Nothing further is committed or announced by this process (R26, R32)."""
        _logger.critical("the journal is lost", extra={"reason": reason})
        self._lost = Failure(Code.INTERNAL, reason)
        self._queue.clear()
        self._fail_side_writes(JournalUnavailableError(reason), repeated_too=True)
        if self._listener is not None:
            try:
                self._listener.lost(self._lost)
            except Exception:  # there is nobody left to tell
                _logger.exception("the listener did not take the news")


def _refused(append: Append, reason: str) -> Refused:
    return Refused(append=append, failure=Failure(Code.INTERNAL, f"cannot be written to the journal: {reason}"))


def _side_write(writer: Writer, write: Write[ResultT], answer: asyncio.Future[ResultT], after: int, *, is_repeated: bool) -> _SideWrite:
    results: list[ResultT] = []

    def run() -> Defective | Unavailable | Lost | None:
        outcome = writer.run(write)
        if isinstance(outcome, Defective | Unavailable | Lost):
            return outcome
        results.append(outcome)
        return None

    def settle() -> None:
        if not answer.done():  # the caller may have gone
            answer.set_result(results[-1])

    def fail(error: Exception) -> None:
        if not answer.done():
            answer.set_exception(error)

    return _SideWrite(run=run, settle=settle, fail=fail, after=after, is_repeated=is_repeated)
