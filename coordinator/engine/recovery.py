"""Takes up every saga that an earlier process, or another node, left unfinished. Nobody has to ask for it (P1)."""

import asyncio
import logging
from functools import partial
from typing import Final

from coordinator.core.errors import CorruptJournalError
from coordinator.core.record import replay
from coordinator.core.values import MICROS_PER_SECOND, Code, Failure, Instant, SagaId
from coordinator.engine.engine import Engine
from coordinator.engine.ports import Clock, Journal, JournalUnavailableError, Plans, StoredSaga
from coordinator.engine.shards import Shards

PAGE_SAGAS: Final = 500
"""Sagas read at once."""
RETRY_DELAY_US: Final = MICROS_PER_SECOND // 2
"""Before a shard is read again that could not be."""

_logger = logging.getLogger(__name__)


class Takeover:
    """Takes up the sagas of each shard that this process comes to hold, and opens the shard for new ones."""

    def __init__(self, *, clock: Clock, engine: Engine, journal: Journal, plans: Plans, shards: Shards) -> None:
        self._clock = clock
        self._engine = engine
        self._journal = journal
        self._plans = plans
        self._shards = shards
        self._taken: asyncio.Queue[int] = asyncio.Queue()

    async def begin(self) -> int:
        """Takes up what is held from the beginning; returns how many sagas. Raises JournalUnavailableError."""
        self._shards.follow(self._note)
        recovered = 0
        while not self._taken.empty():
            recovered += await self._take_up(self._taken.get_nowait())
        return recovered

    async def run(self) -> None:
        """Takes up what is taken later. Runs until it is cancelled."""
        while True:
            shard = await self._taken.get()
            try:
                recovered = await self._take_up(shard)
            except JournalUnavailableError as error:
                _logger.warning("a shard cannot be taken up now; trying again", extra={"shard": shard, "reason": str(error)})
                self._clock.call_at(Instant(self._clock.now() + RETRY_DELAY_US), partial(self._taken.put_nowait, shard))
            else:
                _logger.info("shard taken up", extra={"shard": shard, "recovered_sagas": recovered})

    def _note(self, taken: frozenset[int]) -> None:
        for shard in sorted(taken):
            self._taken.put_nowait(shard)

    async def _take_up(self, shard: int) -> int:
        await self._engine.abandoned.until_settled()  # what it wrote when it held the shard before must be in before that is read
        recovered = await recover_unfinished(self._engine, self._journal, self._plans, shard)
        self._shards.open(shard)
        return recovered


async def recover_unfinished(engine: Engine, journal: Journal, plans: Plans, shard: int = 0) -> int:
    """Hands every unfinished saga of a shard to the engine; returns how many. A saga that cannot be rebuilt is quarantined and stops
    nobody (P5).

    Raises JournalUnavailableError if the journal cannot be read.
    """
    recovered = 0
    after: SagaId | None = None
    while page := await journal.load_unfinished(after, PAGE_SAGAS, shard=shard):
        for saga in page:
            recovered += await _take_up(engine, journal, plans, saga)
        after = page[-1].saga_id
    return recovered


async def _take_up(engine: Engine, journal: Journal, plans: Plans, saga: StoredSaga) -> bool:
    failure = saga.quarantined
    if failure is None:
        try:
            plan = await plans.plan_of(saga.definition)
            engine.recover(plan, replay(plan, saga.saga_id, saga.events), saga.fingerprint, saga.shard)
        except (KeyError, ValueError, CorruptJournalError) as error:
            failure = Failure(Code.INTERNAL, f"cannot be rebuilt from its journal: {type(error).__name__}: {error}")
    if failure is not None:
        _logger.error("saga quarantined", extra={"saga.id": saga.saga_id, "reason": failure.message})
        await journal.quarantine(saga.saga_id, failure)
    return failure is None
