"""One timer for all sagas: a heap of instants over a single timer of the clock, because a loop timer per attempt costs too much."""

from collections.abc import Callable
from heapq import heapify, heappop, heappush
from typing import Final

from coordinator.core.values import Instant, SagaId
from coordinator.engine.ports import Clock

STALE_MAX: Final = 1_000
"""Replaced entries that may lie in the heap beside as many as there are live ones. Without a bound, finished sagas would stay until the
end of their time limits."""


class Timers:
    """At most one wake-up per saga. Entries that were replaced stay in the heap for a while and are passed over at their instant."""

    def __init__(self, clock: Clock, wake: Callable[[SagaId], None]) -> None:
        self._clock = clock
        self._wake = wake
        self._heap: list[tuple[Instant, SagaId]] = []
        self._wanted: dict[SagaId, Instant] = {}
        self._armed_for: Instant | None = None
        self._disarm: Callable[[], None] | None = None

    def set(self, saga_id: SagaId, instant: Instant | None) -> None:
        """Wakes the saga at that instant, and no longer at the one set before; None: not at all."""
        if instant is None:
            if self._wanted.pop(saga_id, None) is not None:
                self._drop_stale()
            return
        if self._wanted.get(saga_id) == instant:
            return
        self._wanted[saga_id] = instant
        heappush(self._heap, (instant, saga_id))
        self._drop_stale()
        self._arm()

    def close(self) -> None:
        """Wakes nobody any more."""
        self._wanted.clear()
        self._heap.clear()
        self._arm()

    def _drop_stale(self) -> None:
        if not self._wanted:
            self._heap.clear()
            self._arm()
        elif len(self._heap) > 2 * len(self._wanted) + STALE_MAX:
            self._heap = [(instant, saga_id) for saga_id, instant in self._wanted.items()]
            heapify(self._heap)

    def _arm(self) -> None:
        while self._heap and self._wanted.get(self._heap[0][1]) != self._heap[0][0]:
            heappop(self._heap)
        earliest = self._heap[0][0] if self._heap else None
        if earliest == self._armed_for:
            return
        if self._disarm is not None:
            self._disarm()
        self._armed_for = earliest
        self._disarm = None if earliest is None else self._clock.call_at(earliest, self._fire)

    def _fire(self) -> None:
        self._armed_for = self._disarm = None
        now = self._clock.now()
        while self._heap and self._heap[0][0] <= now:
            instant, saga_id = heappop(self._heap)
            if self._wanted.get(saga_id) == instant:
                del self._wanted[saga_id]
                self._wake(saga_id)
        self._arm()
