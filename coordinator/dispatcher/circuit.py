"""Leaves alone who is not well: after several failures in a row nothing is sent for a while, then one call to see how things are.

    CLOSED ── failures in a row ──► OPEN ── its time is over ──► HALF_OPEN ── the probe fails ──► OPEN, for twice as long
       ▲                                                             │
       └───────────────────────── the probe succeeds ────────────────┘

Decides only: it neither sends nor reads a clock.
"""

from enum import Enum, auto
from hashlib import blake2b
from typing import Final, NewType

from coordinator.core.values import MICROS_PER_SECOND, Failure, Instant
from coordinator.engine.ports import Circuit
from coordinator.limits import ParticipantLimits

PROBE_PATIENCE_US: Final = 10 * MICROS_PER_SECOND
"""How long the answer to a probe is waited for before another one may go: an action that takes an hour must not keep all others out."""

_DOUBLINGS_MAX: Final = 40
"""Beyond it the doubling no longer matters."""

Permit = NewType("Permit", int)
"""Says in which period a call was let through: what it finds out counts in that period only. Calls that were under way when the circuit
opened come back long after, and say nothing about how things are now."""


class Health(Enum):
    """What the end of a call says about who was called."""

    WELL = auto()
    """It answers, whatever it answers."""
    AWAY = auto()
    """Nobody is there."""
    OVERWHELMED = auto()
    """It took too long or has no room. One saga with a strange input can bring that about alone, so it counts once per saga: one poison
    saga must not keep the others out."""
    UNTOLD = auto()
    """Nothing: the call was cut on this side."""


class CircuitBreaker:
    """Counts failures in a row, and decides when the next call may go."""

    def __init__(self, name: str, limits: ParticipantLimits) -> None:
        self._name = name
        self._failures_max = limits.circuit_failures
        self._open_us = round(limits.circuit_open_s * MICROS_PER_SECOND)
        self._open_us_max = max(self._open_us, round(limits.circuit_open_s_max * MICROS_PER_SECOND))
        self._period = Permit(0)
        self._failures = 0
        self._overwhelmed_by: set[str] = set()
        self._openings = 0
        self._open_until: Instant | None = None
        self._probed_until: Instant | None = None
        self.last_failure: Failure | None = None
        """What counted last; None if the last call that counted went well."""

    def state(self, now: Instant) -> Circuit:
        """How far calls are let through."""
        if self._open_until is None:
            return Circuit.CLOSED
        return Circuit.OPEN if now < self._open_until else Circuit.HALF_OPEN

    def next_at(self, now: Instant) -> Instant:
        """When the next call may go; not after `now` if it may go at once."""
        if self._open_until is None:
            return now
        return self._open_until if self._probed_until is None else max(self._open_until, self._probed_until)

    def take(self, now: Instant) -> Permit:
        """Lets a call through, which `next_at` has allowed."""
        if self._open_until is not None:
            self._probed_until = Instant(now + PROBE_PATIENCE_US)
        return self._period

    def ended(self, permit: Permit, health: Health, now: Instant, *, failure: Failure | None, saga_id: str) -> Circuit | None:
        """A call that was let through has ended; returns the new state if that changed it, OPEN also if it stays open for longer."""
        if permit != self._period:
            return None
        match health:
            case Health.WELL:
                self.last_failure = None
                return self._close()
            case Health.UNTOLD:
                self._probed_until = None
                return None
            case Health.AWAY | Health.OVERWHELMED:
                self.last_failure = failure
                return self._count(health, saga_id, now)

    def hasten(self, now: Instant) -> None:
        """There is a sign of life: a probe may go at once."""
        if self._open_until is not None:
            self._open_until = min(self._open_until, now)

    def postpone(self, until: Instant) -> None:
        """It is known without a probe that one would fail. Nothing was tried, so the time does not double."""
        if self._open_until is not None:
            self._open_until = max(self._open_until, until)

    def _count(self, health: Health, saga_id: str, now: Instant) -> Circuit | None:
        if self._open_until is None and not self._is_enough(health, saga_id):
            return None
        self._openings += 1
        open_us = min(self._open_us << min(self._openings - 1, _DOUBLINGS_MAX), self._open_us_max)
        self._open_until = Instant(now + self._jittered_us(open_us))
        self._begin_period()
        return Circuit.OPEN

    def _is_enough(self, health: Health, saga_id: str) -> bool:
        """Counts one failure more while the circuit is closed."""
        if not self._failures_max or (health is Health.OVERWHELMED and saga_id in self._overwhelmed_by):
            return False
        if health is Health.OVERWHELMED:
            self._overwhelmed_by.add(saga_id)
        self._failures += 1
        return self._failures >= self._failures_max

    def _close(self) -> Circuit | None:
        self._forget_failures()
        self._openings = 0
        if self._open_until is None:
            return None
        self._open_until = None
        self._begin_period()
        return Circuit.CLOSED

    def _begin_period(self) -> None:
        self._period = Permit(self._period + 1)
        self._probed_until = None
        self._forget_failures()

    def _forget_failures(self) -> None:
        self._failures = 0
        self._overwhelmed_by.clear()

    def _jittered_us(self, wait_us: int) -> int:
        """Drawn from [wait/2, wait] by a stable hash, so that participants that fell together are not all tried together."""
        drawn = int.from_bytes(blake2b(f"{self._name}/{self._period}".encode(), digest_size=8).digest())
        half = wait_us // 2
        return wait_us - half + ((half * drawn) >> 64)
