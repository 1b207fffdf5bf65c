"""How a handler ended, as values, and what a barrier answers."""

from dataclasses import dataclass
from datetime import timedelta
from typing import TypeAlias

from google.rpc import status_pb2

from saga.v1 import participant_pb2


@dataclass(frozen=True, slots=True, kw_only=True)
class HandlerSucceeded:
    """It returned; type and size of its output are checked (R6)."""

    response: participant_pb2.ExecuteResponse


@dataclass(frozen=True, slots=True, kw_only=True)
class HandlerAccepted:
    """It has begun, and is finished later; what it wrote is committed like that of a success (R24)."""

    response: participant_pb2.ExecuteResponse


@dataclass(frozen=True, slots=True)
class HandlerUndid:
    """A compensation returned."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HandlerRejected:
    """It refused: it had no effect, beyond what rolling back undoes."""

    status: status_pb2.Status


@dataclass(frozen=True, slots=True, kw_only=True)
class HandlerPostponed:
    """It asked to be called again: it had no effect, beyond what rolling back undoes."""

    after: timedelta
    status: status_pb2.Status


@dataclass(frozen=True, slots=True, kw_only=True)
class HandlerFailed:
    """It raised, or returned what cannot be sent: nobody knows what it did outside of the database transaction."""

    status: status_pb2.Status
    error: BaseException | None = None
    """What it raised; None if it returned something unfit."""


ExecuteOutcome: TypeAlias = HandlerSucceeded | HandlerAccepted | HandlerRejected | HandlerPostponed | HandlerFailed
CompensateOutcome: TypeAlias = HandlerUndid | HandlerPostponed | HandlerFailed

ExecuteAnswer: TypeAlias = participant_pb2.ExecuteResponse | status_pb2.Status
"""An outcome for the coordinator, or the status that the call ends with."""
CompensateAnswer: TypeAlias = participant_pb2.CompensateResponse | status_pb2.Status
"""An outcome for the coordinator, or the status that the call ends with."""
