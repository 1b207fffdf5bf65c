"""Refusing a command: nothing is changed, and the message says what was found and what to do instead."""

from typing import NoReturn

from coordinator.core.errors import CommandRefusedError, Refusal
from coordinator.core.state import SagaState


def refuse(state: SagaState, refusal: Refusal, message: str) -> NoReturn:
    """Raises CommandRefusedError."""
    assert state.status is not None, "only a saga that exists is commanded"
    raise CommandRefusedError(state.saga_id, state.status, refusal, message)


def refuse_ended(state: SagaState, command: str) -> None:
    """Raises CommandRefusedError if the outcome of the saga is final."""
    if not state.has_ended or state.status is None:
        return
    found = f"terminated by {state.terminated.actor or 'somebody'}" if state.terminated is not None else state.status.name
    refuse(state, Refusal.SAGA_ENDED, f"saga {state.saga_id} cannot be {command}: it is {found}")
