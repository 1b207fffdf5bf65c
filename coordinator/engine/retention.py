"""Forgets sagas that ended long ago, a few at a time, so that a database does not grow for ever."""

import logging
from typing import Final

from coordinator.core.values import MICROS_PER_SECOND, Instant
from coordinator.engine.pause import pause
from coordinator.engine.ports import Clock, Forgotten, Journal, JournalUnavailableError

EVERY_US: Final = 60 * MICROS_PER_SECOND
"""How often it is looked for what is old enough."""
BATCH_SAGAS: Final = 200
"""Sagas, and start keys, in one database transaction: few enough that commits of sagas do not wait."""

_logger = logging.getLogger(__name__)


class Retention:
    """Runs beside the engine, and needs nothing of it: what is forgotten cannot move any more."""

    def __init__(self, *, clock: Clock, journal: Journal, keep_us: int) -> None:
        """`keep_us`: how long a saga is kept after its end; 0: for ever."""
        self._clock = clock
        self._journal = journal
        self._keep_us = keep_us
        self.forgotten = Forgotten(sagas=0, keys=0, registrations=0)
        """Since the start of this process."""

    @property
    def is_on(self) -> bool:
        """Whether anything is ever forgotten."""
        return self._keep_us > 0

    async def run(self) -> None:
        """At once, and then again and again. Runs until it is cancelled."""
        while True:
            try:
                await self._forget()
            except JournalUnavailableError as error:
                _logger.warning("nothing can be forgotten now", extra={"reason": str(error)})
            except Exception:  # a defect: it must not be the end of retention
                _logger.exception("nothing can be forgotten; trying again")
            await pause(self._clock, EVERY_US)

    async def _forget(self) -> None:
        """Everything that is old enough, in batches between which others get their turn."""
        before = self.forgotten
        while True:
            now = self._clock.now()
            batch = await self._journal.forget(Instant(now - self._keep_us), now, BATCH_SAGAS)
            self.forgotten = Forgotten(*(sum(pair) for pair in zip(self.forgotten, batch, strict=True)))
            if max(batch.sagas, batch.keys) < BATCH_SAGAS:
                break
        sagas, keys, registrations = (now - then for now, then in zip(self.forgotten, before, strict=True))
        if sagas or keys or registrations:
            _logger.info("forgotten", extra={"sagas": sagas, "start_keys": keys, "registrations": registrations})
