"""What can come of a call to the coordinator: one class per reaction of the caller.

They are decided by the code and the ErrorInfo reason of the answer, never by its message.
"""

# ruff: noqa: N818 - they are named for what is so, and read well behind `except`

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

import grpc
from google.rpc import error_details_pb2, status_pb2

from participant_sdk.rpc_errors import ErrorReason, error_reason, find_detail
from saga.v1 import saga_pb2


class CoordinatorError(Exception):
    """A call to the coordinator did not do what was asked. Its subclasses say what to do about it.

    Raised itself for answers that no caller can react to, such as a fault inside the coordinator. After a start or a
    cancel that failed so, nobody knows whether it took place: ask for the saga, or repeat the start with the same id.
    """

    def __init__(self, message: str, *, status: status_pb2.Status | None = None, saga_id: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        """What the coordinator answered; None if it answered nothing."""
        self.saga_id = saga_id
        """The saga that the call was about; None if it was about none."""
        self.may_be_done = False
        """True if an earlier attempt of the same call was never answered: what is refused now may be what that one did."""

    @property
    def reason(self) -> str:
        """The ErrorInfo reason of the answer; empty without one."""
        return error_reason(self.status) if self.status is not None else ""


class SagaNotFound(CoordinatorError):
    """No saga has this id: never started here, or deleted by retention. Nothing to retry."""


class DefinitionNotFound(CoordinatorError):
    """No definition has this name, or not in this version. Register it first."""


class AlreadyExists(CoordinatorError):
    """The idempotency key, the saga id, or the definition's version is taken by other content.

    Nothing was started or stored. Repeating it gives the same; it is another piece of business, or a bug.
    """


@dataclass(frozen=True, slots=True, kw_only=True)
class FieldViolation:
    """One thing that is wrong with a request."""

    field: str
    """Path of the field, e.g. "steps[1].action"."""
    description: str

    def __str__(self) -> str:
        return f"{self.field}: {self.description}" if self.field else self.description


class InvalidRequest(CoordinatorError):
    """The request itself is wrong: nothing was done, and repeating it gives the same."""

    def __init__(self, message: str, *, status: status_pb2.Status | None = None, saga_id: str | None = None) -> None:
        super().__init__(message, status=status, saga_id=saga_id)
        self.violations: Sequence[FieldViolation] = _violations(status)
        """Everything that is wrong, where the coordinator could say it field by field."""


class SagaAlreadyEnded(CoordinatorError):
    """The saga has ended or was terminated: nothing can be done to it any more. Read how it ended."""


class StepNotFound(CoordinatorError):
    """The saga has no step, and no hook, of this id. Its steps stand in its definition."""


class IncidentNotFound(CoordinatorError):
    """The saga has no incident of this number. `OperatorClient.incidents` lists them."""


class NodeNotFound(CoordinatorError):
    """No node of this id takes part in the database. `OperatorClient.nodes` lists them."""


class NotNow(CoordinatorError):
    """As the saga or its step stands, this cannot be done. Nothing was changed.

    `OperatorClient.explain` tells how it stands and what can be done instead.
    """


class AttemptUnderWay(NotNow):
    """The participant has the step: an attempt is under way, or it was accepted and may still be completed (R17).

    Repeat it when that has come to rest; `OperatorClient.explain` tells when that will be.
    """


class PointOfNoReturnPassed(NotNow):
    """The saga cannot turn back any more. It can only be brought forward: retry or resolve its steps, or terminate it."""


class NoLongerSelected(NotNow):
    """The saga is not among those that the selection finds any more, so that nothing was done to it. Look at a new dry run."""


class CoordinatorUnavailable(CoordinatorError):
    """The coordinator could not be reached, or not do its work, within the time given.

    After a start or a cancel nobody knows whether it took place. Repeat it later: a start with the same `saga_id`
    starts nothing twice (R2).
    """


class WaitTimedOut(CoordinatorError, TimeoutError):
    """The saga has not ended within the time given. It goes on; wait for it again by its id."""


class SagaNotCompleted(Exception):
    """The saga did not do what it was started for: it was undone (COMPENSATED), waits for a person, or was terminated (FAILED)."""

    def __init__(self, saga: saga_pb2.Saga) -> None:
        super().__init__(_how_it_ended(saga))
        self.saga = saga
        """The whole saga as it stands, with its steps and incidents."""
        self.failed_step: str | None = saga.failed_step_id or None
        """The step that made it turn back; None if none did, as when it was cancelled."""

    @property
    def saga_id(self) -> str:
        """The saga."""
        return self.saga.id

    @property
    def status(self) -> saga_pb2.SagaStatus.ValueType:
        """COMPENSATED; or FAILED: a person is needed, or has terminated it."""
        return self.saga.status

    @property
    def cause(self) -> saga_pb2.TurnBackCause.ValueType:
        """Why it turned back."""
        return self.saga.cause

    @property
    def reason(self) -> str:
        """The reason that the participant gave with its rejection, e.g. "CARD_DECLINED"; empty if there is none."""
        info = find_detail(self.saga.error, error_details_pb2.ErrorInfo)
        return info.reason if info is not None else ""


def to_client_error(status: status_pb2.Status, *, doing: str, saga_id: str | None = None, may_be_done: bool = False) -> CoordinatorError:
    """The error for an answer of the coordinator. `doing` says what was asked, for the message: "start place-order".

    `may_be_done`: see CoordinatorError.may_be_done.
    """
    reason = error_reason(status)
    error_class = _BY_REASON.get(reason) or _BY_CODE.get(status.code, CoordinatorError)
    if find_detail(status, error_details_pb2.RetryInfo) is not None:
        error_class = CoordinatorUnavailable  # It says itself that it can do so later.
    code = _CODE_NAMES.get(status.code, str(status.code))
    message = f"cannot {doing}: {status.message or 'no reason given'} ({reason or code})"
    if may_be_done and issubclass(error_class, NotNow | SagaAlreadyEnded):
        message += "; an earlier attempt of this call was not answered and may have done it: read the history of the saga"
    error = error_class(message, status=status, saga_id=saga_id)
    error.may_be_done = may_be_done
    return error


_BY_REASON: Final[Mapping[str, type[CoordinatorError]]] = MappingProxyType(
    {
        ErrorReason.SAGA_NOT_FOUND: SagaNotFound,
        ErrorReason.DEFINITION_NOT_FOUND: DefinitionNotFound,
        ErrorReason.DEFINITION_CONFLICT: AlreadyExists,
        ErrorReason.IDEMPOTENCY_KEY_REUSED: AlreadyExists,
        ErrorReason.SAGA_ID_REUSED: AlreadyExists,
        ErrorReason.DEFINITION_INVALID: InvalidRequest,
        ErrorReason.INPUT_TYPE_MISMATCH: InvalidRequest,
        ErrorReason.INPUT_INVALID: InvalidRequest,
        ErrorReason.PAYLOAD_TOO_LARGE: InvalidRequest,
        ErrorReason.REQUEST_INVALID: InvalidRequest,
        ErrorReason.SAGA_ALREADY_ENDED: SagaAlreadyEnded,
        ErrorReason.STEP_NOT_FOUND: StepNotFound,
        ErrorReason.INCIDENT_NOT_FOUND: IncidentNotFound,
        ErrorReason.NODE_NOT_FOUND: NodeNotFound,
        ErrorReason.SAGA_STATUS: NotNow,
        ErrorReason.SAGA_QUARANTINED: NotNow,
        ErrorReason.STEP_STATUS: NotNow,
        ErrorReason.STEP_INPUT_FIXED: NotNow,
        ErrorReason.STEP_NOT_WAITING: NotNow,
        ErrorReason.ATTEMPT_UNDER_WAY: AttemptUnderWay,
        ErrorReason.POINT_OF_NO_RETURN_PASSED: PointOfNoReturnPassed,
        ErrorReason.COMPLETION_TOKEN_INVALID: InvalidRequest,
        ErrorReason.SELECTION_TOO_LARGE: InvalidRequest,
        ErrorReason.NO_LONGER_SELECTED: NoLongerSelected,
        ErrorReason.OVERLOADED: CoordinatorUnavailable,
        ErrorReason.JOURNAL_UNAVAILABLE: CoordinatorUnavailable,
        ErrorReason.SHUTTING_DOWN: CoordinatorUnavailable,
    }
)

# Answers without our reason come from gRPC itself or from something in between. Only those are listed that leave no doubt:
# a NOT_FOUND of a proxy says nothing about a saga.
_BY_CODE: Final[Mapping[int, type[CoordinatorError]]] = MappingProxyType(
    {
        grpc.StatusCode.UNAVAILABLE.value[0]: CoordinatorUnavailable,
        grpc.StatusCode.DEADLINE_EXCEEDED.value[0]: CoordinatorUnavailable,
        grpc.StatusCode.CANCELLED.value[0]: CoordinatorUnavailable,
        grpc.StatusCode.ABORTED.value[0]: CoordinatorUnavailable,
    }
)

_CODE_NAMES: Final = MappingProxyType({code.value[0]: code.name for code in grpc.StatusCode})


def _violations(status: status_pb2.Status | None) -> Sequence[FieldViolation]:
    bad_request = find_detail(status, error_details_pb2.BadRequest) if status is not None else None
    if bad_request is None:
        return ()
    return tuple(FieldViolation(field=each.field, description=each.description) for each in bad_request.field_violations)


def _how_it_ended(saga: saga_pb2.Saga) -> str:
    status = saga_pb2.SagaStatus.Name(saga.status).removeprefix("SAGA_STATUS_")
    cause = saga_pb2.TurnBackCause.Name(saga.cause).removeprefix("TURN_BACK_CAUSE_")
    step = f" at step {saga.failed_step_id}" if saga.failed_step_id else ""
    words = f": {saga.error.message}" if saga.error.message else ""
    why = f" ({cause}{step}{words})" if saga.cause else ""
    return f"saga {saga.id} ({saga.definition.name} v{saga.definition.version}) is {status}{why}{_what_now(saga)}"


def _what_now(saga: saga_pb2.Saga) -> str:
    if saga.HasField("terminated"):
        actor = saga.terminated.actor or "somebody"
        return f"; terminated by {actor}: {saga.terminated.reason}" if saga.terminated.reason else f"; terminated by {actor}"
    return "; a person is needed, see its incidents" if saga.status == saga_pb2.SAGA_STATUS_FAILED else ""
