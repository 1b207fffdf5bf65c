"""Brings sagas from the journal back into memory."""

import logging
from collections.abc import Sequence
from functools import partial
from typing import Final

from coordinator.core.errors import CorruptJournalError
from coordinator.core.record import replay
from coordinator.core.values import Code, Failure, SagaId
from coordinator.engine.engine import Engine
from coordinator.engine.ports import Journal, Plans, StoredSaga

PAGE_SAGAS: Final = 500
"""Sagas read at once."""

_logger = logging.getLogger(__name__)


class Reviver:
    """Hands sagas to the engine as the journal has them. One that cannot be rebuilt is quarantined and stops nobody (P5)."""

    def __init__(self, engine: Engine, journal: Journal, plans: Plans) -> None:
        self._engine = engine
        self._journal = journal
        self._plans = plans

    async def revive_awake(self, shard: int = 0) -> int:
        """All of a shard that can move and do not sleep; returns how many. Raises JournalUnavailableError."""
        revived = 0
        after: SagaId | None = None
        while page := await self._journal.load_awake(after, PAGE_SAGAS, shard=shard):
            for saga in page:
                revived += await self._revive(saga)
            after = page[-1].saga_id
        return revived

    async def revive_asleep(self, ids: Sequence[SagaId]) -> None:
        """Some that slept. A command may take them up at the same time: what has moved since it was read is left alone. Raises
        JournalUnavailableError."""
        moved: set[SagaId] = set()
        forget = [self._engine.subscribe(saga_id, partial(moved.add, saga_id)) for saga_id in ids]
        try:
            for saga in await self._journal.load(ids):
                if saga.saga_id not in moved and saga.asleep_until is not None:
                    await self._revive(saga)
        finally:
            for unsubscribe in forget:
                unsubscribe()

    async def _revive(self, saga: StoredSaga) -> bool:
        try:
            plan = await self._plans.plan_of(saga.definition)
            self._engine.take_up(plan, replay(plan, saga.saga_id, saga.events), saga)
        except (KeyError, ValueError, CorruptJournalError) as error:
            failure = Failure(Code.INTERNAL, f"cannot be rebuilt from its journal: {type(error).__name__}: {error}")
            _logger.exception("saga quarantined", extra={"saga.id": saga.saga_id, "reason": failure.message})
            await self._journal.quarantine(saga.saga_id, failure)
            return False
        return True
