"""The calls of one participant: which wait, which may go, and which have waited too long. Decides only; sends nothing."""

from collections import OrderedDict
from collections.abc import Iterable, Iterator
from heapq import heapify, heappop, heappush
from typing import Final, NamedTuple

from coordinator.core.effects import CallParticipant
from coordinator.core.values import AttemptKey, Failure, Instant, SagaId
from coordinator.dispatcher.circuit import CircuitBreaker, Health, Permit
from coordinator.dispatcher.rate import RateLimit
from coordinator.engine.ports import CallPlace, Circuit
from coordinator.limits import ParticipantLimits

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


class Wishes(NamedTuple):
    """What a participant asks for; it can only lower what the coordinator allows."""

    concurrency: int = 0
    """0: none."""
    rate_per_second: float = 0.0
    """0: none."""


class Lane:
    """First come, first served; so many under way, so many per second, and none while the participant is not well. One that is down fills
    only its own lane (P5). What waits here was not sent, and is no attempt (R7).
    """

    def __init__(self, name: str, limits: ParticipantLimits) -> None:
        self._limits = limits
        self._wishes = Wishes()
        self.concurrency = limits.concurrency
        self.rate = RateLimit(limits.rate_per_second)
        self.circuit = CircuitBreaker(name, limits)
        # Ordered by links: taking the first of a plain dict again and again is quadratic (4.5 s for 100,000 calls against 15 ms).
        self._waiting: OrderedDict[CallId, Waiting] = OrderedDict()
        self._expiries: list[tuple[Instant, CallId]] = []
        self._under_way: dict[CallId, Permit] = {}

    def __len__(self) -> int:
        return len(self._waiting)

    @property
    def under_way(self) -> int:
        """Calls that were taken and have not ended."""
        return len(self._under_way)

    def heed(self, wishes: Wishes, now: Instant) -> None:
        """What the participant asks for now."""
        if wishes == self._wishes:
            return
        self._wishes = wishes
        self.concurrency = min(wishes.concurrency or self._limits.concurrency, self._limits.concurrency)
        rates = [rate for rate in (wishes.rate_per_second, self._limits.rate_per_second) if rate > 0]
        self.rate.change(min(rates, default=0.0), now)

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
        """The next call that may go now; None if none may or nobody waits. Expired calls stay for `take_expired`."""
        if not self._waiting or len(self._under_way) >= self.concurrency or self._free_at(now) > now:
            return None
        for call_id, waiting in self._waiting.items():
            if waiting.gives_up_at > now:
                del self._waiting[call_id]
                self._under_way[call_id] = self.circuit.take(now)
                self.rate.take(now)
                return waiting.call
        return None

    def ended(self, call: CallParticipant, health: Health, now: Instant, failure: Failure | None = None) -> Circuit | None:
        """A call that was taken has ended; returns the new state of the circuit if that changed it."""
        permit = self._under_way.pop((call.saga_id, call.attempt), None)
        if permit is None:
            return None
        return self.circuit.ended(permit, health, now, failure=failure, saga_id=call.saga_id)

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

    def place_of(self, call_id: CallId, now: Instant) -> CallPlace:
        """Where a call is, as far as the lane knows: whether the participant can be found at all it does not."""
        if call_id in self._under_way:
            return CallPlace.UNDER_WAY
        return self.reason_to_wait(now) if call_id in self._waiting else CallPlace.NOT_HERE

    def reason_to_wait(self, now: Instant) -> CallPlace:
        """Why the next call does not go. In the short time between its release and its turn: because others are before it."""
        if self.circuit.next_at(now) > now:
            return CallPlace.CIRCUIT_OPEN
        is_full = len(self._under_way) >= self.concurrency
        return CallPlace.RATE if not is_full and self.rate.per_second else CallPlace.NO_PLACE

    def next_wake(self, now: Instant) -> Instant | None:
        """When something happens here by the mere passing of time: a call has waited too long, or may go. None: nothing will."""
        expiry = self.next_expiry
        if expiry is None or len(self._under_way) >= self.concurrency:
            return expiry
        free_at = self._free_at(now)
        return min(expiry, free_at) if free_at > now else expiry

    @property
    def next_expiry(self) -> Instant | None:
        """When `take_expired` has something next; None: never."""
        while self._expiries and self._expiries[0][1] not in self._waiting:
            heappop(self._expiries)
        return self._expiries[0][0] if self._expiries else None

    def _free_at(self, now: Instant) -> Instant:
        """When circuit and rate let the next call go; not after `now` if they do at once."""
        return max(self.circuit.next_at(now), self.rate.next_at(now))

    def _sweep(self) -> None:
        """Forgets the expiries of calls that have gone: while the lane is never empty they would pile up behind others."""
        self._expiries = [(waiting.gives_up_at, call_id) for call_id, waiting in self._waiting.items()]
        heapify(self._expiries)
