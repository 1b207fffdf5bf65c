"""What is found when an accepted step is to be completed (R24)."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, TypeVar

from participant_sdk.step_context import SessionSource
from saga.v1 import participant_pb2

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

ResultT = TypeVar("ResultT")


class OpenCompletion(Protocol):
    """The locked row of a step that waits for its result. Leaving it without `conclude` rolls everything back."""

    @property
    def action(self) -> str:
        """What was accepted. Example: "approvals.ask"."""

    @property
    def sessions(self) -> SessionSource:
        """Where the session of the same database transaction comes from."""

    async def run_sync(self, work: "Callable[[Session], ResultT]") -> ResultT:
        """Runs what uses the session in the blocking way; in the barrier's thread if its engine blocks."""

    async def conclude(self, response: participant_pb2.ExecuteResponse) -> None:
        """Commits the result together with what was written through the session.

        Raises CompletionPostponedError; SessionMisusedError; what the database says to rows that were not flushed before.
        """


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredResult:
    """The step was completed before."""

    action: str
    response: participant_pb2.ExecuteResponse
    """What is replayed to whoever executes it again."""
