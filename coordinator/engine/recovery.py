"""Takes up every saga that an earlier process, or another node, left unfinished. Nobody has to ask for it (P1)."""

import asyncio
import logging
from functools import partial
from typing import Final

from coordinator.core.values import MICROS_PER_SECOND, Instant, SagaId
from coordinator.engine.engine import Engine
from coordinator.engine.ports import Clock, JournalUnavailableError
from coordinator.engine.reviver import Reviver
from coordinator.engine.shards import Shards
from coordinator.engine.sleepers import Sleepers

RETRY_DELAY_US: Final = MICROS_PER_SECOND // 2
"""Before a shard is read again that could not be."""
HOLDING_US_MAX: Final = 3 * MICROS_PER_SECOND
"""How long the first sagas of a start wait for the last ones to be in memory before they go on, at most. Those that go on take the
processor from those that are still to be read: without it the last of 10,000 moved again after 10.4 instead of 6.8 s."""

_logger = logging.getLogger(__name__)


class Takeover:
    """Takes up the sagas of each shard that this process comes to hold, and opens the shard for new ones."""

    def __init__(self, *, clock: Clock, engine: Engine, reviver: Reviver, sleepers: Sleepers, shards: Shards) -> None:
        self._clock = clock
        self._engine = engine
        self._reviver = reviver
        self._sleepers = sleepers
        self._shards = shards
        self._taken: asyncio.Queue[int | tuple[SagaId, ...]] = asyncio.Queue()
        """Shards, and sagas of them that were passed over."""

    async def begin(self) -> int:
        """Takes up what is held from the beginning; returns how many sagas. Raises JournalUnavailableError."""
        self._shards.follow(self._note)
        let_go = partial(self._engine.hold_calls, is_holding=False)
        self._engine.hold_calls(is_holding=True)
        cancel = self._clock.call_at(Instant(self._clock.now() + HOLDING_US_MAX), let_go)
        recovered = 0
        try:
            while not self._taken.empty():
                recovered += await self._take_up(self._taken.get_nowait())
        finally:
            cancel()
            let_go()
        return recovered

    async def run(self) -> None:
        """Takes up what is taken later. Runs until it is cancelled."""
        while True:
            taken = await self._taken.get()
            try:
                recovered = await self._take_up(taken)
            except JournalUnavailableError as error:
                _logger.warning("a shard cannot be taken up now; trying again", extra={"shard": taken, "reason": str(error)})
            except Exception:  # a defect: the sagas of this shard wait, all others go on (P5)
                _logger.exception("a shard cannot be taken up; trying again", extra={"shard": taken})
            else:
                if isinstance(taken, int):
                    _logger.info("shard taken up", extra={"shard": taken, "recovered_sagas": recovered})
                continue
            self._look_again_at(taken)

    def _note(self, taken: frozenset[int]) -> None:
        for shard in sorted(taken):
            self._taken.put_nowait(shard)

    async def _take_up(self, taken: int | tuple[SagaId, ...]) -> int:
        """How many sagas it took up."""
        await self._engine.held.abandoned.until_settled()  # what it wrote when it held the shard before must be in before that is read
        if not isinstance(taken, int):
            still = await self._reviver.revive_passed_over(taken)
            self._look_again_at(still)
            return len(taken) - len(still)
        if not self._shards.holds(taken):
            return 0  # another node holds it by now
        recovered, passed_over = await self._reviver.revive_awake(taken)
        self._look_again_at(passed_over)
        self._sleepers.follow(taken)
        self._shards.open(taken)
        return recovered

    def _look_again_at(self, taken: int | tuple[SagaId, ...]) -> None:
        if taken != ():
            self._clock.call_at(Instant(self._clock.now() + RETRY_DELAY_US), partial(self._taken.put_nowait, taken))
