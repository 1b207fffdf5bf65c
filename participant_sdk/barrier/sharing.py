"""Calls that wait at the same moment share one database transaction: what a commit costs is paid once for all of them.

While one group is under way the next one gathers; nobody ever waits for company. EACH CALL HAS A SAVEPOINT OF ITS OWN, AND NO ANSWER
IS GIVEN BEFORE THE COMMIT. If the database transaction of a group comes to nothing, each of its calls is done again by itself; if its
COMMIT is in doubt, each reads its own row again (R26).
"""

import asyncio
import contextvars
import logging
import time
from collections import deque
from collections.abc import Awaitable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from participant_sdk.barrier import transitions
from participant_sdk.barrier.savepoint_unit import SharedKey
from participant_sdk.barrier.sql_store import AnyEngine, Database, SqlStore
from participant_sdk.barrier.store import AnswerT, BarrierUnit, CommitInDoubtError, Flow, LockWaitError, StoreBusyError
from participant_sdk.barrier.verdict import BarrierRow, CompensateCall, ExecuteCall, StepIdentity
from participant_sdk.shielding import outlast

logger = logging.getLogger(__name__)

GROUP_LOCK_WAIT_S: Final = 0.5
"""How long a group waits for keys that others hold; then each call waits by itself, as long as it may."""
GROUP_TIME_S: Final = 1.0
"""After this no further call of a group begins: those that are done must not wait longer for their commit."""


class SharingStore:
    """Implements `BarrierStore` by another one, in whose database transactions calls are put together."""

    def __init__(self, inner: SqlStore, calls_per_commit: int) -> None:
        self._inner = inner
        self._lanes = {engine: _Lane(inner, engine, calls_per_commit) for engine in inner.databases}

    @property
    def is_blocking(self) -> bool:
        return self._inner.is_blocking

    def unit(self, step: StepIdentity) -> AbstractAsyncContextManager[BarrierUnit]:
        return self._inner.unit(step)

    async def run(self, call: ExecuteCall | CompensateCall, flow: Flow[AnswerT], *, wait_s: float, now_us: int) -> AnswerT:
        answer: AnswerT
        try:
            answer = await self._lanes[self._inner.engine_for(call.step)].join(_Member(call, flow, wait_s=wait_s, now_us=now_us))
        except _NotTogetherError:
            answer = await self._inner.run(call, flow, wait_s=wait_s, now_us=now_us)
        return answer

    async def check(self) -> None:
        await self._inner.check()

    async def delete_before(self, created_before_us: int, limit: int) -> int:
        return await self._inner.delete_before(created_before_us, limit)


@dataclass(frozen=True, slots=True)
class _Answer:
    value: Any


class _NotTogetherError(Exception):
    """Nothing has come of the call in its group: it is to be done by itself."""


class _Member:
    """One call that waits for its group, or is in it."""

    def __init__(self, call: ExecuteCall | CompensateCall, flow: Flow[Any], *, wait_s: float, now_us: int) -> None:
        self.call: Final = call
        self.flow: Final = flow
        self.wait_s: Final = wait_s
        self.now_us: Final = now_us
        self.context: Final = contextvars.copy_context()
        self.answer: Final[asyncio.Future[Any]] = asyncio.get_running_loop().create_future()
        self.has_begun = False
        self.ended: _Answer | Exception | None = None
        """What has become of it; None until it was done."""

    def forsake(self) -> None:
        """Nobody waits for it any more. What has begun runs to its end."""
        if not self.has_begun:
            self.answer.cancel()

    def give_up(self) -> None:
        """It has waited as long as it may."""
        if not self.has_begun and not self.answer.done():
            self.answer.set_exception(LockWaitError(f"the call of key {self.call.key} did not get its turn within {self.wait_s} s"))

    def fresh_row(self) -> BarrierRow:
        """What holds the place of a key that was never seen."""
        call, now_us = self.call, self.now_us
        return transitions.fresh_execution(call, now_us) if isinstance(call, ExecuteCall) else transitions.fresh_compensation(call, now_us)


