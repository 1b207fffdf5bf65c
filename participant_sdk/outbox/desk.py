"""The rows of one kind that a relay has in hand: taken, under way, and what became of them, until that is written down."""

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Sequence
from itertools import groupby
from typing import Final

from participant_sdk.clock import micros_of
from participant_sdk.outbox.couriers import Broken, Courier, Delivered, Delivery, Refused, Unavailable
from participant_sdk.outbox.metrics import RelayMetrics
from participant_sdk.outbox.policy import RelayPolicy
from participant_sdk.outbox.store import GivenUp, OutboxStore, Published, PutBack, RowOutcome, TakenRow, TryLater

logger = logging.getLogger(__name__)

OUTAGE_POLLS: Final = 30
"""While nobody can be reached, one row is tried after this many of the longest pauses between two looks, at the latest."""


class Desk:
    """Takes rows, has them delivered, and keeps what came of it. Every method belongs to the relay's loop; runs tell it when they move."""

    def __init__(self, courier: Courier, policy: RelayPolicy, metrics: RelayMetrics, moved: Callable[[], None]) -> None:
        """`moved`: called when there is something to write down, or room."""
        self.kind: Final = courier.kind
        self._courier = courier
        self._policy = policy
        self._metrics = metrics
        self._moved = moved
        self._slots = asyncio.Semaphore(policy.concurrency)
        self._outcomes: deque[RowOutcome] = deque()
        self._in_hand = 0
        """Rows taken, whose outcome is not written down."""
        self._looks = 0
        """How often in a row nothing was due."""
        self._outages = 0
        """How often in a row nobody could be reached."""
        self._look_at_s = 0.0
        """When to look again, by the clock of the event loop."""
        self._is_stopping = False

    @property
    def is_empty(self) -> bool:
        """Whether nothing is in hand."""
        return self._in_hand == 0

    def stop(self) -> None:
        """What has not begun is put back; what is under way comes to its end."""
        self._is_stopping = True

    def look_soon(self) -> None:
        """Something was committed. Not while nobody can be reached."""
        if not self._outages:
            self._look_at_s = 0.0

    def pause_s(self) -> float:
        """How long there is nothing to do, unless something moves."""
        return max(self._look_at_s - asyncio.get_running_loop().time(), 0.0) if self._has_room else self._policy.poll_max.total_seconds()

    def take_outcomes(self) -> Sequence[RowOutcome]:
        """What became of rows, to be written down; then call `forget` or `keep`."""
        outcomes = [*self._outcomes]
        self._outcomes.clear()
        return outcomes

    def keep(self, outcomes: Sequence[RowOutcome]) -> None:
        """They could not be written down; they are taken again later."""
        self._outcomes.extendleft(reversed(outcomes))

    def forget(self, outcomes: Sequence[RowOutcome]) -> None:
        """They are written down."""
        self._in_hand -= len(outcomes)

    async def look(self, store: OutboxStore, runs: asyncio.TaskGroup) -> int:
        """Takes rows that are due, if it is time to and there is room, and has them delivered. Returns how many."""
        loop = asyncio.get_running_loop()
        if self._is_stopping or not self._has_room or loop.time() < self._look_at_s:
            return 0
        limit = 1 if self._outages else self._policy.rows_max - self._in_hand
        lease_us = micros_of(self._policy.lease)
        # From before the lease begins, so that it ends here first.
        begun_at_s = loop.time()
        taken = await store.take(self.kind, limit=limit, lease_us=lease_us)
        self._in_hand += len(taken.rows)
        for rows in _by_lane(taken.rows):
            runs.create_task(self._run(rows, taken.token, begun_at_s + lease_us / 1e6, self._outages))
        self._note_look(found=bool(taken.rows), is_window_full=taken.is_window_full)
        return len(taken.rows)

    @property
    def _has_room(self) -> bool:
        return self._in_hand <= (0 if self._outages else self._policy.rows_max // 2)

    def _note_look(self, *, found: bool, is_window_full: bool) -> None:
        if found:
            self._looks = 0
        elif not is_window_full:  # Else there may be more behind what may not be taken, which is held back by now.
            self._look_at_s = asyncio.get_running_loop().time() + self._policy.poll_s(self._looks)
            self._looks += 1

    async def _run(self, rows: Sequence[TakenRow], token: str, leased_until_s: float, outages: int) -> None:
        """Delivers rows of one lane, one after the other. THE FIRST THAT DOES NOT GET THROUGH STOPS THOSE BEHIND IT.

        `outages`: as many as there were when they were taken. With one more, those that have not begun are put back.
        """
        async with self._slots:
            for number, row in enumerate(rows):
                if self._is_stopping or self._outages > outages or not self._has_time(leased_until_s):
                    self._put_back(rows[number:], token, 0)
                    break
                delivery = await self._deliver(row)
                delay_us = self._note(row, token, delivery)
                self._moved()
                if delay_us is not None:
                    self._put_back(rows[number + 1 :], token, delay_us)
                    break
        self._moved()

    def _has_time(self, leased_until_s: float) -> bool:
        return asyncio.get_running_loop().time() + self._policy.publish_time_limit.total_seconds() < leased_until_s

    async def _deliver(self, row: TakenRow) -> Delivery:
        if row.attempts > self._policy.attempts_max:
            return Refused(why=f"{row.attempts - 1} relays ended, or were too slow, while they had it")
        return await self._courier.deliver(row, self._policy.publish_time_limit)

    def _note(self, row: TakenRow, token: str, delivery: Delivery) -> int | None:
        """Keeps what came of it; returns how long the rows behind it wait, None if they need not."""
        match delivery:
            case Delivered():
                self._outages = 0
                self._metrics.count(self.kind, published=1)
                self._outcomes.append(Published(position=row.position))
                return None
            case Unavailable(why=why):
                return self._note_outage(row, token, why)
            case Broken(why=why) if row.attempts < self._policy.attempts_max:
                self._outages = 0
                delay_us = self._policy.backoff_us(row.attempts)
                self._metrics.count(self.kind, retried=1)
                logger.info("%s %s is tried again in %.1f s: %s", self.kind, row.id, delay_us / 1e6, why)
                self._outcomes.append(TryLater(position=row.position, token=token, delay_us=delay_us, error=why))
                return delay_us
            case Refused(why=why) | Broken(why=why):
                self._outages = 0
                self._metrics.count(self.kind, failed=1)
                logger.error("%s %s for %s is given up after %d tries: %s", self.kind, row.id, row.topic, row.attempts, why)
                self._outcomes.append(GivenUp(position=row.position, token=token, error=why))
                return 0  # Those behind it are held back by what the row says now.

    def _note_outage(self, row: TakenRow, token: str, why: str) -> int:
        loop = asyncio.get_running_loop()
        if loop.time() >= self._look_at_s or not self._outages:  # Once for all that were under way together.
            self._outages += 1
            pause_s = self._policy.backoff_us(self._outages) / 1e6
            self._look_at_s = loop.time() + min(pause_s, self._policy.poll_max.total_seconds() * OUTAGE_POLLS)
            logger.warning("%s rows wait, nobody can be reached: %s", self.kind, why)
        self._put_back([row], token, 0)
        return 0

    def _put_back(self, rows: Sequence[TakenRow], token: str, delay_us: int) -> None:
        self._outcomes.extend(PutBack(position=row.position, token=token, delay_us=delay_us) for row in rows)


def _by_lane(rows: Sequence[TakenRow]) -> list[Sequence[TakenRow]]:
    """Rows of one lane together, by position; those without a lane by themselves."""
    alone: list[Sequence[TakenRow]] = [[row] for row in rows if row.lane is None]
    laned = sorted((row for row in rows if row.lane is not None), key=lambda row: (row.lane or 0, row.position))
    return [*alone, *([*run] for _, run in groupby(laned, key=lambda row: row.lane))]
