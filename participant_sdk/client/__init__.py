"""What starts sagas and follows them."""

from participant_sdk.client.errors import (
    AlreadyExists,
    CoordinatorError,
    CoordinatorUnavailable,
    DefinitionNotFound,
    FieldViolation,
    InvalidRequest,
    SagaAlreadyEnded,
    SagaNotCompleted,
    SagaNotFound,
    WaitTimedOut,
)
from participant_sdk.client.saga_client import SagaClient, StartOptions
from participant_sdk.client.saga_handle import SagaHandle, output_of

__all__ = [
    "AlreadyExists",
    "CoordinatorError",
    "CoordinatorUnavailable",
    "DefinitionNotFound",
    "FieldViolation",
    "InvalidRequest",
    "SagaAlreadyEnded",
    "SagaClient",
    "SagaHandle",
    "SagaNotCompleted",
    "SagaNotFound",
    "StartOptions",
    "WaitTimedOut",
    "output_of",
]
