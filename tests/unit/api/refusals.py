"""What refusals of the API say."""

from collections.abc import Callable

import pytest
from google.rpc import error_details_pb2

from coordinator.api.errors import RefusedError
from participant_sdk.rpc_errors import find_detail


def refused(call: Callable[[], object]) -> dict[str, str]:
    """What a refusal says of which field."""
    with pytest.raises(RefusedError) as caught:
        call()
    return violations(caught.value)


def violations(error: RefusedError) -> dict[str, str]:
    """What was expected of which field."""
    found = find_detail(error.status, error_details_pb2.BadRequest)
    assert found is not None
    return {violation.field: violation.description for violation in found.field_violations}
