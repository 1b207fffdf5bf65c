"""What starts sagas, follows them, and looks after them."""

from participant_sdk.client.completion import CompletionTokenInvalidError, Heartbeat, StepNotWaitingError
from participant_sdk.client.errors import (
    AlreadyExists,
    AttemptUnderWay,
    CoordinatorError,
    CoordinatorUnavailable,
    DefinitionNotFound,
    FieldViolation,
    IncidentNotFound,
    InvalidRequest,
    NodeNotFound,
    NoLongerSelected,
    NotNow,
    PointOfNoReturnPassed,
    SagaAlreadyEnded,
    SagaNotCompleted,
    SagaNotFound,
    StepNotFound,
    WaitTimedOut,
)
from participant_sdk.client.operator_client import ByWhom, OperatorClient, PolicyChange, Resolution
from participant_sdk.client.saga_client import SagaClient
from participant_sdk.client.saga_handle import SagaHandle, output_of
from participant_sdk.client.selection import ActionResult, SagaSelection
from participant_sdk.client.starting import StartOptions

__all__ = [
    "ActionResult",
    "AlreadyExists",
    "AttemptUnderWay",
    "ByWhom",
    "CompletionTokenInvalidError",
    "CoordinatorError",
    "CoordinatorUnavailable",
    "DefinitionNotFound",
    "FieldViolation",
    "Heartbeat",
    "IncidentNotFound",
    "InvalidRequest",
    "NoLongerSelected",
    "NodeNotFound",
    "NotNow",
    "OperatorClient",
    "PointOfNoReturnPassed",
    "PolicyChange",
    "Resolution",
    "SagaAlreadyEnded",
    "SagaClient",
    "SagaHandle",
    "SagaNotCompleted",
    "SagaNotFound",
    "SagaSelection",
    "StartOptions",
    "StepNotFound",
    "StepNotWaitingError",
    "WaitTimedOut",
    "output_of",
]
