"""Takes up, at start, every saga that an earlier process left unfinished. Nobody has to ask for it (P1)."""

import logging
from typing import Final

from coordinator.core.errors import CorruptJournalError
from coordinator.core.record import replay
from coordinator.core.values import Code, Failure, SagaId
from coordinator.engine.engine import Engine
from coordinator.engine.ports import Journal, Plans, StoredSaga

PAGE_SAGAS: Final = 500
"""Sagas read at once."""

_logger = logging.getLogger(__name__)


async def recover_unfinished(engine: Engine, journal: Journal, plans: Plans) -> int:
    """Hands every unfinished saga to the engine; returns how many. A saga that cannot be rebuilt is quarantined and stops nobody (P5).

    Raises JournalUnavailableError if the journal cannot be read.
    """
    recovered = 0
    after: SagaId | None = None
    while page := await journal.load_unfinished(after, PAGE_SAGAS):
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
