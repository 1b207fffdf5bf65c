"""Forgetting old keys while a participant serves."""

import asyncio
import logging
import random
from typing import Final

from opentelemetry import metrics

from participant_sdk.barrier.barrier import Barrier
from participant_sdk.barrier.store import CommitInDoubtError, StoreBusyError, StoreUnavailableError

logger = logging.getLogger(__name__)

INTERVAL_S: Final = 600.0
"""Between two rounds, drawn from [1/2, 1] of it so that replicas do not all come at once."""
BATCH_ROWS: Final = 500
"""Rows per database transaction: small enough to hold no lock for long."""
BATCHES_MAX: Final = 1_000
"""Batches per round at most."""


async def forget_expired_keys(barrier: Barrier) -> None:
    """Deletes expired keys from time to time, until cancelled. A database that is away is tried again in the next round."""
    while True:
        try:
            forgotten = await forget_once(barrier)
        except (StoreBusyError, StoreUnavailableError, CommitInDoubtError) as error:
            logger.warning("expired keys stay until the next round: %s", error)
        else:
            if forgotten:
                logger.info("forgot %d expired keys", forgotten)
        await asyncio.sleep(random.uniform(INTERVAL_S / 2, INTERVAL_S))  # noqa: S311 - spreads load, hides nothing


async def forget_once(barrier: Barrier) -> int:
    """One round; returns how many keys were forgotten."""
    total = 0
    deleted = metrics.get_meter("participant_sdk").create_counter("saga.barrier.deleted", "{key}", "Expired keys that were forgotten.")
    for _ in range(BATCHES_MAX):
        forgotten = await barrier.delete_expired(BATCH_ROWS)
        total += forgotten
        deleted.add(forgotten)
        if forgotten < BATCH_ROWS:
            break
    return total
