"""Wakes sagas that sleep: they are in the journal only, and are taken up again a little before they move."""

import asyncio
import logging
from dataclasses import dataclass
from typing import Final

from coordinator.core.values import MICROS_PER_SECOND, Instant
from coordinator.engine.engine import Engine
from coordinator.engine.pause import pause
from coordinator.engine.ports import Clock, Journal, JournalUnavailableError
from coordinator.engine.reviver import Reviver
from coordinator.engine.shards import Shards
from coordinator.engine.slot import HORIZON_US, NEVER

AHEAD_US: Final = HORIZON_US // 2
"""So long before a saga moves it is looked for. Those that move soon after it are taken up with it, up to a horizon from then."""
RETRY_DELAY_US: Final = 5 * MICROS_PER_SECOND
"""Before it is looked again where that was not possible."""
PAGE_SAGAS: Final = 100
"""Sagas read at once: so many are rebuilt before others get their turn."""

_logger = logging.getLogger(__name__)


@dataclass(slots=True)
class _Look:
    """At the sleepers of a shard, from when it was taken until it is given up."""

    until: Instant
    """Whoever sleeps until an earlier instant has been woken. Nobody is put to sleep for less than a horizon, so nobody comes in there."""


class Sleepers:
    """Of the shards that are held. While nobody sleeps, nothing is done."""

    def __init__(self, *, clock: Clock, engine: Engine, journal: Journal, reviver: Reviver, shards: Shards) -> None:
        self._clock = clock
        self._held = engine.held
        self._journal = journal
        self._reviver = reviver
        self._shards = shards
        self._looks: dict[int, _Look] = {}
        self._next_look_at = NEVER
        self._alarm = asyncio.Event()
        engine.held.on_leave = self._note

    def follow(self, shard: int) -> None:
        """The shard has been taken: its sleepers are woken from now on, first those that should be awake already."""
        self._looks[shard] = _Look(Instant(0))
        self._look_by(Instant(0))

    async def run(self) -> None:
        """Looks again and again. Runs until it is cancelled."""
        while True:
            await self._until_next_look()
            self._next_look_at = NEVER
            for shard, look in tuple(self._looks.items()):
                self._look_by(await self._look_again(shard, look))

    def _note(self, asleep_until: Instant) -> None:
        self._look_by(Instant(asleep_until - AHEAD_US))

    def _look_by(self, instant: Instant) -> None:
        if instant < self._next_look_at:
            self._next_look_at = instant
            self._alarm.set()

    async def _until_next_look(self) -> None:
        while (left_us := self._next_look_at - self._clock.now()) > 0:
            self._alarm.clear()
            if self._next_look_at == NEVER:
                await self._alarm.wait()
            else:
                await pause(self._clock, left_us, self._alarm)

    async def _look_again(self, shard: int, look: _Look) -> Instant:
        """Wakes who is to be woken; returns when to look again."""
        try:
            return await self._wake(shard, look)
        except JournalUnavailableError as error:
            _logger.warning("sleeping sagas cannot be looked for now", extra={"shard": shard, "reason": str(error)})
        except Exception:  # a defect: those that are awake go on (P5)
            _logger.exception("sleeping sagas cannot be woken; trying again", extra={"shard": shard})
        return Instant(self._clock.now() + RETRY_DELAY_US)

    async def _wake(self, shard: int, look: _Look) -> Instant:
        until, after = Instant(self._clock.now() + HORIZON_US), None
        while self._shards.holds(shard):
            if self._held.is_full:
                _logger.warning("sagas sleep on, since too many are under way", extra={"live_sagas": len(self._held)})
                return Instant(self._clock.now() + RETRY_DELAY_US)
            page = await self._journal.find_asleep(look.until, until, after, PAGE_SAGAS, shard=shard)
            await self._reviver.revive_asleep([saga_id for _, saga_id in page if saga_id not in self._held])
            if len(page) < PAGE_SAGAS:
                look.until = until
                next_one = await self._journal.find_asleep(until, NEVER, None, 1, shard=shard)
                return Instant(next_one[0][0] - AHEAD_US) if next_one else NEVER
            after = page[-1]
            look.until = after[0]
        if self._looks.get(shard) is look:  # else it was given up and taken again meanwhile
            del self._looks[shard]
        return NEVER