class _Lane:
    """The calls for one database, group after group."""

    def __init__(self, store: SqlStore, engine: AnyEngine, calls_max: int) -> None:
        self._store = store
        self._engine = engine
        self._calls_max = calls_max
        self._waiting: deque[_Member] = deque()
        """Calls not begun. The server's limit of calls bounds it."""
        self._running: asyncio.Task[None] | None = None
        self._is_busy = False
        """Whether a group is under way, so that others wait."""

    async def join(self, member: _Member) -> Any:
        """Has a call done together with the others that wait now. Raises LockWaitError, _NotTogetherError, and what its flow raises."""
        loop = asyncio.get_running_loop()
        self._waiting.append(member)
        if self._running is None:
            self._running = loop.create_task(self._run())
        if not self._is_busy and len(self._waiting) <= self._calls_max:
            return await outlast(member.answer, when_cancelled=member.forsake)  # It begins at once, so its wait needs no timer.
        waiting = loop.call_later(member.wait_s, member.give_up)
        try:
            return await outlast(member.answer, when_cancelled=member.forsake)
        finally:
            waiting.cancel()

    async def _run(self) -> None:
        try:
            while group := self._next_group():
                self._is_busy = True
                await self._answer(group)
        finally:
            self._running, self._is_busy = None, False

    def _next_group(self) -> list[_Member]:
        """The next calls, each of another key: two of one key come one after the other, and the second sees the first committed."""
        group: dict[str, _Member] = {}
        later: list[_Member] = []
        while self._waiting and len(group) < self._calls_max:
            member = self._waiting.popleft()
            if member.call.key in group:
                later.append(member)
            elif not member.answer.done():
                group[member.call.key] = member
        self._waiting.extendleft(reversed(later))
        return [*group.values()]

    async def _answer(self, group: list[_Member]) -> None:
        for member in group:
            member.has_begun = True
        try:
            if len(group) == 1:
                (alone,) = group
                work = self._store.run(alone.call, alone.flow, wait_s=alone.wait_s, now_us=alone.now_us)
                alone.ended = await asyncio.get_running_loop().create_task(_ended(work), context=alone.context)
            else:
                await self._store.run_on(self._engine, lambda database: _run_together(database, group))
        except CommitInDoubtError as error:
            for member in group:
                member.ended = error
        except Exception as error:
            logger.debug("the database transaction of %d calls came to nothing: %s", len(group), error)
            for member in group:
                member.ended = _NotTogetherError()
        except BaseException:
            # Cut short, as by the end of the event loop: how a call ended within its group is not true before the commit.
            for member in group:
                member.answer.cancel()
            raise
        self._tell(group)

    def _tell(self, group: list[_Member]) -> None:
        for member in reversed(group):
            match member.ended:
                case None:  # Its time in this group was over before its turn came.
                    member.has_begun = False
                    self._waiting.appendleft(member)
                case _Answer(value=value):
                    member.answer.set_result(value)
                case error:
                    member.answer.set_exception(error)


async def _run_together(database: Database, group: list[_Member]) -> None:
    """One database transaction for all of them. How each has ended is true once this returns."""
    async with database.unit() as whole:
        rows = await whole.lock_rows([member.fresh_row() for member in group], GROUP_LOCK_WAIT_S)
        until_s = time.monotonic() + GROUP_TIME_S  # From here on, so that at least one begins.
        changed: list[BarrierRow] = []
        unused: list[str] = []
        for number, member in enumerate(group):
            shared = SharedKey(database.access, whole, rows.get(member.call.key), number)
            if time.monotonic() < until_s:
                member.ended = await database.access.within(member.context, partial(_ended, member.flow(shared)))
            if whole.is_broken or isinstance(member.ended, StoreBusyError):
                raise StoreBusyError(f"{member.call.action} has ended the database transaction that it shared: {member.ended}")
            if shared.is_changed and shared.row is not None:
                changed.append(shared.row)
            elif shared.row is None:
                unused.append(member.call.key)
        await whole.put_rows(changed, without=unused)
        # NO ANSWER IS GIVEN BEFORE THIS.
        await whole.commit()


async def _ended(work: Awaitable[Any]) -> "_Answer | Exception":
    """How the flow of one call ends. The others go on, whatever it raises."""
    try:
        return _Answer(await work)
    except Exception as error:
        return error
