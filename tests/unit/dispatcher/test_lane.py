"""The calls of one participant: order, places, expiry, bounds."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coordinator.core.effects import CallParticipant
from coordinator.core.values import AttemptKey, Direction, Instant, SagaId, StepId
from coordinator.dispatcher.circuit import Health
from coordinator.dispatcher.lane import STALE_EXPIRIES_MAX, WAITING_MAX, Lane, Wishes
from coordinator.engine.ports import CallPlace, Circuit
from coordinator.limits import ParticipantLimits
from tests.builders import at, failure, seconds, sequence, started

PLAIN = started(sequence("charge")).effect("charge")
NOW = at(1_000)


def call(number: int, *, timeout_s: float = 10, send_before: Instant | None = None) -> CallParticipant:
    return replace(PLAIN, attempt=PLAIN.attempt._replace(number=number), timeout_us=seconds(timeout_s), send_before=send_before)


def filled(*calls: CallParticipant, concurrency: int = 100) -> Lane:
    lane = Lane("shop", ParticipantLimits(concurrency=concurrency))
    assert all(lane.put(one, NOW) for one in calls)
    return lane


def taken(lane: Lane, now: Instant = NOW) -> list[int]:
    """The numbers of the calls that may go, in order."""
    numbers: list[int] = []
    while (one := lane.take_next(now)) is not None:
        numbers.append(one.attempt.number)
    return numbers


def end(lane: Lane, number: int, health: Health = Health.WELL, now: Instant = NOW) -> Circuit | None:
    """The call of that number ends."""
    return lane.ended(call(number), health, now, failure(14, "nobody there"))


def expired(lane: Lane, now: Instant) -> list[int]:
    return [one.attempt.number for one in lane.take_expired(now)]


def test_first_come_is_first_served() -> None:
    assert taken(filled(call(3), call(1), call(2))) == [3, 1, 2]


def test_no_more_than_the_concurrency_are_under_way() -> None:
    lane = filled(call(1), call(2), call(3), concurrency=2)
    assert taken(lane) == [1, 2]
    assert (len(lane), lane.under_way) == (1, 2)
    end(lane, 1)
    assert taken(lane) == [3]


def test_empty_lane_has_nothing() -> None:
    lane = Lane("shop", ParticipantLimits())
    assert taken(lane) == []
    assert expired(lane, at(10**9)) == []
    assert lane.next_expiry is None
    assert lane.under_way == 0


def test_call_waits_as_long_as_one_attempt_may_take() -> None:
    lane = filled(call(1, timeout_s=5))
    assert lane.next_expiry == at(1_005)
    assert expired(lane, Instant(at(1_005) - 1)) == []
    assert expired(lane, at(1_005)) == [1]
    assert len(lane) == 0


def test_limit_of_the_step_comes_first_if_it_is_sooner() -> None:  # R13
    lane = filled(call(1, timeout_s=5, send_before=at(1_002)), call(2, timeout_s=5, send_before=at(1_999)))
    assert expired(lane, at(1_002)) == [1]
    assert lane.next_expiry == at(1_005)


def test_expired_call_never_goes() -> None:  # R13
    lane = filled(call(1, timeout_s=1), call(2, timeout_s=9))
    assert taken(lane, at(1_001)) == [2]
    assert expired(lane, at(1_001)) == [1]


def test_call_that_went_does_not_expire() -> None:
    lane = filled(call(1), call(2))
    lane.concurrency = 1
    assert taken(lane) == [1]
    assert expired(lane, at(2_000)) == [2]


def test_withdrawn_calls_are_given_back_once() -> None:
    lane = filled(call(1), call(2))
    attempt = call(1).attempt
    assert [one.attempt for one in lane.withdraw(PLAIN.saga_id, [attempt, attempt])] == [attempt]
    assert list(lane.withdraw(PLAIN.saga_id, [attempt])) == []
    assert taken(lane) == [2]
    assert expired(lane, at(2_000)) == []


def test_only_that_attempt_of_that_saga_is_withdrawn() -> None:
    lane = filled(call(1))
    other = AttemptKey(StepId("charge"), Direction.COMPENSATE, 1, 1)
    assert list(lane.withdraw(PLAIN.saga_id, [other])) == []
    assert list(lane.withdraw(SagaId("another"), [call(1).attempt])) == []
    assert taken(lane) == [1]


def test_abandoned_calls_are_forgotten() -> None:
    lane = filled(call(1), call(2))
    assert lane.abandon() == 2
    assert (taken(lane), expired(lane, at(2_000)), lane.next_expiry) == ([], [], None)


@pytest.mark.full
def test_full_lane_takes_no_more_and_is_emptied_in_its_order() -> None:
    """With a plain dict in it, emptying took seconds of the loop: the first entry was searched for behind all that had gone."""
    lane = filled(*(call(number) for number in range(WAITING_MAX)), concurrency=WAITING_MAX + 1)
    assert not lane.put(call(WAITING_MAX), NOW)
    assert lane.take_next(NOW) is not None
    assert lane.put(call(WAITING_MAX), NOW)
    assert taken(lane) == list(range(1, WAITING_MAX + 1))


def test_expiries_of_calls_that_went_do_not_pile_up() -> None:
    lane = filled(call(0, timeout_s=1), concurrency=10**6)
    lane.concurrency = 0
    for number in range(1, 5 * STALE_EXPIRIES_MAX):
        lane.put(call(number, timeout_s=86_400), NOW)
        list(lane.withdraw(PLAIN.saga_id, [call(number).attempt]))
        assert len(lane._expiries) <= 2 * (len(lane) + 1) + STALE_EXPIRIES_MAX
    assert lane.next_expiry == at(1_001)
    assert expired(lane, at(1_001)) == [0]


# ── Protection ───────────────────────────────────────────────────────────────────────────────────────────────────────────────────


def limited(*calls: CallParticipant, **limits: float) -> Lane:
    lane = Lane("shop", ParticipantLimits(**limits))  # type: ignore[arg-type]
    assert all(lane.put(one, NOW) for one in calls)
    return lane


def unwell(*calls: CallParticipant) -> Lane:
    """A lane whose circuit has opened, and calls that wait in it."""
    lane = limited(call(0), circuit_failures=1)
    assert taken(lane) == [0]
    assert end(lane, 0, Health.AWAY) is Circuit.OPEN
    assert all(lane.put(one, NOW) for one in calls)
    return lane


def test_no_more_than_the_rate_go() -> None:
    lane = limited(*map(call, range(1, 8)), rate_per_second=20)
    assert taken(lane) == [1, 2]
    assert lane.next_wake(NOW) == NOW + 50_000
    assert taken(lane, Instant(NOW + 50_000)) == [3]


def test_calls_wait_while_the_circuit_is_open_then_one_goes() -> None:
    lane = unwell(call(1), call(2))
    assert taken(lane) == []
    wake_at = lane.next_wake(NOW)
    assert wake_at is not None
    assert wake_at == lane.circuit.next_at(NOW)
    assert taken(lane, wake_at) == [1]
    assert taken(lane, wake_at) == []
    assert end(lane, 1, Health.WELL, wake_at) is Circuit.CLOSED
    assert taken(lane, wake_at) == [2]


def test_calls_that_wait_for_an_open_circuit_expire_like_others() -> None:  # R7
    lane = unwell(call(1, timeout_s=0.2))
    assert lane.next_wake(NOW) == NOW + seconds(0.2)
    assert expired(lane, Instant(NOW + seconds(0.2))) == [1]


def test_nothing_is_waited_for_by_time_when_only_a_reply_can_help() -> None:
    lane = limited(call(1), call(2), call(3), concurrency=1, rate_per_second=20)
    assert taken(lane) == [1]
    assert lane.next_wake(NOW) == lane.next_expiry
    assert Lane("shop", ParticipantLimits()).next_wake(NOW) is None


@pytest.mark.parametrize(
    ("wishes", "concurrency", "rate"),
    [
        (Wishes(), 8, 100.0),
        (Wishes(concurrency=3, rate_per_second=7.5), 3, 7.5),
        (Wishes(concurrency=1_000, rate_per_second=1_000), 8, 100.0),
        (Wishes(rate_per_second=-1), 8, 100.0),
        (Wishes(rate_per_second=float("nan")), 8, 100.0),
    ],
)
def test_wishes_only_lower(wishes: Wishes, concurrency: int, rate: float) -> None:
    lane = limited(concurrency=8, rate_per_second=100)
    lane.heed(wishes, NOW)
    assert (lane.concurrency, lane.rate.per_second) == (concurrency, rate)
    lane.heed(Wishes(), NOW)
    assert (lane.concurrency, lane.rate.per_second) == (8, 100.0)


def test_wished_rate_holds_where_there_is_no_limit() -> None:
    lane = limited()
    lane.heed(Wishes(rate_per_second=5), NOW)
    assert lane.rate.per_second == 5


def place(lane: Lane, number: int) -> CallPlace:
    return lane.place_of((PLAIN.saga_id, call(number).attempt), NOW)


def test_place_of_a_call_says_why_it_waits() -> None:
    lane = limited(call(1), call(2), concurrency=1)
    assert taken(lane) == [1]
    assert (place(lane, 1), place(lane, 2), place(lane, 3)) == (CallPlace.UNDER_WAY, CallPlace.NO_PLACE, CallPlace.NOT_HERE)
    end(lane, 1)
    assert place(lane, 1) is CallPlace.NOT_HERE

    lane = limited(call(1), call(2), rate_per_second=1)
    assert taken(lane) == [1]
    assert place(lane, 2) is CallPlace.RATE

    lane = unwell(call(1))
    assert place(lane, 1) is CallPlace.CIRCUIT_OPEN


def test_call_that_ends_twice_ends_once() -> None:
    lane = limited(call(1), circuit_failures=2)
    assert taken(lane) == [1]
    assert [end(lane, 1, Health.AWAY) for _ in range(3)] == [None] * 3
    assert (lane.under_way, lane.circuit.state(NOW)) == (0, Circuit.CLOSED)


class Change:
    """What can happen to a lane."""

    put = st.tuples(st.just("put"), st.integers(1, 20), st.integers(1, 30))
    withdraw = st.tuples(st.just("withdraw"), st.integers(1, 20), st.just(0))
    take = st.tuples(st.just("take"), st.integers(0, 40), st.just(0))
    expire = st.tuples(st.just("expire"), st.integers(0, 40), st.just(0))


@given(st.lists(st.one_of(Change.put, Change.withdraw, Change.take, Change.expire), max_size=60))
def test_every_call_leaves_the_lane_exactly_once(changes: list[tuple[str, int, int]]) -> None:
    lane = Lane("shop", ParticipantLimits(concurrency=3))
    inside: set[int] = set()
    ever: set[int] = set()
    now = NOW
    for what, number, timeout_s in changes:
        gone: list[int] = []
        if what == "put" and number not in ever:
            assert lane.put(call(number, timeout_s=timeout_s), now)
            ever.add(number)
            inside.add(number)
        elif what == "withdraw":
            gone = [one.attempt.number for one in lane.withdraw(PLAIN.saga_id, [call(number).attempt])]
        elif what == "take":
            one = lane.take_next(now)
            gone = [] if one is None else [one.attempt.number]
            for gone_number in gone:
                end(lane, gone_number)
        elif what == "expire":
            now = Instant(max(now, NOW + seconds(number)))
            gone = expired(lane, now)
        assert set(gone) <= inside
        assert len(gone) == len(set(gone))
        inside -= set(gone)
        assert len(lane) == len(inside)
        assert (lane.next_expiry is None) == (not inside)
