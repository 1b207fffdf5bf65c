"""The calls of one participant: order, places, expiry, bounds."""

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from coordinator.core.effects import CallParticipant
from coordinator.core.values import AttemptKey, Direction, Instant, SagaId, StepId
from coordinator.dispatcher.lane import STALE_EXPIRIES_MAX, WAITING_MAX, Lane
from tests.builders import at, seconds, sequence, started

PLAIN = started(sequence("charge")).effect("charge")
NOW = at(1_000)


def call(number: int, *, timeout_s: float = 10, send_before: Instant | None = None) -> CallParticipant:
    return replace(PLAIN, attempt=PLAIN.attempt._replace(number=number), timeout_us=seconds(timeout_s), send_before=send_before)


def filled(*calls: CallParticipant, concurrency: int = 100) -> Lane:
    lane = Lane(concurrency)
    assert all(lane.put(one, NOW) for one in calls)
    return lane


def taken(lane: Lane, now: Instant = NOW) -> list[int]:
    """The numbers of the calls that may go, in order."""
    numbers: list[int] = []
    while (one := lane.take_next(now)) is not None:
        numbers.append(one.attempt.number)
    return numbers


def expired(lane: Lane, now: Instant) -> list[int]:
    return [one.attempt.number for one in lane.take_expired(now)]


def test_first_come_is_first_served() -> None:
    assert taken(filled(call(3), call(1), call(2))) == [3, 1, 2]


def test_no_more_than_the_concurrency_are_under_way() -> None:
    lane = filled(call(1), call(2), call(3), concurrency=2)
    assert taken(lane) == [1, 2]
    assert (len(lane), lane.under_way) == (1, 2)
    lane.under_way -= 1
    assert taken(lane) == [3]


def test_empty_lane_has_nothing() -> None:
    lane = Lane(1)
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


class Change:
    """What can happen to a lane."""

    put = st.tuples(st.just("put"), st.integers(1, 20), st.integers(1, 30))
    withdraw = st.tuples(st.just("withdraw"), st.integers(1, 20), st.just(0))
    take = st.tuples(st.just("take"), st.integers(0, 40), st.just(0))
    expire = st.tuples(st.just("expire"), st.integers(0, 40), st.just(0))


@given(st.lists(st.one_of(Change.put, Change.withdraw, Change.take, Change.expire), max_size=60))
def test_every_call_leaves_the_lane_exactly_once(changes: list[tuple[str, int, int]]) -> None:
    lane = Lane(3)
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
            lane.under_way -= len(gone)
        elif what == "expire":
            now = Instant(max(now, NOW + seconds(number)))
            gone = expired(lane, now)
        assert set(gone) <= inside
        assert len(gone) == len(set(gone))
        inside -= set(gone)
        assert len(lane) == len(inside)
        assert (lane.next_expiry is None) == (not inside)
