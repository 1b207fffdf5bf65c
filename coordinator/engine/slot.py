"""What the engine keeps of one saga beside its state."""

from collections.abc import Callable

from coordinator.core.plan import SagaPlan
from coordinator.core.state import SagaState
from coordinator.core.values import AttemptKey
from coordinator.engine.commands import StartAnswer, StartCommand

StartListener = Callable[[StartAnswer], None]
"""Told once what became of a start."""
EndListener = Callable[[tuple[SagaPlan, SagaState] | None], None]
"""Told once, when the saga has ended or failed and that is committed. None: it is no longer held here; the journal has what there is."""


class Slot:
    """One live saga. Belongs to the engine alone."""

    __slots__ = ("after_commit", "end_listeners", "fingerprint", "plan", "recovered", "released", "starts", "state", "uncommitted")

    def __init__(self, plan: SagaPlan, state: SagaState, fingerprint: bytes, *, recovered: bool) -> None:
        self.plan = plan
        self.state = state
        self.fingerprint = fingerprint
        self.recovered = recovered
        """Whether an earlier process may have calls of it under way."""
        self.uncommitted = 0
        """Appends under way. While there are any, nothing is released and nothing is answered from this state (R25)."""
        self.released: set[AttemptKey] = set()
        """Calls handed to the dispatcher that have not come back."""
        self.starts: list[tuple[StartCommand, StartListener]] = []
        """Starts with this id that wait for an answer; the first is the one that made it."""
        self.after_commit: list[Callable[[bool], None]] = []
        """Told True when nothing is uncommitted any more, False if the saga was dropped instead."""
        self.end_listeners: list[EndListener] = []
