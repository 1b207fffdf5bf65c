"""Waking sagas, with one timer of the clock for all of them, and leaving nothing behind."""

from coordinator.core.values import SagaId, SagaStatus
from coordinator.engine.timers import STALE_MAX, Timers
from tests.builders import at, parallel, retry_later, sequence, step, succeeded, unknown
from tests.fakes import Shell, VirtualClock

A, B = SagaId("a"), SagaId("b")


def _timers() -> tuple[VirtualClock, list[SagaId], Timers]:
    clock, woken = VirtualClock(), list[SagaId]()
    return clock, woken, Timers(clock, woken.append)


async def test_each_saga_is_woken_once_at_its_instant() -> None:
    clock, woken, timers = _timers()
    timers.set(A, at(1_010))
    timers.set(B, at(1_005))
    assert clock.armed == [at(1_005)]
    await clock.pass_time(5)
    assert woken == [B]
    assert clock.armed == [at(1_010)]
    await clock.pass_time(100)
    assert (woken, clock.armed) == ([B, A], [])


async def test_later_instant_takes_the_place_of_the_earlier() -> None:
    clock, woken, timers = _timers()
    timers.set(A, at(1_005))
    timers.set(A, at(1_010))
    await clock.pass_time(9)
    assert woken == []
    await clock.pass_time(1)
    assert woken == [A]


async def test_earlier_instant_takes_the_place_of_the_later() -> None:
    clock, woken, timers = _timers()
    timers.set(A, at(1_010))
    timers.set(A, at(1_005))
    timers.set(A, at(1_005))
    await clock.pass_time(20)
    assert (woken, clock.armed) == ([A], [])


async def test_saga_that_wants_none_is_not_woken() -> None:
    clock, woken, timers = _timers()
    timers.set(A, at(1_005))
    timers.set(A, None)
    timers.set(B, None)
    assert clock.armed == []
    await clock.pass_time(20)
    assert woken == []


async def test_instant_in_the_past_wakes_as_soon_as_the_loop_turns() -> None:
    clock, woken, timers = _timers()
    timers.set(A, at(1))
    await clock.pass_time(0)
    assert woken == [A]


async def test_closed_timers_wake_nobody() -> None:
    clock, woken, timers = _timers()
    timers.set(A, at(1_005))
    timers.close()
    timers.close()
    await clock.pass_time(20)
    assert (woken, clock.armed) == ([], [])


async def test_replaced_entries_do_not_pile_up() -> None:
    _, _, timers = _timers()
    timers.set(A, at(9_999))
    for number in range(3 * STALE_MAX):
        timers.set(SagaId(f"saga {number}"), at(5_000))
        timers.set(SagaId(f"saga {number}"), None)
    assert len(timers._heap) <= STALE_MAX + 4


# ── In the engine ────────────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_attempt_in_backoff_is_released_when_it_is_due() -> None:
    shell = Shell()
    await shell.run(sequence("reserve"))
    await shell.end_and_commit("reserve", retry_later(5))
    assert (shell.dispatcher.sent(), shell.clock.armed) == (set(), [at(1_005)])
    await shell.clock.pass_time(4.9)
    assert shell.dispatcher.sent() == set()
    await shell.clock.pass_time(0.1)
    assert shell.dispatcher.sent() == {"reserve execute 2"}
    assert shell.journal.queued == []  # nothing was decided


async def test_backoff_shorter_than_a_slow_commit_is_released_with_the_commit() -> None:  # R25
    shell = Shell()
    await shell.run(sequence("reserve"))
    await shell.dispatcher.end("reserve", unknown())
    await shell.clock.pass_time(5)
    assert shell.dispatcher.sent() == set()
    shell.journal.commit()
    assert shell.dispatcher.sent() == {"reserve execute 2"}


async def test_sibling_in_flight_is_not_sent_twice_when_a_retry_is_due() -> None:
    shell = Shell()
    await shell.run(parallel("reserve", "charge"))
    await shell.end_and_commit("reserve", retry_later(5))
    await shell.clock.pass_time(5)
    assert sorted(call.attempt.step_id for call in shell.dispatcher.under_way) == ["charge", "reserve"]


async def test_saga_limit_turns_the_saga_back() -> None:  # R13
    shell = Shell()
    await shell.run(sequence("reserve", limit_s=60))
    assert shell.clock.armed == [at(1_060)]
    await shell.clock.pass_time(60)
    assert [append.status for append in shell.journal.queued] == [SagaStatus.COMPENSATING]
    assert len(shell.dispatcher.withdrawn) == 1


async def test_silent_sibling_is_compensated_when_the_saga_is_quiet() -> None:  # R12
    shell = Shell()
    await shell.run(sequence(step("reserve", limit_s=600), limit_s=60))
    await shell.clock.pass_time(60)
    shell.journal.commit()
    assert shell.clock.armed == [at(1_060.5)]
    await shell.clock.pass_time(0.5)
    shell.journal.commit()
    assert "reserve compensate 1" in shell.dispatcher.sent()


async def test_delayed_start_is_stored_with_its_instant_and_begins_then() -> None:
    shell = Shell()
    shell.start(sequence("reserve"), start_at=1_100)
    assert [append.wake_at for append in shell.journal.queued] == [at(1_100)]
    shell.journal.commit()
    assert shell.dispatcher.sent() == set()
    await shell.clock.pass_time(100)
    assert [append.wake_at for append in shell.journal.queued] == [None]
    shell.journal.commit()
    assert shell.dispatcher.sent() == {"reserve execute 1"}


async def test_many_waiting_sagas_use_one_timer_of_the_clock() -> None:
    shell = Shell()
    for number in range(20):
        shell.start(sequence("reserve"), SagaId(f"saga {number:02}"), start_at=1_100 + number)
    shell.journal.commit()
    assert shell.clock.armed == [at(1_100)]


async def test_nothing_is_left_after_a_thousand_finished_sagas() -> None:
    """Slots, timers, listeners and what the dispatcher owes: memory must not grow with what is over."""
    shell = Shell()
    plan = sequence("reserve", limit_s=3_600)
    for number in range(1_000):
        saga_id = SagaId(f"saga {number}")
        shell.start(plan, saga_id)
        leave = shell.engine.subscribe(saga_id, lambda: None)
        shell.listen_for_end(saga_id)
        shell.journal.commit()
        calls, retried = list(shell.dispatcher.under_way), number % 2
        await shell.dispatcher.end_all([(call, unknown() if retried else succeeded()) for call in calls])
        shell.journal.commit()
        if retried:
            await shell.clock.pass_time(1)
            await shell.end_and_commit("reserve", succeeded(), saga_id)
        leave()
    engine = shell.engine
    assert shell.ends == [SagaStatus.COMPLETED] * 1_000
    assert (len(engine.held), shell.clock.armed, shell.dispatcher.under_way) == (0, [], [])
    held = engine.held
    assert (held._timers._heap, held._timers._wanted, held._resting, held.abandoned._counts) == ([], {}, {}, {})
    assert engine._subscriptions._listeners == {}
    assert (engine._uncommitted, engine._starts_uncommitted, engine._in_flight, len(engine._inbox)) == (0, 0, 0, 0)
