"""The circuit breaker: when it opens, for how long, and that one call at a time looks how things are."""

from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coordinator.core.values import Instant
from coordinator.dispatcher.circuit import PROBE_PATIENCE_US, CircuitBreaker, Health, Permit
from coordinator.engine.ports import Circuit
from coordinator.limits import ParticipantLimits
from tests.builders import at, failure, seconds

LIMITS = ParticipantLimits(circuit_failures=3, circuit_open_s=1, circuit_open_s_max=8)
NOW = at(1_000)
LATER = at(1_001)
"""No circuit that opened now for the first time is open any more."""


def breaker(limits: ParticipantLimits = LIMITS) -> CircuitBreaker:
    return CircuitBreaker("shop", limits)


def end(circuit: CircuitBreaker, permit: Permit, health: Health, now: Instant = NOW, saga: str = "saga") -> Circuit | None:
    return circuit.ended(permit, health, now, failure=failure(14, "nobody there"), saga_id=saga)


def call(circuit: CircuitBreaker, health: Health, now: Instant = NOW, saga: str = "saga") -> Circuit | None:
    """A call that goes and ends at once."""
    assert circuit.next_at(now) <= now
    return end(circuit, circuit.take(now), health, now, saga)


def opened(limits: ParticipantLimits = LIMITS) -> CircuitBreaker:
    circuit = breaker(limits)
    for _ in range(limits.circuit_failures):
        call(circuit, Health.AWAY)
    assert circuit.state(NOW) is Circuit.OPEN
    return circuit


def test_opens_with_the_last_of_so_many_failures_in_a_row() -> None:
    circuit = breaker()
    assert [call(circuit, Health.AWAY) for _ in range(3)] == [None, None, Circuit.OPEN]
    assert circuit.last_failure == failure(14, "nobody there")


def test_success_in_between_starts_the_count_again() -> None:
    circuit = breaker()
    assert [call(circuit, Health.AWAY) for _ in range(2)] == [None, None]
    assert call(circuit, Health.WELL) is None
    assert circuit.last_failure is None
    assert [call(circuit, Health.AWAY) for _ in range(3)] == [None, None, Circuit.OPEN]


def test_calls_that_say_nothing_neither_count_nor_start_the_count_again() -> None:
    circuit = breaker()
    healths = [Health.AWAY, Health.UNTOLD, Health.AWAY, Health.UNTOLD, Health.AWAY]
    assert [call(circuit, health) for health in healths] == [None, None, None, None, Circuit.OPEN]


def test_one_saga_that_is_too_slow_alone_opens_nothing_but_several_do() -> None:  # P5
    circuit = breaker()
    assert {call(circuit, Health.OVERWHELMED, saga="poison") for _ in range(50)} == {None}
    assert call(circuit, Health.OVERWHELMED, saga="second") is None
    assert call(circuit, Health.OVERWHELMED, saga="third") is Circuit.OPEN


def test_no_number_of_failures_opens_one_that_is_never_left_alone() -> None:
    circuit = breaker(ParticipantLimits(circuit_failures=0))
    assert {call(circuit, health, saga=str(n)) for n in range(500) for health in (Health.AWAY, Health.OVERWHELMED)} == {None}
    assert circuit.state(NOW) is Circuit.CLOSED
    assert circuit._overwhelmed_by == set()


def test_open_for_half_to_all_of_its_time_then_one_call_goes() -> None:
    circuit = opened()
    until = circuit.next_at(NOW)
    assert NOW + seconds(0.5) <= until <= NOW + seconds(1)
    assert circuit.state(Instant(until - 1)) is Circuit.OPEN
    assert circuit.state(until) is Circuit.HALF_OPEN
    assert circuit.next_at(until) <= until
    circuit.take(until)
    assert circuit.next_at(until) > until


def test_time_doubles_with_each_failed_probe_up_to_its_most_and_starts_anew_after_a_success() -> None:
    circuit, now = opened(), NOW
    lengths: list[float] = []
    for _ in range(7):
        until = circuit.next_at(now)
        lengths.append((until - now) / seconds(1))
        now = until
        assert call(circuit, Health.AWAY, now) is Circuit.OPEN
    for length, most in zip(lengths, [1, 2, 4, 8, 8, 8, 8], strict=True):
        assert most / 2 <= length <= most
    now = circuit.next_at(now)
    assert call(circuit, Health.WELL, now) is Circuit.CLOSED
    for _ in range(3):
        call(circuit, Health.AWAY, now)
    assert circuit.next_at(now) - now <= seconds(1)


def test_wait_is_the_same_for_the_same_participant_and_spread_over_others() -> None:
    waits = []
    for name in ("shop", "shop", *map(str, range(20))):
        circuit = CircuitBreaker(name, LIMITS)
        for _ in range(3):
            call(circuit, Health.AWAY)
        waits.append(circuit.next_at(NOW) - NOW)
    assert waits[0] == waits[1]
    assert len(set(waits)) == 21


