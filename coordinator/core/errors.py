"""What a caller of the core can do wrong."""

from enum import Enum, auto

from coordinator.core.values import SagaId, SagaStatus


class Refusal(Enum):
    """Why a command is refused: what the caller can react to."""

    SAGA_ENDED = auto()
    """The saga has ended, or was terminated."""
    SAGA_STATUS = auto()
    """The saga is in a status, not an end, that forbids it."""
    NO_RETURN = auto()
    """The saga has passed its point of no return."""
    NO_SUCH_STEP = auto()
    NO_SUCH_INCIDENT = auto()
    STEP_STATUS = auto()
    """The step is in a status that forbids it."""
    UNDER_WAY = auto()
    """An attempt is under way, or an accepted step may still be completed: nobody may say how it ends (R17)."""
    INPUT_FIXED = auto()
    """The step may have had an effect with the input that it has: it must not get another one (R1)."""
    TYPE_MISMATCH = auto()
    """A payload is not what the definition says."""
    TOO_LATE = auto()
    """A completion came after the step was settled otherwise (R24)."""


class CommandRefusedError(Exception):
    """The state of the saga forbids the command. Nothing was changed."""

    def __init__(self, saga_id: SagaId, status: SagaStatus, refusal: Refusal, message: str) -> None:
        super().__init__(message)
        self.saga_id = saga_id
        self.status = status
        self.refusal = refusal


class CorruptJournalError(Exception):
    """The events of one saga contradict each other. That saga must be quarantined; others are not concerned."""
