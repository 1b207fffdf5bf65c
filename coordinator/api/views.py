"""Sagas as callers see them, rebuilt from the journal: what is not committed cannot be seen."""

from collections.abc import Sequence

from coordinator.api.errors import not_found
from coordinator.catalog import DefinitionCatalog
from coordinator.codec.sagas import incident_message, saga_message, stored_summary
from coordinator.core.events import IncidentOpened
from coordinator.core.state import replay
from coordinator.core.values import IncidentKind, SagaId
from coordinator.engine.ports import Journal, StoredSaga
from participant_sdk.rpc_errors import ErrorReason
from saga.v1 import saga_pb2


class SagaViews:
    """Reads sagas."""

    def __init__(self, journal: Journal, catalog: DefinitionCatalog) -> None:
        self._journal = journal
        self._catalog = catalog

    async def require(self, saga_id: SagaId) -> StoredSaga:
        """The stored saga; refuses with NOT_FOUND if there is none."""
        stored = await self._journal.find_saga(saga_id)
        if stored is None:
            raise not_found(ErrorReason.SAGA_NOT_FOUND, "saga.v1.Saga", saga_id, f"there is no saga {saga_id}")
        return stored

    async def get(self, saga_id: SagaId) -> saga_pb2.Saga:
        """The whole saga. One that is quarantined is shown as its row has it, because its events may be what cannot be read."""
        stored = await self.require(saga_id)
        if stored.quarantined is not None:
            saga = stored_summary(stored)
            incident = IncidentOpened(id=0, kind=IncidentKind.QUARANTINED, step_id=None, failure=stored.quarantined)
            saga.incidents.append(incident_message(stored.created_at, incident))
            return saga
        plan = await self._catalog.plan_of(stored.definition)
        return saga_message(plan, replay(plan, saga_id, stored.events))

    def summaries(self, page: Sequence[StoredSaga]) -> list[saga_pb2.Saga]:
        """A page of a list."""
        return [stored_summary(stored) for stored in page]
