"""Appends under way of sagas that are held no longer: nothing may be begun under such an id before they have come back."""

import asyncio

from coordinator.core.values import SagaId


class Abandoned:
    """Counts them by saga."""

    def __init__(self) -> None:
        self._counts: dict[SagaId, int] = {}
        self._is_settled = asyncio.Event()

    def __contains__(self, saga_id: SagaId) -> bool:
        return saga_id in self._counts

    def add(self, saga_id: SagaId, count: int) -> None:
        """A saga is let go of, with so many appends under way; may be none."""
        if count:
            self._counts[saga_id] = count

    def note_back(self, saga_id: SagaId) -> None:
        """One of them has come back, whatever became of it."""
        left = self._counts.pop(saga_id, 0) - 1
        if left > 0:
            self._counts[saga_id] = left
        if not self._counts:
            self._is_settled.set()

    def clear(self) -> None:
        """None of them will come back."""
        self._counts.clear()
        self._is_settled.set()

    async def until_settled(self) -> None:
        """Waits until all have come back."""
        while self._counts:
            self._is_settled.clear()
            await self._is_settled.wait()
