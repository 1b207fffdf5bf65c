"""An append in the form in which it is written."""

from typing import NamedTuple

from coordinator.codec.events import encode_event
from coordinator.core.frozen import dataclass
from coordinator.core.values import Instant, SagaStatus
from coordinator.engine.ports import Append


class Standing(NamedTuple):
    """What the row of a saga tells of its state. The row is written anew when this changes, and not with every event."""

    status: SagaStatus
    is_unfinished: bool
    is_paused: bool
    has_ended: bool
    asleep_until: Instant | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """An append with its events encoded, once for all tries."""

    append: Append
    payloads: tuple[bytes, ...]
    """One `saga.v1.Event` for each event of the append."""
    standing: Standing
    """What the row of the saga has to tell after this append."""

    @property
    def payload_bytes(self) -> int:
        """Size of all events."""
        return sum(map(len, self.payloads))

    @property
    def sequence(self) -> int:
        """Of the last event."""
        return self.append.events[-1].sequence

    @property
    def updated_at(self) -> Instant:
        """When the last event occurred."""
        return self.append.events[-1].occurred_at

    @property
    def ended_at(self) -> Instant | None:
        """When the saga ended; None: it has not."""
        return self.updated_at if self.append.has_ended else None

    def changes_row(self, before: Standing | None) -> bool:
        """Whether the row of a saga that is there already must be written. `before` is what it tells now; None: that is not known."""
        return before != self.standing


def record_of(append: Append) -> Record:
    """Encodes an append. Raises ValueError or TypeError if it can never be written: no events, a gap between them, a field that cannot be
    represented, a first append that is not the first, or two labels with one key."""
    if not append.events:
        raise ValueError("an append has at least one event")
    first = append.events[0].sequence
    if (append.start is not None) != (first == 1):
        raise ValueError(f"the append that starts a saga begins with event 1 and no other does, found event {first}")
    if append.start is not None and len(dict(append.start.labels)) != len(append.start.labels):
        raise ValueError("every label has a key of its own")
    payloads: list[bytes] = []
    for expected, event in enumerate(append.events, first):
        if event.sequence != expected:
            raise ValueError(f"events have no gaps, found {[event.sequence for event in append.events]}")
        payloads.append(encode_event(append.saga_id, event))
    standing = Standing(append.status, append.is_unfinished, append.is_paused, append.has_ended, append.wake_at)
    return Record(append=append, payloads=tuple(payloads), standing=standing)
