"""The sagas that are held in memory, and which of them are let go of: those at rest, when there are more than a few."""

from collections.abc import Callable, Collection, Iterator
from typing import Final

from coordinator.core.values import Instant, SagaId
from coordinator.engine.abandoned import Abandoned
from coordinator.engine.ports import Clock
from coordinator.engine.slot import Slot
from coordinator.engine.timers import Timers

RESTING_MAX: Final = 2_000
"""Sagas that are held although they need not be: those that came to rest last, because what they wait for mostly comes soon. One takes
about 8 KiB; to read one again takes about 1 ms."""


class Held:
    """Belongs to the engine. Every saga has one slot, at most one timer, and is let go of in one place."""

    def __init__(self, clock: Clock, wake: Callable[[SagaId], None], *, sagas_max: int, resting_max: int) -> None:
        assert resting_max > 0, "a saga that is taken up for a command rests until that comes"
        self.abandoned = Abandoned()
        self._clock = clock
        self._timers = Timers(clock, wake)
        self._sagas_max = sagas_max
        self._resting_max = resting_max
        self._slots: dict[SagaId, Slot] = {}
        self._resting: dict[SagaId, None] = {}
        self.on_leave: Callable[[Instant], None] = lambda _: None
        """Told until when a saga sleeps that is let go of."""

    def __len__(self) -> int:
        return len(self._slots)

    def __contains__(self, saga_id: SagaId) -> bool:
        return saga_id in self._slots

    @property
    def is_full(self) -> bool:
        """Whether there are as many as there may be."""
        return len(self._slots) >= self._sagas_max

    def find(self, saga_id: SagaId) -> Slot | None:
        """The slot of a saga; None: it is not held."""
        return self._slots.get(saga_id)

    def has(self, slot: Slot) -> bool:
        """Whether the saga is held, and in this slot."""
        return self._slots.get(slot.state.saga_id) is slot

    def of_shards(self, shards: Collection[int]) -> Iterator[Slot]:
        """Those of some shards, which may be let go of meanwhile."""
        return (slot for slot in tuple(self._slots.values()) if slot.shard in shards)

    def add(self, slot: Slot) -> None:
        """Holds one more."""
        self._slots[slot.state.saga_id] = slot

    def wake_at(self, slot: Slot, instant: Instant | None) -> None:
        """Wakes it at that instant, by the clock; None: not at all. If that is far away, it may be let go of instead."""
        self._timers.set(slot.state.saga_id, instant)
        self.note_rest(slot)

    def note_rest(self, slot: Slot) -> None:
        """It may have come to rest: then the one that has rested longest is let go of, if they are too many."""
        if slot.asleep_until is None:
            return  # the usual case, and on the hot path
        saga_id = slot.state.saga_id
        if saga_id in self._resting or not slot.may_leave(self._clock.now()):
            return
        self._resting[saga_id] = None
        if len(self._resting) > self._resting_max:
            self._let_go(self._slots[next(iter(self._resting))])

    def _let_go(self, slot: Slot) -> None:
        self.note_motion(slot)
        if slot.asleep_until is not None and slot.may_leave(self._clock.now()):
            self.forget(slot)
            self.on_leave(slot.asleep_until)

    def note_motion(self, slot: Slot) -> None:
        """It does not rest any more."""
        self._resting.pop(slot.state.saga_id, None)

    def forget(self, slot: Slot) -> None:
        """Lets go of it."""
        saga_id = slot.state.saga_id
        del self._slots[saga_id]
        self.abandoned.add(saga_id, slot.uncommitted)
        self._timers.set(saga_id, None)
        self.note_motion(slot)

    def stop_timers(self) -> None:
        """Wakes none any more."""
        self._timers.close()

    def clear(self) -> None:
        """Lets go of all."""
        for memory in (self._slots, self._resting, self.abandoned):
            memory.clear()
        self._timers.close()
