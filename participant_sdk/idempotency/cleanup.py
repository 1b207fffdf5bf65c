"""Forgetting old keys while a service serves."""

import asyncio
import logging
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Final

from opentelemetry import metrics

from participant_sdk.idempotency.errors import IdempotencySetupError, IdempotencyStoreBusyError, IdempotencyStoreUnavailableError
from participant_sdk.idempotency.store import IdempotencyStore
from participant_sdk.shielding import finish

logger = logging.getLogger(__name__)

INTERVAL_DEFAULT: Final = timedelta(minutes=10)
BATCH_ROWS: Final = 500
"""Keys per database transaction: few enough to hold no lock for long."""
BATCHES_MAX: Final = 1_000
"""Batches per round at most."""


@asynccontextmanager
async def forgetting_expired_keys(store: IdempotencyStore, *, interval: timedelta = INTERVAL_DEFAULT) -> AsyncIterator[None]:
    """Forgets expired keys in rounds as long as the context lasts. One process of several is enough, and all of them do no harm.

    `interval`: between two rounds, drawn from [1/2, 1] of it so that processes do not all come at once.
    """
    task = asyncio.get_running_loop().create_task(_forget_in_rounds(store, interval.total_seconds()), name="idempotency clean-up")
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait({task})


async def forget_expired_keys_once(store: IdempotencyStore) -> int:
    """One round; returns how many keys were forgotten. For services that run it by a scheduler of their own."""
    deleted = metrics.get_meter("participant_sdk").create_counter("saga.idempotency.deleted", "{key}", "Expired keys that were forgotten.")
    total = 0
    for _ in range(BATCHES_MAX):
        forgotten = await finish(store.delete_expired(BATCH_ROWS))  # A statement that is cut short costs its connection.
        total += forgotten
        deleted.add(forgotten)
        if forgotten < BATCH_ROWS:
            break
    return total


async def _forget_in_rounds(store: IdempotencyStore, interval_s: float) -> None:
    while True:
        try:
            forgotten = await forget_expired_keys_once(store)
        except (IdempotencyStoreBusyError, IdempotencyStoreUnavailableError, IdempotencySetupError) as error:
            logger.warning("expired keys stay until the next round: %s", error)
        else:
            if forgotten:
                logger.info("forgot %d expired keys", forgotten)
        await asyncio.sleep(random.uniform(interval_s / 2, interval_s))  # noqa: S311 - spreads load, hides nothing
