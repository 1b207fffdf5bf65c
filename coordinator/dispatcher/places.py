"""Which of several places of a participant gets the next call. Decides only; sends nothing."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from coordinator.core.effects import CallParticipant
from coordinator.core.values import Failure, Instant
from coordinator.dispatcher.circuit import CircuitBreaker, Health, Permit
from coordinator.limits import ParticipantLimits


class Place(NamedTuple):
    """Where a call goes."""

    address: str
    """gRPC target."""
    permit: Permit | None
    """None: there was nothing to choose, or nothing better."""


class Places:
    """Takes the places of one participant in turn, and passes over those that cannot be reached or fail call after call while there are
    others. Where there are none the call goes to its place all the same: leaving a participant alone altogether is for its lane to decide,
    which sees all calls.
    """

    def __init__(self, name: str, limits: ParticipantLimits) -> None:
        self._name = name
        self._limits = limits
        self._turn = -1
        self._circuits: dict[str, CircuitBreaker] = {}

    def choose(self, addresses: Sequence[str], now: Instant, is_cut_off: Callable[[str], bool]) -> Place:
        """One of at least one."""
        self._turn += 1
        count = len(addresses)
        if count == 1:
            return Place(addresses[0], None)
        for step in range(count):
            address = addresses[(self._turn + step) % count]
            circuit = self._circuits.get(address)
            if circuit is None:
                circuit = self._circuits[address] = CircuitBreaker(f"{self._name} {address}", self._limits)
            if circuit.next_at(now) <= now and not is_cut_off(address):
                self._turn += step
                return Place(address, circuit.take(now))
        return Place(addresses[self._turn % count], None)

    def ended(self, place: Place, call: CallParticipant, health: Health, now: Instant, failure: Failure | None = None) -> None:
        """A call to a place has ended."""
        circuit = self._circuits.get(place.address)
        if circuit is not None and place.permit is not None:
            circuit.ended(place.permit, health, now, failure=failure, saga_id=call.saga_id)

    def keep(self, addresses: Sequence[str]) -> None:
        """Forgets what is known of all other places."""
        self._circuits = {address: circuit for address, circuit in self._circuits.items() if address in addresses}
