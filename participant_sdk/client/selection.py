"""Which sagas something is done to, and what came of it."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from types import MappingProxyType

from participant_sdk.client.errors import CoordinatorError, to_client_error
from participant_sdk.client.values import to_timestamp
from saga.v1 import operator_pb2, saga_pb2


@dataclass(frozen=True, slots=True, kw_only=True)
class SagaSelection:
    """Sagas for which every condition given holds. At least one must be given."""

    statuses: Iterable[saga_pb2.SagaStatus.ValueType] = ()
    """Any of these; empty: all."""
    definition: str = ""
    """Name of their definition; empty: all."""
    labels: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    """Each of these labels with this value."""
    created_from: datetime | None = None
    """Accepted at this instant or later; aware. None: since ever."""
    created_before: datetime | None = None
    """Accepted before this instant; aware. None: until now."""
    paused: bool | None = None
    """Whether they are paused; None: both."""
    needs_person: bool | None = None
    """Whether an incident of them is open; None: both."""
    incident_kinds: Iterable[saga_pb2.IncidentKind.ValueType] = ()
    """With an open incident of any of these kinds; empty: all."""

    def to_message(self) -> operator_pb2.SagaSelection:
        """The same on the wire. Raises ValueError if an instant is not aware."""
        return operator_pb2.SagaSelection(
            statuses=self.statuses,
            definition_name=self.definition,
            labels=self.labels,
            created_from=to_timestamp("created_from", self.created_from),
            created_before=to_timestamp("created_before", self.created_before),
            paused=self.paused,
            needs_person=self.needs_person,
            incident_kinds=self.incident_kinds,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class ActionResult:
    """What became of one of many sagas."""

    saga: saga_pb2.Saga
    """As it stood afterwards, without steps and payloads; in a dry run, as it stands."""
    refusal: CoordinatorError | None
    """Why nothing was done to it, or would be; None if it was, or would be."""
    found: int
    """How many results there will be altogether."""


def result_of(response: operator_pb2.ActOnSagasResponse, doing: str) -> ActionResult:
    """One result. `doing` says what is done, for messages: "pause"."""
    refusal = None
    if response.HasField("error"):
        refusal = to_client_error(response.error, doing=f"{doing} saga {response.saga.id}", saga_id=response.saga.id)
    return ActionResult(saga=response.saga, refusal=refusal, found=response.found)
