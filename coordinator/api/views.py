"""Sagas as callers see them, rebuilt from the journal: what is not committed cannot be seen."""

from collections.abc import Sequence
from typing import NamedTuple

from coordinator.api.errors import not_found
from coordinator.catalog import DefinitionCatalog
from coordinator.codec.definitions import CompiledDefinition
from coordinator.codec.sagas import quarantined_message, saga_message, stored_summary
from coordinator.core.errors import CorruptJournalError
from coordinator.core.plan import SagaPlan
from coordinator.core.record import replay
from coordinator.core.state import SagaState
from coordinator.core.values import Instant, SagaId
from coordinator.engine.engine import Engine
from coordinator.engine.ports import Clock, Journal, StoredSaga
from participant_sdk.rpc_errors import ErrorReason
from saga.v1 import saga_pb2


class SagaView(NamedTuple):
    """One saga as it is committed."""

    plan: SagaPlan
    state: SagaState
    """Read at once, never change it: it may be the live one."""
    now: Instant
    """What time it is for the saga: ahead of the clock if the clock was set back since."""


class SagaViews:
    """Reads sagas."""

    def __init__(self, clock: Clock, journal: Journal, catalog: DefinitionCatalog, engine: Engine) -> None:
        self._clock = clock
        self._journal = journal
        self._catalog = catalog
        self._engine = engine

    async def require(self, saga_id: SagaId) -> StoredSaga:
        """The stored saga; refuses with NOT_FOUND if there is none."""
        stored = await self._journal.find_saga(saga_id)
        if stored is None:
            raise not_found(ErrorReason.SAGA_NOT_FOUND, "saga.v1.Saga", saga_id, f"there is no saga {saga_id}")
        return stored

    async def current(self, saga_id: SagaId) -> SagaView | StoredSaga:
        """The saga as it stands: from memory if the engine holds it and all of it is committed (R25), else from the journal.

        A stored saga if the journal has set it aside. Refuses with NOT_FOUND if there is none.
        """
        live = self._engine.peek(saga_id)
        if live is not None:
            return SagaView(*live)
        stored = await self.require(saga_id)
        return stored if stored.quarantined is not None else await self.rebuild(stored)

    async def rebuild(self, stored: StoredSaga) -> SagaView:
        """A saga from its events. Raises CorruptJournalError if they contradict each other or their definition."""
        try:
            plan = await self._catalog.plan_of(stored.definition)
        except (KeyError, ValueError) as error:
            raise CorruptJournalError(f"its definition cannot be used: {error}") from error
        state = replay(plan, stored.saga_id, stored.events)
        return SagaView(plan, state, max(self._clock.now(), state.updated_at))  # as if it were taken up now

    async def definition_of(self, saga_id: SagaId) -> CompiledDefinition:
        """The definition that a saga follows. Refuses with NOT_FOUND if there is no such saga."""
        found = await self.current(saga_id)
        key = found.plan.key if isinstance(found, SagaView) else found.definition
        compiled = await self._catalog.find(*key)
        if compiled is None:
            raise CorruptJournalError(f"its definition {key.name!r} version {key.version} is not registered")
        return compiled

    async def get(self, saga_id: SagaId) -> saga_pb2.Saga:
        """The whole saga."""
        stored = await self.require(saga_id)
        if stored.quarantined is not None:
            return quarantined_message(stored, stored.quarantined)
        view = await self.rebuild(stored)
        return saga_message(view.plan, view.state)

    def summaries(self, page: Sequence[StoredSaga]) -> list[saga_pb2.Saga]:
        """A page of a list."""
        return [stored_summary(stored) for stored in page]
