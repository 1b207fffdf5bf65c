"""Which sagas and which incidents are asked for."""

from collections.abc import Iterator
from typing import Final

from coordinator.api.checks import (
    DEFINITION_NAME_CHARS_MAX,
    find_in_numbers,
    find_in_text,
    find_unreadable,
    given_instant,
    refuse_if_any,
    saga_id_of,
)
from coordinator.codec.values import instant_of
from coordinator.core.values import IncidentKind, SagaStatus
from coordinator.engine.ports import IncidentFilter, SagaFilter
from participant_sdk.definitions.problems import Problem
from participant_sdk.definitions.rules import find_label_problems
from saga.v1 import coordinator_pb2, operator_pb2

NO_CONDITION: Final = Problem("selection", "expected at least one condition, so that nothing is done to every saga by mistake; found none")

_STATUSES: Final = frozenset(int(status) for status in SagaStatus)
_KINDS: Final = frozenset(int(kind) for kind in IncidentKind)


def listed_sagas(request: coordinator_pb2.ListSagasRequest) -> SagaFilter:
    """Which sagas a list is of."""
    refuse_if_any(_find_in_conditions(request, ""))
    return _saga_filter(request)


def selected_sagas(selection: operator_pb2.SagaSelection) -> SagaFilter:
    """Which sagas something is done to. Refuses a selection without any condition."""
    refuse_if_any(_find_in_selection(selection))
    found = _saga_filter(selection)
    return SagaFilter(
        statuses=found.statuses,
        definition_name=found.definition_name,
        labels=found.labels,
        created_from=found.created_from,
        created_before=found.created_before,
        is_paused=found.is_paused,
        needs_person=found.needs_person,
        incident_kinds=frozenset(IncidentKind(kind) for kind in selection.incident_kinds),
    )


def listed_incidents(request: operator_pb2.ListIncidentsRequest) -> IncidentFilter:
    """Which incidents a list is of."""
    saga_id = saga_id_of(request.saga_id) if request.saga_id else None
    problems = list(find_in_text(request.definition_name, "definition_name", DEFINITION_NAME_CHARS_MAX))
    problems.extend(find_in_numbers(request.kinds, _KINDS, "kinds", "kind of incident"))
    refuse_if_any(problems)
    return IncidentFilter(
        include_closed=request.include_closed,
        kinds=frozenset(IncidentKind(kind) for kind in request.kinds),
        saga_id=saga_id,
        definition_name=request.definition_name,
    )


def _find_in_selection(selection: operator_pb2.SagaSelection) -> Iterator[Problem]:
    if not selection.ListFields():
        yield NO_CONDITION
    yield from _find_in_conditions(selection, "selection.")
    yield from find_in_numbers(selection.incident_kinds, _KINDS, "selection.incident_kinds", "kind of incident")


def _find_in_conditions(asked: coordinator_pb2.ListSagasRequest | operator_pb2.SagaSelection, path: str) -> Iterator[Problem]:
    yield from find_in_numbers(asked.statuses, _STATUSES, f"{path}statuses", "status")
    yield from find_label_problems(dict(asked.labels), f"{path}labels")
    yield from find_in_text(asked.definition_name, f"{path}definition_name", DEFINITION_NAME_CHARS_MAX)
    yield from find_unreadable(lambda: instant_of(asked.created_from), f"{path}created_from")
    yield from find_unreadable(lambda: instant_of(asked.created_before), f"{path}created_before")


def _saga_filter(asked: coordinator_pb2.ListSagasRequest | operator_pb2.SagaSelection) -> SagaFilter:
    return SagaFilter(
        statuses=frozenset(SagaStatus(status) for status in asked.statuses),
        definition_name=asked.definition_name,
        labels=tuple(sorted(asked.labels.items())),
        created_from=given_instant(asked.created_from, is_given=asked.HasField("created_from")),
        created_before=given_instant(asked.created_before, is_given=asked.HasField("created_before")),
        is_paused=asked.paused if asked.HasField("paused") else None,
        needs_person=asked.needs_person if asked.HasField("needs_person") else None,
    )
