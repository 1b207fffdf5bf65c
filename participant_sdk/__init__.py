"""What a service team writes its participants with, and what starts and follows sagas.

`SqlBarrier` and what belongs to it are loaded when first asked for: they need SQLAlchemy, which comes with the extra `barrier`.
"""

from typing import TYPE_CHECKING

from participant_sdk.accepted import Accepted
from participant_sdk.actions import Action, action
from participant_sdk.barrier.barrier import Barrier
from participant_sdk.barrier.no_barrier import NoBarrier
from participant_sdk.barrier.verdict import StepIdentity
from participant_sdk.builder import DefinitionError, Saga
from participant_sdk.client import (
    ActionResult,
    AlreadyExists,
    AttemptUnderWay,
    CoordinatorError,
    CoordinatorUnavailable,
    DefinitionNotFound,
    IncidentNotFound,
    InvalidRequest,
    NoLongerSelected,
    NotNow,
    NotStarted,
    OperatorClient,
    PointOfNoReturnPassed,
    Resolution,
    SagaAlreadyEnded,
    SagaClient,
    SagaHandle,
    SagaNotCompleted,
    SagaNotFound,
    SagaSelection,
    Start,
    Started,
    StepNotFound,
    SyncOperatorClient,
    SyncSagaClient,
    SyncSagaHandle,
    WaitTimedOut,
    output_of,
)
from participant_sdk.client.beating import Beating, beating
from participant_sdk.client.completion import CompletionTokenInvalidError, Heartbeat, StepNotWaitingError
from participant_sdk.completing import Completion
from participant_sdk.effects import DATABASE, EXTERNAL, Effect
from participant_sdk.errors import (
    AlreadyCompletedError,
    BarrierTableMissingError,
    CompletionError,
    CompletionMisusedError,
    CompletionPostponedError,
    CompletionRefusedError,
    CompletionUndeliveredError,
    MiddlewareMisusedError,
    ParticipantDefinitionError,
    ParticipantSetupError,
    Rejected,
    RetryLater,
    SessionMisusedError,
    SessionUnavailableError,
)
from participant_sdk.hosting import HostingOptions
from participant_sdk.ids import new_saga_id, parse_saga_id
from participant_sdk.middleware import Direction, HandlerRun, Middleware
from participant_sdk.otlp import configure_otlp
from participant_sdk.participant import Participant
from participant_sdk.payloads import Payload, PayloadDecodeError, PayloadEncodeError, WireField, payload
from participant_sdk.policies import RetryPolicy, StepDefaults, StepKind
from participant_sdk.server import HostedParticipants, ParticipantServer, serve, until_signalled
from participant_sdk.servicer import ParticipantServicer
from participant_sdk.step_context import DefinitionVersion, StepContext, SyncStepContext

if TYPE_CHECKING:
    from participant_sdk.barrier.sql import SqlBarrier
    from participant_sdk.barrier.table import barrier_table

__all__ = [
    "DATABASE",
    "EXTERNAL",
    "Accepted",
    "Action",
    "ActionResult",
    "AlreadyCompletedError",
    "AlreadyExists",
    "AttemptUnderWay",
    "Barrier",
    "BarrierTableMissingError",
    "Beating",
    "Completion",
    "CompletionError",
    "CompletionMisusedError",
    "CompletionPostponedError",
    "CompletionRefusedError",
    "CompletionTokenInvalidError",
    "CompletionUndeliveredError",
    "CoordinatorError",
    "CoordinatorUnavailable",
    "DefinitionError",
    "DefinitionNotFound",
    "DefinitionVersion",
    "Direction",
    "Effect",
    "HandlerRun",
    "Heartbeat",
    "HostedParticipants",
    "HostingOptions",
    "IncidentNotFound",
    "InvalidRequest",
    "Middleware",
    "MiddlewareMisusedError",
    "NoBarrier",
    "NoLongerSelected",
    "NotNow",
    "NotStarted",
    "OperatorClient",
    "Participant",
    "ParticipantDefinitionError",
    "ParticipantServer",
    "ParticipantServicer",
    "ParticipantSetupError",
    "Payload",
    "PayloadDecodeError",
    "PayloadEncodeError",
    "PointOfNoReturnPassed",
    "Rejected",
    "Resolution",
    "RetryLater",
    "RetryPolicy",
    "Saga",
    "SagaAlreadyEnded",
    "SagaClient",
    "SagaHandle",
    "SagaNotCompleted",
    "SagaNotFound",
    "SagaSelection",
    "SessionMisusedError",
    "SessionUnavailableError",
    "SqlBarrier",
    "Start",
    "Started",
    "StepContext",
    "StepDefaults",
    "StepIdentity",
    "StepKind",
    "StepNotFound",
    "StepNotWaitingError",
    "SyncOperatorClient",
    "SyncSagaClient",
    "SyncSagaHandle",
    "SyncStepContext",
    "WaitTimedOut",
    "WireField",
    "action",
    "barrier_table",
    "beating",
    "configure_otlp",
    "new_saga_id",
    "output_of",
    "parse_saga_id",
    "payload",
    "serve",
    "until_signalled",
]


def __getattr__(name: str) -> object:
    if name not in {"SqlBarrier", "barrier_table"}:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        from participant_sdk.barrier.sql import SqlBarrier  # noqa: PLC0415 - needs the extra `barrier`
        from participant_sdk.barrier.table import barrier_table  # noqa: PLC0415 - the same
    except ModuleNotFoundError as error:
        if error.name != "sqlalchemy":
            raise
        raise ImportError(f"{name} needs SQLAlchemy: install the extra with pip install 'saga-coordinator[barrier]'") from error
    return SqlBarrier if name == "SqlBarrier" else barrier_table
