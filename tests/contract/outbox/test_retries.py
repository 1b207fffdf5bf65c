"""What becomes of events that do not get through, and of those that wait behind them."""

import asyncio
from dataclasses import replace
from datetime import timedelta

from sqlalchemy import text

from participant_sdk.outbox import BrokerUnavailable, OutboxEvent, OutboxKind, PublishRefused
from participant_sdk.outbox.store import GivenUp
from tests.contract.barrier.calls import ManualClock
from tests.outboxes import QUICK, OutboxWorld, Recorder, StartRecorder, execute, flush, name_of, placed, until


async def test_publisher_that_fails_twice_gets_the_same_event_a_third_time(world: OutboxWorld) -> None:
    recorder = Recorder(faults={"one": [ConnectionError("lost"), ValueError("odd")], "two": []})
    await world.place("one", "two")
    async with world.relay(recorder):
        await recorder.until(2)
    tries = [event for event in recorder.tries if event.payload == recorder.tries[0].payload]
    assert [event.attempt for event in tries] == [1, 2, 3]
    assert len({event.id for event in tries}) == 1
    assert await world.rows("status", "attempts", "last_error") == [("PUBLISHED", 3, "ValueError: odd"), ("PUBLISHED", 1, "")]


async def test_pause_before_a_retry_doubles_and_is_kept(world: OutboxWorld) -> None:
    clock = ManualClock()
    recorder = Recorder(always={"one": ConnectionError("away")})
    await world.place("one")
    policy = replace(QUICK, backoff_min=timedelta(seconds=10), backoff_max=timedelta(seconds=25))
    async with world.relay(recorder, policy=policy, clock=clock):
        for tries, longest_s in enumerate((10, 20, 25), start=1):
            await world.until_statistics(lambda statistics: statistics.retrying == 1)
            ((due_us,),) = await world.rows("next_attempt_at_us", where="status = 'PENDING'")
            assert isinstance(due_us, int)
            assert longest_s / 2 <= (due_us - clock()) / 1e6 <= longest_s
            clock.now_us = due_us - 1
            await world.place(f"other {tries}")  # When this is taken, "one" was not due.
            await recorder.until(tries)
            assert [event.attempt for event in recorder.tries if name_of(event) == "one"] == [*range(1, tries + 1)]
            clock.now_us = due_us
            await until(lambda: [event.attempt for event in recorder.tries if name_of(event) == "one"][-1] == tries + 1)  # noqa: B023


async def test_event_that_always_fails_is_given_up_and_the_others_go_on(world: OutboxWorld) -> None:
    recorder = Recorder(always={"bad": ConnectionError("no\0way" + "y" * 5_000)})
    await world.place("bad", "good")
    async with world.relay(recorder):
        statistics = await world.until_statistics(lambda statistics: statistics.failed == 1)
        await recorder.until(1)
    assert statistics.pending == 0
    (failed,) = await world.outbox.failed(world.engine)
    assert (failed.topic, failed.attempts, failed.message_type) == ("orders", 5, "google.protobuf.StringValue")
    assert failed.last_error.startswith("ConnectionError: noway")
    assert len(failed.last_error) == 1_000
    assert recorder.names == ["good"]
    assert [event.attempt for event in recorder.tries if event.id == failed.id] == [1, 2, 3, 4, 5]


async def test_refused_event_is_given_up_at_once(world: OutboxWorld) -> None:
    recorder = Recorder(always={"bad": PublishRefused("too large")})
    await world.place("bad")
    async with world.relay(recorder):
        await world.until_statistics(lambda statistics: statistics.failed == 1)
    assert await world.rows("status", "attempts", "last_error") == [("FAILED", 1, "PublishRefused: too large")]


async def test_publisher_that_hangs_is_cut_short_and_called_again(world: OutboxWorld) -> None:
    recorder = Recorder()
    recorder.gate.clear()
    await world.place("one")
    async with world.relay(recorder, publish_time_limit=timedelta(milliseconds=50)):
        await until(lambda: len(recorder.tries) == 2)
        recorder.gate.set()
        await recorder.until(1)
    ((error,),) = await world.rows("last_error")
    assert error == "no answer within 0.05 s"


async def test_call_that_is_cancelled_from_within_is_made_again(world: OutboxWorld) -> None:
    class Closing(Recorder):
        async def publish(self, event: OutboxEvent, /) -> None:
            if event.attempt == 1:
                self.tries.append(event)
                raise asyncio.CancelledError
            await super().publish(event)

    recorder = Closing()
    await world.place("one")
    async with world.relay(recorder):
        await recorder.until(1)
    assert await world.rows("status", "last_error") == [("PUBLISHED", "the call was cancelled, and not by the relay")]


