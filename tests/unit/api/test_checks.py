"""The small parts of requests: ids, names, and how much is told of what is wrong."""

import pytest
from google.rpc import error_details_pb2

from coordinator.api import checks
from coordinator.api.errors import invalid
from participant_sdk.definitions.problems import PROBLEMS_MAX, Problem
from participant_sdk.rpc_errors import find_detail
from tests.builders import SAGA
from tests.unit.api.refusals import refused


def test_id_that_is_no_uuid_is_refused() -> None:  # R2
    assert checks.saga_id_of(SAGA.upper()) == SAGA
    assert set(refused(lambda: checks.saga_id_of("order-42"))) == {"saga_id"}


@pytest.mark.parametrize("name", ["a\0b", "a" * 129])
def test_name_that_no_definition_can_have_is_refused(name: str) -> None:  # R28
    assert set(refused(lambda: checks.definition_name_of(name, "name"))) == {"name"}


@pytest.mark.parametrize("reason", ["", " \n"])
def test_reason_that_says_nothing_is_no_reason(reason: str) -> None:
    assert [problem.field for problem in checks.find_in_person("ann", reason, is_reason_required=True)] == ["reason"]
    assert not list(checks.find_in_person("", reason))


def test_refusal_tells_no_more_problems_than_a_person_can_read() -> None:
    error = invalid(Problem(f"labels[{number}]", "too long") for number in range(100_000))
    found = find_detail(error.status, error_details_pb2.BadRequest)
    assert found is not None
    assert len(found.field_violations) == PROBLEMS_MAX