def test_success_of_the_probe_closes() -> None:
    circuit = opened()
    assert call(circuit, Health.WELL, LATER) is Circuit.CLOSED
    assert (circuit.state(LATER), circuit.last_failure) == (Circuit.CLOSED, None)


def test_probe_that_says_nothing_makes_room_for_another() -> None:
    circuit = opened()
    assert call(circuit, Health.UNTOLD, LATER) is None
    assert circuit.state(LATER) is Circuit.HALF_OPEN
    assert call(circuit, Health.WELL, LATER) is Circuit.CLOSED


@pytest.mark.parametrize("health", Health)
def test_calls_from_before_it_opened_change_nothing(health: Health) -> None:
    circuit = breaker()
    old = circuit.take(NOW)
    for _ in range(3):
        call(circuit, Health.AWAY)
    until = circuit.next_at(NOW)
    assert end(circuit, old, health, NOW) is None
    assert (circuit.state(NOW), circuit.next_at(NOW)) == (Circuit.OPEN, until)
    circuit.take(LATER)
    assert end(circuit, old, health, LATER) is None
    assert circuit.next_at(LATER) > LATER  # the probe is still the one


def test_probe_that_does_not_come_back_lets_another_go_after_a_while() -> None:
    circuit = opened()
    first = circuit.take(LATER)
    patient = Instant(LATER + PROBE_PATIENCE_US)
    assert circuit.next_at(LATER) == patient
    assert call(circuit, Health.WELL, patient) is Circuit.CLOSED
    assert end(circuit, first, Health.AWAY, patient) is None
    assert circuit.state(patient) is Circuit.CLOSED


def test_sign_of_life_lets_the_probe_go_at_once_but_no_second_one() -> None:
    circuit = opened()
    circuit.hasten(NOW)
    assert circuit.next_at(NOW) <= NOW
    circuit.take(NOW)
    circuit.hasten(NOW)
    assert circuit.next_at(NOW) > NOW
    closed = breaker()
    closed.hasten(NOW)
    assert closed.state(NOW) is Circuit.CLOSED


def test_postponing_keeps_it_open_and_doubles_nothing() -> None:
    circuit = opened()
    for now in map(at, range(1_001, 1_021)):
        circuit.postpone(Instant(now + seconds(1)))
        assert circuit.next_at(now) == now + seconds(1)
    assert call(circuit, Health.AWAY, at(1_030)) is Circuit.OPEN
    assert circuit.next_at(at(1_030)) - at(1_030) <= seconds(2)
    closed = breaker()
    closed.postpone(LATER)
    assert closed.state(NOW) is Circuit.CLOSED


def test_most_below_the_least_is_the_least() -> None:
    circuit = opened(ParticipantLimits(circuit_failures=1, circuit_open_s=60, circuit_open_s_max=1))
    assert circuit.next_at(NOW) >= NOW + seconds(30)


class Sent(NamedTuple):
    permit: Permit
    at: Instant


moments = st.lists(
    st.one_of(
        st.tuples(st.just("wait"), st.integers(0, 5_000_000)),
        st.tuples(st.just("send"), st.just(0)),
        st.tuples(st.sampled_from(list(Health)), st.integers(0, 20)),
        st.tuples(st.sampled_from(["hasten", "postpone"]), st.integers(0, 2_000_000)),
    ),
    max_size=80,
)


@given(moments, st.integers(1, 4))
def test_never_two_probes_and_nothing_while_it_is_open(story: list[tuple[str | Health, int]], failures_max: int) -> None:
    circuit = breaker(ParticipantLimits(circuit_failures=failures_max, circuit_open_s=1, circuit_open_s_max=8))
    now = NOW
    under_way: list[Sent] = []
    probe: Sent | None = None
    for what, number in story:
        if what == "wait":
            now = Instant(now + number)
        elif what == "hasten":
            circuit.hasten(now)
        elif what == "postpone":
            circuit.postpone(Instant(now + number))
        elif what == "send":
            state = circuit.state(now)
            if circuit.next_at(now) > now:
                assert state is not Circuit.CLOSED
                continue
            assert state is not Circuit.OPEN
            sent = Sent(circuit.take(now), now)
            under_way.append(sent)
            if state is Circuit.HALF_OPEN:
                assert probe is None or now >= probe.at + PROBE_PATIENCE_US
                probe = sent
        elif isinstance(what, Health) and under_way:
            sent = under_way.pop(number % len(under_way))
            before = circuit.state(now)
            changed = end(circuit, sent.permit, what, now, saga=str(number))
            assert (changed is Circuit.OPEN) <= (circuit.state(now) is Circuit.OPEN)
            assert (changed is Circuit.CLOSED) <= (before is Circuit.HALF_OPEN and what is Health.WELL)
            if probe is not None and sent.permit == probe.permit:
                probe = None  # told, or cut: the next one may go
    assert circuit.next_at(now) - now <= max(seconds(8), PROBE_PATIENCE_US)
