"""Which sagas and incidents are asked for: every condition arrives, and one that can never hold is refused."""

import pytest

from coordinator.api import selections
from coordinator.codec.values import to_timestamp
from coordinator.core.values import IncidentKind, SagaStatus
from coordinator.engine.ports import IncidentFilter, SagaFilter
from saga.v1 import coordinator_pb2, operator_pb2, saga_pb2
from tests.builders import SAGA, at
from tests.unit.api.refusals import refused


def test_filter_takes_every_condition() -> None:
    request = coordinator_pb2.ListSagasRequest(
        statuses=[saga_pb2.SAGA_STATUS_RUNNING, saga_pb2.SAGA_STATUS_FAILED],
        definition_name="place-order",
        labels={"b": "2", "a": "1"},
        paused=False,
    )
    request.created_from.CopyFrom(to_timestamp(at(1)))
    found = selections.listed_sagas(request)
    assert found.statuses == {SagaStatus.RUNNING, SagaStatus.FAILED}
    assert (found.definition_name, found.labels) == ("place-order", (("a", "1"), ("b", "2")))
    assert (found.created_from, found.created_before) == (at(1), None)
    assert (found.is_paused, found.needs_person) == (False, None)  # unset is not the same as false


def test_filter_that_can_never_hold_is_refused() -> None:
    request = coordinator_pb2.ListSagasRequest(statuses=[0, 99], definition_name="a\0", labels={"": ""})  # type: ignore[list-item]
    request.created_before.seconds = 2**60
    assert set(refused(lambda: selections.listed_sagas(request))) == {"statuses", "definition_name", "labels['']", "created_before"}


def test_selection_takes_every_condition() -> None:
    selection = operator_pb2.SagaSelection(
        statuses=[saga_pb2.SAGA_STATUS_FAILED],
        definition_name="place-order",
        labels={"a": "1"},
        created_before=to_timestamp(at(2)),
        paused=True,
        needs_person=True,
        incident_kinds=[saga_pb2.INCIDENT_KIND_KEY_EXPIRED],
    )
    assert selections.selected_sagas(selection) == SagaFilter(
        statuses=frozenset({SagaStatus.FAILED}),
        definition_name="place-order",
        labels=(("a", "1"),),
        created_before=at(2),
        is_paused=True,
        needs_person=True,
        incident_kinds=frozenset({IncidentKind.KEY_EXPIRED}),
    )


def test_selection_of_everything_is_refused() -> None:
    """A forgotten filter must not terminate every saga there is."""
    assert set(refused(lambda: selections.selected_sagas(operator_pb2.SagaSelection()))) == {"selection"}
    assert selections.selected_sagas(operator_pb2.SagaSelection(paused=False)).is_paused is False  # a condition like any other


def test_selection_that_can_never_hold_is_refused() -> None:
    selection = operator_pb2.SagaSelection(statuses=[99], incident_kinds=[0, 77, 77], definition_name="a" * 129)  # type: ignore[list-item]
    found = refused(lambda: selections.selected_sagas(selection))
    assert set(found) == {"selection.statuses", "selection.incident_kinds", "selection.definition_name"}


def test_incidents_are_filtered_by_every_condition() -> None:
    request = operator_pb2.ListIncidentsRequest(
        include_closed=True, kinds=[saga_pb2.INCIDENT_KIND_STEP_REJECTED], saga_id=SAGA.upper(), definition_name="place-order"
    )
    assert selections.listed_incidents(request) == IncidentFilter(
        include_closed=True, kinds=frozenset({IncidentKind.STEP_REJECTED}), saga_id=SAGA, definition_name="place-order"
    )
    assert selections.listed_incidents(operator_pb2.ListIncidentsRequest()) == IncidentFilter()


@pytest.mark.parametrize(
    ("request_", "field"),
    [
        (operator_pb2.ListIncidentsRequest(saga_id="order-42"), "saga_id"),
        (operator_pb2.ListIncidentsRequest(kinds=[99]), "kinds"),  # type: ignore[list-item]
        (operator_pb2.ListIncidentsRequest(definition_name="a\0"), "definition_name"),
    ],
)
def test_incidents_that_can_never_be_are_refused(request_: operator_pb2.ListIncidentsRequest, field: str) -> None:
    assert set(refused(lambda: selections.listed_incidents(request_))) == {field}
