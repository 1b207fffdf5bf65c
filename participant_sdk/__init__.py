"""What a service team writes its participants with, and what starts and follows sagas.

Each name is loaded when it is first asked for: a participant does not pay for the client, and a client not for the server. What needs an
extra says so.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from participant_sdk.accepted import Accepted
    from participant_sdk.actions import Action, action
    from participant_sdk.barrier.barrier import Barrier
    from participant_sdk.barrier.no_barrier import NoBarrier
    from participant_sdk.barrier.sql import SqlBarrier
    from participant_sdk.barrier.table import barrier_table
    from participant_sdk.barrier.verdict import StepIdentity
    from participant_sdk.builder import DefinitionError, Saga
    from participant_sdk.client import (
        ActionResult,
        AlreadyExists,
        AttemptUnderWay,
        CoordinatorError,
        CoordinatorUnavailable,
        DefinitionNotFound,
        FieldViolation,
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
        SharedStartOptions,
        Start,
        Started,
        StartOptions,
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
        BarrierTableOutdatedError,
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
    from participant_sdk.server import HostedParticipants, ParticipantServer, ServerOptions, serve, until_signalled
    from participant_sdk.servicer import ParticipantServicer
    from participant_sdk.step_context import DefinitionVersion, StepContext, SyncStepContext

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
    "BarrierTableOutdatedError",
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
    "FieldViolation",
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
    "ServerOptions",
    "SessionMisusedError",
    "SessionUnavailableError",
    "SharedStartOptions",
    "SqlBarrier",
    "Start",
    "StartOptions",
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

_HOMES: Final = {
    "participant_sdk.accepted": ("Accepted",),
    "participant_sdk.actions": (
        "Action",
        "action",
    ),
    "participant_sdk.barrier.barrier": ("Barrier",),
    "participant_sdk.barrier.no_barrier": ("NoBarrier",),
    "participant_sdk.barrier.sql": ("SqlBarrier",),
    "participant_sdk.barrier.table": ("barrier_table",),
    "participant_sdk.barrier.verdict": ("StepIdentity",),
    "participant_sdk.builder": (
        "DefinitionError",
        "Saga",
    ),
    "participant_sdk.client": (
        "ActionResult",
        "AlreadyExists",
        "AttemptUnderWay",
        "CoordinatorError",
        "CoordinatorUnavailable",
        "FieldViolation",
        "DefinitionNotFound",
        "IncidentNotFound",
        "InvalidRequest",
        "NoLongerSelected",
        "NotNow",
        "NotStarted",
        "OperatorClient",
        "PointOfNoReturnPassed",
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
        "SyncOperatorClient",
        "SyncSagaClient",
        "SyncSagaHandle",
        "WaitTimedOut",
        "output_of",
    ),
    "participant_sdk.client.beating": (
        "Beating",
        "beating",
    ),
    "participant_sdk.client.completion": (
        "CompletionTokenInvalidError",
        "Heartbeat",
        "StepNotWaitingError",
    ),
    "participant_sdk.completing": ("Completion",),
    "participant_sdk.effects": (
        "DATABASE",
        "EXTERNAL",
        "Effect",
    ),
    "participant_sdk.errors": (
        "AlreadyCompletedError",
        "BarrierTableMissingError",
        "BarrierTableOutdatedError",
        "CompletionError",
        "CompletionMisusedError",
        "CompletionPostponedError",
        "CompletionRefusedError",
        "CompletionUndeliveredError",
        "MiddlewareMisusedError",
        "ParticipantDefinitionError",
        "ParticipantSetupError",
        "Rejected",
        "RetryLater",
        "SessionMisusedError",
        "SessionUnavailableError",
    ),
    "participant_sdk.hosting": ("HostingOptions",),
    "participant_sdk.ids": (
        "new_saga_id",
        "parse_saga_id",
    ),
    "participant_sdk.middleware": (
        "Direction",
        "HandlerRun",
        "Middleware",
    ),
    "participant_sdk.otlp": ("configure_otlp",),
    "participant_sdk.participant": ("Participant",),
    "participant_sdk.payloads": (
        "Payload",
        "PayloadDecodeError",
        "PayloadEncodeError",
        "WireField",
        "payload",
    ),
    "participant_sdk.policies": (
        "RetryPolicy",
        "StepDefaults",
        "StepKind",
    ),
    "participant_sdk.server": (
        "HostedParticipants",
        "ParticipantServer",
        "ServerOptions",
        "serve",
        "until_signalled",
    ),
    "participant_sdk.servicer": ("ParticipantServicer",),
    "participant_sdk.step_context": (
        "DefinitionVersion",
        "StepContext",
        "SyncStepContext",
    ),
}
"""The same as above, for when the program runs: the names by the modules that they are of."""
_HOME_OF: Final = {name: module for module, names in _HOMES.items() for name in names}
_EXTRAS: Final = {"sqlalchemy": "barrier"}
"""What has to be installed for a package that is not there."""


if not TYPE_CHECKING:  # or else every name would be there for type checkers, mistyped ones too

    def __getattr__(name: str) -> object:
        if name not in _HOME_OF:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        try:
            found: object = getattr(import_module(_HOME_OF[name]), name)
        except ModuleNotFoundError as error:
            if error.name not in _EXTRAS:
                raise
            extra = _EXTRAS[error.name]
            raise ImportError(f"{name} needs {error.name}: install the extra with pip install 'saga-coordinator[{extra}]'") from error
        globals()[name] = found
        return found


def __dir__() -> list[str]:
    return [*globals(), *__all__]
