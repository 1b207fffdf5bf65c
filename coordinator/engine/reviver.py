"""Brings sagas from the journal back into memory."""

import logging
from collections.abc import Collection, Sequence
from enum import Enum, auto
from functools import partial
from typing import Final, NamedTuple

from coordinator.core.errors import CorruptJournalError
from coordinator.core.record import replay
from coordinator.core.values import Code, Failure, SagaId
from coordinator.engine.engine import Engine
from coordinator.engine.ports import Journal, Plans, StoredSaga

PAGE_SAGAS: Final = 500
"""Sagas read at once."""

_logger = logging.getLogger(__name__)


class Revived(NamedTuple):
    """What became of the sagas of a shard."""

    sagas: int
    """How many are driven now."""
    passed_over: tuple[SagaId, ...]
    """Those that could not be taken up now, because something of the same id is in their way; they must be looked at again."""


class _Fate(Enum):
    TAKEN_UP = auto()
    PASSED_OVER = auto()
    LEFT = auto()
    """There is nothing to drive."""


class Reviver:
    """Hands sagas to the engine as the journal has them. One that cannot be rebuilt is quarantined and stops nobody (P5)."""

    def __init__(self, engine: Engine, journal: Journal, plans: Plans) -> None:
        self._engine = engine
        self._journal = journal
        self._plans = plans

    async def revive_awake(self, shard: int = 0) -> Revived:
        """All of a shard that can move and do not sleep, none of which is held yet. Raises JournalUnavailableError."""
        fates: dict[SagaId, _Fate] = {}
        after: SagaId | None = None
        while page := await self._journal.load_awake(after, PAGE_SAGAS, shard=shard):
            for saga in page:
                fates[saga.saga_id] = await self._revive(saga)
            after = page[-1].saga_id
        revived = sum(fate is _Fate.TAKEN_UP for fate in fates.values())
        return Revived(revived, tuple(saga_id for saga_id, fate in fates.items() if fate is _Fate.PASSED_OVER))

    async def revive_asleep(self, ids: Sequence[SagaId]) -> None:
        """Some that slept. A command may take them up at the same time: what has moved since it was read is left alone. Raises
        JournalUnavailableError."""
        await self._revive_again(ids, are_asleep=True)

    async def revive_passed_over(self, ids: Sequence[SagaId]) -> tuple[SagaId, ...]:
        """Some that were passed over; returns those that are again. Raises JournalUnavailableError."""
        return await self._revive_again(ids, are_asleep=False)

    async def _revive_again(self, ids: Sequence[SagaId], *, are_asleep: bool) -> tuple[SagaId, ...]:
        moved: set[SagaId] = set()
        forget = [self._engine.subscribe(saga_id, partial(moved.add, saga_id)) for saga_id in ids]
        try:
            found = [saga for saga in await self._journal.load(ids) if (saga.asleep_until is not None) is are_asleep]
            fates = {saga.saga_id: await self._revive(saga, moved) for saga in found if saga.quarantined is None}
        finally:
            for unsubscribe in forget:
                unsubscribe()
        return tuple(saga_id for saga_id, fate in fates.items() if fate is _Fate.PASSED_OVER)

    async def _revive(self, saga: StoredSaga, moved: Collection[SagaId] = ()) -> _Fate:
        """`moved`: what has changed since it was read; it grows meanwhile."""
        try:
            plan = await self._plans.plan_of(saga.definition)
            state = replay(plan, saga.saga_id, saga.events)
            if saga.saga_id in moved or not state.is_unfinished:
                return _Fate.LEFT
            is_settled = self._engine.take_up(plan, state, saga)
        except (KeyError, ValueError, CorruptJournalError) as error:
            failure = Failure(Code.INTERNAL, f"cannot be rebuilt from its journal: {type(error).__name__}: {error}")
            _logger.exception("saga quarantined", extra={"saga.id": saga.saga_id, "reason": failure.message})
            await self._journal.quarantine(saga.saga_id, failure)
            return _Fate.LEFT
        return _Fate.TAKEN_UP if is_settled else _Fate.PASSED_OVER
