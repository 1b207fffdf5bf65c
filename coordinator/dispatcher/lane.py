"""The calls of one participant: which wait, which may go, and which have waited too long. Decides only; sends nothing."""

from collections import OrderedDict
from collections.abc import Iterable, Iterator
from heapq import heapify, heappop, heappush
from typing import Final, NamedTuple

from coordinator.core.effects import CallParticipant
from coordinator.core.values import AttemptKey, Instant, SagaId

WAITING_MAX: Final = 100_000
"""Calls that may wait for one participant; more are answered NotSent at once (R7)."""

STALE_EXPIRIES_MAX: Final = 1_000
"""Expiries of calls that wait no longer may outnumber those that do by this many before they are swept out."""

CallId = tuple[SagaId, AttemptKey]


class Waiting(NamedTuple):
    """A call that waits for its turn."""

    call: CallParticipant
    gives_up_at: Instant
    """When it is answered NotSent: one attempt's time after it came, or at the limit of its step."""


class Lane:
    """First come, first served; at most `concurrency` under way. One participant that is down fills only its own lane (P5)."""

    def __init__(self, concurrency: int) -> None:
        self.concurrency = concurrency
        self.under_way = 0
        # Ordered by links: taking the first of a plain dict again and again is quadratic (4.5 s for 100,000 calls against 15 ms).
        self._waiting: OrderedDict[CallId, Waiting] = OrderedDict()
        self._expiries: list[tuple[Instant, CallId]] = []

    def __len__(self) -> int:
        return len(self._waiting)

    def put(self, call: CallParticipant, now: Instant) -> bool:
        """Lets a call wait; False if too many do already."""
        if len(self._waiting) >= WAITING_MAX:
            return False
        gives_up_at = Instant(now + call.timeout_us)
        if call.send_before is not None:
            gives_up_at = min(gives_up_at, call.send_before)
        call_id = (call.saga_id, call.attempt)
        self._waiting[call_id] = Waiting(call, gives_up_at)
        heappush(self._expiries, (gives_up_at, call_id))
        if len(self._expiries) > 2 * len(self._waiting) + STALE_EXPIRIES_MAX:
            self._sweep()
        return True

    def take_next(self, now: Instant) -> CallParticipant | None:
        """The next call that may go now; None if all places are taken or nobody waits. Expired calls stay for `take_expired`."""
        if self.under_way >= self.concurrency:
            return None
        for call_id, waiting in self._waiting.items():
            if waiting.gives_up_at > now:
                del self._waiting[call_id]
                self.under_way += 1
                return waiting.call
        return None

    def take_expired(self, now: Instant) -> Iterator[CallParticipant]:
        """The calls that have waited too long."""
        while self._expiries and self._expiries[0][0] <= now:
            _, call_id = heappop(self._expiries)
            waiting = self._waiting.get(call_id)
            if waiting is not None and waiting.gives_up_at <= now:
                del self._waiting[call_id]
                yield waiting.call

    def withdraw(self, saga_id: SagaId, attempts: Iterable[AttemptKey]) -> Iterator[CallParticipant]:
        """Takes back calls that still wait."""
        for attempt in attempts:
            waiting = self._waiting.pop((saga_id, attempt), None)
            if waiting is not None:
                yield waiting.call

    def abandon(self) -> int:
        """Drops what waits; returns how many calls."""
        dropped = len(self._waiting)
        self._waiting.clear()
        self._expiries.clear()
        return dropped

    def _sweep(self) -> None:
        """Forgets the expiries of calls that have gone: while the lane is never empty they would pile up behind others."""
        self._expiries = [(waiting.gives_up_at, call_id) for call_id, waiting in self._waiting.items()]
        heapify(self._expiries)

    @property
    def next_expiry(self) -> Instant | None:
        """When `take_expired` has something next; None: never."""
        while self._expiries and self._expiries[0][1] not in self._waiting:
            heappop(self._expiries)
        return self._expiries[0][0] if self._expiries else None
