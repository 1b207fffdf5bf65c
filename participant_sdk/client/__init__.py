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
from participant_sdk.client.start_many import NotStarted, Started
from participant_sdk.client.starting import SharedStartOptions, Start, StartOptions
from participant_sdk.client.sync_client import SyncOperatorClient, SyncSagaClient, SyncSagaHandle

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
    "NotStarted",
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
    "SharedStartOptions",
    "Start",
    "StartOptions",
    "Started",
    "StepNotFound",
    "StepNotWaitingError",
    "SyncOperatorClient",
    "SyncSagaClient",
    "SyncSagaHandle",
    "WaitTimedOut",
    "output_of",
]