async def test_row_that_was_damaged_stops_no_other(world: OutboxWorld) -> None:
    async with world.transaction() as session:
        world.outbox.start_saga(session, "place-order", placed("bad"))
        world.outbox.publish(session, placed("bad"), topic="t")
        world.outbox.start_saga(session, "place-order", placed("good"))
        world.outbox.publish(session, placed("good"), topic="t")
        await flush(session)
        await execute(session, text("UPDATE saga_outbox SET payload = :bytes WHERE position = 1").bindparams(bytes=b"\xff"))
        await execute(session, text("UPDATE saga_outbox SET headers = 'no JSON' WHERE position = 2"))
    recorder, starter = Recorder(), StartRecorder()
    async with world.relay(recorder, starter):
        statistics = await world.until_statistics(lambda statistics: statistics.failed == 2 and statistics.published == 2)
    assert statistics.pending == 0
    assert recorder.names == ["good"]
    assert len(starter.requests) == 1


async def test_broker_that_is_away_is_not_held_against_any_event(world: OutboxWorld) -> None:
    names = [f"{number:02}" for number in range(40)]
    recorder = Recorder(always={name: BrokerUnavailable("connection refused") for name in names})
    await world.place(*names)
    async with world.relay(recorder):
        await until(lambda: len(recorder.tries) > QUICK.concurrency + 2 * QUICK.attempts_max)
        recorder.always.clear()
        await recorder.until(len(names))
    statistics = await world.statistics()
    assert (statistics.published, statistics.failed) == (40, 0)
    assert {attempts for (attempts,) in await world.rows("attempts")} == {1}
    # All that were under way found it out, then one at a time.
    assert len(recorder.tries) < len(names) + 2 * QUICK.concurrency + 20 * QUICK.attempts_max


async def test_events_of_a_key_wait_behind_one_that_fails_and_keep_their_order(world: OutboxWorld) -> None:
    recorder = Recorder(faults={"b": [ConnectionError("lost"), ConnectionError("lost")], **{name: [] for name in "acdexyz"}})
    await world.place("a", "b", "c", key="k")
    await world.place("d", key="k")
    await world.place("x", key="other")
    await world.place("y")
    async with world.relay(recorder):
        await until(lambda: len(recorder.tries) >= 3)
        await world.place("e", key="k")
        await recorder.until(7)
    assert [name for name in recorder.names if name in "abcde"] == ["a", "b", "c", "d", "e"]
    assert {attempts for (attempts,) in await world.rows("attempts")} == {1, 3}


async def test_failed_event_holds_back_its_key_until_it_is_redriven(world: OutboxWorld) -> None:
    recorder = Recorder(always={"b": PublishRefused("no")})
    await world.place("a", "b", "c", "d", key="k")
    async with world.relay(recorder):
        statistics = await world.until_statistics(lambda statistics: statistics.held == 2)
        await world.place("e", key="k")
        await world.place("x", key="other")
        await recorder.until(2)
        statistics = await world.until_statistics(lambda statistics: statistics.held == 3 and statistics.published == 2)
        assert sorted(recorder.names) == ["a", "x"]
        assert (statistics.pending, statistics.failed, statistics.retrying) == (3, 1, 0)
        (failed,) = await world.outbox.failed(world.engine)
        recorder.always.clear()
        assert await world.outbox.redrive(world.engine, [failed.id, failed.id]) == 1
        assert await world.outbox.redrive(world.engine, [failed.id]) == 0
        await recorder.until(6)
    assert [name for name in recorder.names if name != "x"] == ["a", "b", "c", "d", "e"]
    assert {attempts for (attempts,) in await world.rows("attempts")} == {1}


async def test_discarded_event_lets_its_key_go_on(world: OutboxWorld) -> None:
    recorder = Recorder(always={"a": PublishRefused("no")})
    await world.place("a", "b", key="k")
    async with world.relay(recorder):
        await world.until_statistics(lambda statistics: statistics.held == 1)
        (failed,) = await world.outbox.failed(world.engine)
        assert await world.outbox.discard(world.engine, [failed.id]) == 1
        await recorder.until(1)
    assert recorder.names == ["b"]
    assert await world.rows("status") == [("PUBLISHED",)]


async def test_pending_event_is_neither_redriven_nor_discarded(world: OutboxWorld) -> None:
    async with world.transaction() as session:
        pending = world.outbox.publish(session, b"", topic="t")
    assert await world.outbox.redrive(world.engine, [pending]) == await world.outbox.discard(world.engine, [pending]) == 0
    assert await world.outbox.redrive_all(world.engine) == 0
    assert (await world.statistics()).pending == 1


async def test_all_failed_events_are_redriven_in_several_steps(world: OutboxWorld) -> None:
    count = 520
    async with world.transaction() as session:
        for _ in range(count):
            world.outbox.publish(session, b"", topic="t")
    store = world.outbox.store(world.engine)
    while (taken := await store.take(OutboxKind.EVENT, limit=256, lease_us=60_000_000)).rows:
        await store.settle([GivenUp(position=row.position, token=taken.token, error="no") for row in taken.rows])
    assert (await world.statistics()).failed == count
    assert len(await world.outbox.failed(world.engine, limit=3)) == 3
    assert await world.outbox.redrive_all(world.engine) == count
    statistics = await world.statistics()
    assert (statistics.pending, statistics.failed, statistics.held) == (count, 0, 0)
