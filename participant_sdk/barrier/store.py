"""What the barrier needs of a database: the port behind which SQL and the memory of the test kit stand.

A UNIT IS ONE DATABASE TRANSACTION. THE ROW IS LOCKED BEFORE IT IS JUDGED, AND THE HANDLER'S EFFECT AND THE ROW ARE COMMITTED
TOGETHER OR NOT AT ALL.
"""

from contextlib import AbstractAsyncContextManager
from typing import Protocol

from participant_sdk.barrier.verdict import BarrierRow, StepIdentity
from participant_sdk.step_context import SessionSource


class StoreBusyError(Exception):
    """The database asks to repeat the whole database transaction: deadlock, serialisation failure, locked. Nothing happened."""


class StoreUnavailableError(Exception):
    """The database cannot be reached or written. Nothing happened in this unit."""


class CommitInDoubtError(Exception):
    """COMMIT itself failed: only reading the row again tells whether it took place."""


class HandlerWriteError(Exception):
    """What the handler left unflushed in its session was refused by the database; all of the unit is rolled back."""


class BarrierUnit(SessionSource, Protocol):
    """One database transaction. Leaving its context without a commit rolls it back."""

    @property
    def has_session(self) -> bool:
        """Whether the handler asked for the session, so that the unit may hold more than the row."""

    async def lock_row(self, fresh: BarrierRow) -> BarrierRow | None:
        """Locks the key of `fresh` until the unit ends, waiting for whoever holds it. The first call of a guarded unit.

        Returns the row that is there; None if there was none, and then `fresh` has been put in its place.
        Raises StoreBusyError, StoreUnavailableError, BarrierTableMissingError.
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

    async def check(self) -> None:
        """Proves that the store works as a barrier must. Raises ParticipantSetupError, StoreUnavailableError, StoreBusyError."""

    async def delete_before(self, created_before_us: int, limit: int) -> int:
        """Forgets at most `limit` rows that were created before that instant; returns how many it forgot."""
