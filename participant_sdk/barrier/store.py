"""What the barrier needs of a database: the port behind which SQL and the memory of the test kit stand.

A UNIT IS ONE DATABASE TRANSACTION. THE ROW IS LOCKED BEFORE IT IS JUDGED, AND THE HANDLER'S EFFECT AND THE ROW ARE COMMITTED
TOGETHER OR NOT AT ALL.
"""

from collections.abc import Callable, Coroutine
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, TypeVar

from participant_sdk.barrier.verdict import BarrierRow, CompensateCall, ExecuteCall, StepIdentity
from participant_sdk.step_context import SessionSource

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

AnswerT = TypeVar("AnswerT")


class StoreBusyError(Exception):
    """The database asks to repeat the whole database transaction: deadlock, serialisation failure, locked. Nothing happened."""


class StoreUnavailableError(Exception):
    """The database cannot be reached or written. Nothing happened in this unit."""


class LockWaitError(Exception):
    """The key stayed locked for the time that may be waited."""


class CommitInDoubtError(Exception):
    """COMMIT itself failed: only reading the row again tells whether it took place."""


class HandlerWriteError(Exception):
    """What the handler left unflushed in its session was refused by the database; all of the unit is rolled back."""


class BarrierUnit(SessionSource, Protocol):
    """One database transaction. Leaving its context without a commit rolls it back."""

    @property
    def has_session(self) -> bool:
        """Whether the handler asked for the session, so that the unit may hold more than the row."""

    async def run_sync(self, work: Callable[["Session"], AnswerT]) -> AnswerT:
        """Runs what uses the session in the blocking way, where that does not block the event loop."""

    async def lock_row(self, fresh: BarrierRow, wait_s: float | None = None) -> BarrierRow | None:
        """Locks the key of `fresh` until the unit ends, waiting for whoever holds it. The first call of a guarded unit.

        `wait_s`: how long at most; None: the caller sees to that.
        Returns the row that is there; None if there was none, and then `fresh` has been put in its place.
        Raises LockWaitError, StoreBusyError, StoreUnavailableError, BarrierTableMissingError.
        """

    async def put_row(self, row: BarrierRow) -> None:
        """Replaces the locked row. Raises like `lock_row`, SessionMisusedError if the handler ended the unit itself, and
        HandlerWriteError if what its session still held could not be written.
        """

    async def delete_row(self, row: BarrierRow) -> None:
        """Forgets the locked row. Raises like `put_row`."""

    async def commit(self) -> None:
        """Commits rows and effect; not to be cancelled half-way. Raises like `put_row`, and CommitInDoubtError."""

    def is_busy(self, error: BaseException) -> bool:
        """Whether what a handler raised came from its database asking for a repetition of the whole unit."""


class BarrierStore(Protocol):
    """Where rows are kept."""

    def unit(self, step: StepIdentity) -> AbstractAsyncContextManager[BarrierUnit]:
        """A database transaction for that step; begun when first used."""

    @property
    def is_blocking(self) -> bool:
        """Whether whole flows run in its threads, so that their handlers must be plain ones."""

    async def run(self, call: ExecuteCall | CompensateCall, flow: "Flow[AnswerT]", *, wait_s: float, now_us: int) -> AnswerT:
        """Runs a flow, which opens its units in the store that it is given, where that costs least. Raises what the flow raises.

        `wait_s`: how long it may wait for others before it begins. Raises LockWaitError if that was not enough. `now_us`: the
        barrier's time.
        """

    async def check(self) -> None:
        """Proves that the store works as a barrier must. Raises ParticipantSetupError, StoreUnavailableError, StoreBusyError."""

    async def delete_before(self, created_before_us: int, limit: int) -> int:
        """Forgets at most `limit` rows that were created before that instant; returns how many it forgot."""


Flow: TypeAlias = Callable[[BarrierStore], Coroutine[Any, Any, AnswerT]]
"""What becomes of one call in a store, from locking its key to the commit. A blocking store runs it in a thread, where it never waits
for the event loop.
"""
