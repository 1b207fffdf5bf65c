"""What a caller of the core can do wrong."""

from coordinator.core.values import SagaId, SagaStatus


class CommandRefusedError(Exception):
    """The saga is in a status that forbids the command. Nothing was changed."""

    def __init__(self, saga_id: SagaId, status: SagaStatus, command: str) -> None:
        super().__init__(f"saga {saga_id} cannot be {command}: it is {status.name}")
        self.saga_id = saga_id
        self.status = status


class CorruptJournalError(Exception):
    """The events of one saga contradict each other. That saga must be quarantined; others are not concerned."""
