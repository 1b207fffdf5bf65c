"""Several relays share the work; what one has, the others leave alone until its lease has ended."""

import asyncio
from datetime import timedelta

import pytest

from participant_sdk.outbox import OutboxKind
from participant_sdk.outbox.store import GivenUp, OutboxStore, Published, PutBack, Taken, TryLater
from tests.contract.barrier.calls import ManualClock
from tests.outboxes import QUICK, OutboxWorld, Recorder, until

LEASE_US = 60_000_000
SECOND_US = 1_000_000


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def store(world: OutboxWorld, clock: ManualClock) -> OutboxStore:
    return world.outbox.store(world.engine, clock=clock)


async def take(store: OutboxStore, limit: int = 100) -> Taken:
    return await store.take(OutboxKind.EVENT, limit=limit, lease_us=LEASE_US)


def names(taken: Taken) -> list[str]:
    return [row.event().payload[2:].decode() for row in taken.rows]


async def test_three_relays_publish_each_event_once_between_them(world: OutboxWorld) -> None:
    recorders = [Recorder() for _ in range(3)]
    for recorder in recorders:
        recorder.gate.clear()
    expected = sorted(f"{number:03}" for number in range(90))
    await world.place(*expected)
    relays = [world.relay(recorder, rows_max=10, concurrency=10, lease=timedelta(minutes=10)) for recorder in recorders]
    async with relays[0], relays[1], relays[2]:
        # Each has as many as it may have: none takes all of them away from the others.
        await until(lambda: all(len(recorder.tries) == 10 for recorder in recorders))
        for recorder in recorders:
            recorder.gate.set()
        await until(lambda: sum(len(recorder.events) for recorder in recorders) >= 90)
    assert sorted(name for recorder in recorders for name in recorder.names) == expected
    assert {attempts for (attempts,) in await world.rows("attempts")} == {1}


async def test_relays_at_the_same_moment_keep_the_order_of_every_key(world: OutboxWorld) -> None:
    keys = ("a", "b", "c", "d")
    recorder = Recorder()
    relays = [world.relay(recorder, rows_max=8) for _ in range(3)]
    async with relays[0], relays[1], relays[2]:
        for number in range(12):
            for key in keys:
                await world.place(f"{key}{number:02}", key=key)
        await recorder.until(48)
    for key in keys:
        assert [name for name in recorder.names if name.startswith(key)] == [f"{key}{number:02}" for number in range(12)]


async def test_number_of_calls_at_one_time_is_bounded(world: OutboxWorld) -> None:
    recorder = Recorder()
    recorder.gate.clear()
    await world.place(*[str(number) for number in range(20)])
    async with world.relay(recorder, concurrency=3):
        await until(lambda: len(recorder.tries) == 3)
        recorder.gate.set()
        await recorder.until(20)
    assert recorder.most_at_once == 3


async def test_rows_of_a_relay_that_died_are_due_when_its_lease_ends(world: OutboxWorld, store: OutboxStore, clock: ManualClock) -> None:
    await world.place("a", "b", key="k")
    assert names(await take(store)) == ["a", "b"]
    clock.now_us += LEASE_US - 1
    assert names(await take(store)) == []
    clock.now_us += 1
    again = await take(store)
    assert names(again) == ["a", "b"]
    assert [row.attempts for row in again.rows] == [2, 2]


async def test_row_written_later_waits_for_those_of_its_key_that_another_relay_has(
    world: OutboxWorld, store: OutboxStore, clock: ManualClock
) -> None:
    await world.place("a", key="k")
    first = await take(store)
    await world.place("b", key="k")
    await world.place("x")
    assert names(await take(store)) == ["x"]
    await store.settle([Published(position=first.rows[0].position)])
    clock.advance(1)
    assert names(await take(store)) == ["b"]


async def test_limit_cuts_off_the_end_of_a_key(world: OutboxWorld, store: OutboxStore) -> None:
    await world.place("a", "b", "c", key="k")
    assert names(await take(store, limit=2)) == ["a", "b"]
    assert names(await take(store)) == []


async def test_what_waits_for_a_retry_holds_back_its_key_for_as_long(world: OutboxWorld, store: OutboxStore, clock: ManualClock) -> None:
    await world.place("a", key="k")
    taken = await take(store)
    await store.settle([TryLater(position=taken.rows[0].position, token=taken.token, delay_us=9 * SECOND_US, error="lost")])
    await world.place("b", key="k")
    for _ in range(8):
        assert names(await take(store)) == []
        clock.advance(1)
    clock.advance(1)
    assert names(await take(store)) == ["a", "b"]


async def test_relay_that_lost_its_lease_changes_nothing_unless_it_has_published(
    world: OutboxWorld, store: OutboxStore, clock: ManualClock
) -> None:
    await world.place("a")
    slow = await take(store)
    clock.now_us += LEASE_US
    position = slow.rows[0].position
    quick = await take(store)
    before = await world.rows("status", "attempts", "next_attempt_at_us", "locked_by", "last_error")
    for late in (
        TryLater(position=position, token=slow.token, delay_us=0, error="late"),
        GivenUp(position=position, token=slow.token, error="late"),
        PutBack(position=position, token=slow.token, delay_us=0),
    ):
        await store.settle([late])
    assert await world.rows("status", "attempts", "next_attempt_at_us", "locked_by", "last_error") == before
    await store.settle([Published(position=position)])
    await store.settle([GivenUp(position=position, token=quick.token, error="too late")])
    assert await world.rows("status", "last_error") == [("PUBLISHED", "")]


async def test_row_that_another_relay_gave_up_stays_so_although_it_was_published(
    world: OutboxWorld, store: OutboxStore, clock: ManualClock
) -> None:
    await world.place("a", "b", key="k")
    slow = await take(store, limit=1)
    clock.now_us += LEASE_US
    quick = await take(store, limit=1)
    position = slow.rows[0].position
    await store.settle([GivenUp(position=position, token=quick.token, error="no")])
    assert names(await take(store)) == []
    await store.settle([Published(position=position)])
    # Else nobody would let go what waits behind it.
    assert await world.rows("status") == [("FAILED",), ("PENDING",)]
    assert await world.outbox.redrive_all(world.engine) == 1
    assert names(await take(store)) == ["a", "b"]


async def test_row_that_ends_every_relay_is_given_up(world: OutboxWorld, store: OutboxStore, clock: ManualClock) -> None:
    await world.place("a")
    for _ in range(QUICK.attempts_max):
        assert names(await take(store)) == ["a"]
        clock.now_us += LEASE_US
    recorder = Recorder()
    async with world.relay(recorder, clock=clock):
        await world.until_statistics(lambda statistics: statistics.failed == 1)
    assert recorder.tries == []
    assert await world.rows("last_error") == [("5 relays ended, or were too slow, while they had it",)]


async def test_long_queue_behind_a_failed_row_is_written_once_and_looked_at_no_more(
    world: OutboxWorld, store: OutboxStore, clock: ManualClock
) -> None:
    count = 600
    async with world.transaction() as session:
        for _ in range(count):
            world.outbox.publish(session, b"", topic="t", key="k")
    (first,) = (taken := await take(store, limit=1)).rows
    await store.settle([GivenUp(position=first.position, token=taken.token, error="no")])
    await world.place("x")
    looks = [await take(store) for _ in range(4)]
    assert [(names(look), look.is_window_full) for look in looks] == [([], True), ([], True), (["x"], False), ([], False)]
    assert (await world.statistics()).held == count - 1


async def test_stopped_relay_ends_what_is_under_way_and_puts_the_rest_back(world: OutboxWorld) -> None:
    recorder = Recorder()
    recorder.gate.clear()
    await world.place("a", "b", key="k")
    await world.place("x")
    await world.place("y")
    relay = world.relay(recorder, concurrency=2)
    async with relay:
        await until(lambda: len(recorder.tries) == 2)
        relay.stop()
        recorder.gate.set()
    assert len(recorder.tries) == 2
    rows = await world.rows("status", "attempts", "locked_by")
    assert sorted(rows) == [("PENDING", 0, ""), ("PENDING", 0, ""), ("PUBLISHED", 1, ""), ("PUBLISHED", 1, "")]


async def test_cancelled_run_writes_down_what_it_did(world: OutboxWorld) -> None:
    recorder = Recorder()
    recorder.gate.clear()
    await world.place("a")
    relay = world.relay(recorder)
    running = asyncio.create_task(relay.run())
    await until(lambda: len(recorder.tries) == 1)
    running.cancel()
    await asyncio.sleep(0)
    assert not running.done()
    recorder.gate.set()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert await world.rows("status") == [("PUBLISHED",)]
    async with relay:  # It may begin again.
        await world.place("b")
        await recorder.until(2)


async def test_relay_runs_once_at_a_time(world: OutboxWorld) -> None:
    relay = world.relay(Recorder())
    async with relay:
        with pytest.raises(RuntimeError, match="runs already"):
            await relay.run()


async def test_published_rows_are_forgotten_after_their_retention(world: OutboxWorld, store: OutboxStore, clock: ManualClock) -> None:
    await world.place("a", "b", "c")
    taken = await take(store)
    await store.settle([Published(position=row.position) for row in taken.rows[:2]])
    clock.advance(10)
    assert await store.delete_published(age_us=10 * SECOND_US) == 0
    clock.advance(1)
    assert await store.delete_published(age_us=10 * SECOND_US, limit=1) == 1
    recorder = Recorder()
    async with world.relay(recorder, clock=clock, retention=timedelta(seconds=5)):
        await world.until_statistics(lambda statistics: statistics.published == 0)
    assert await world.rows("status") == [("PENDING",)]


async def test_statistics_count_every_row_once(world: OutboxWorld, store: OutboxStore, clock: ManualClock) -> None:
    assert (await store.statistics()).oldest_pending_age == timedelta()
    outbox = OutboxWorld(world.engine, type(world.outbox)(clock=clock))
    for name in ("a", "b", "c", "d"):
        await outbox.place(name)
        clock.advance(1)
    taken = await take(store, limit=3)
    published, retried, failed = (row.position for row in taken.rows)
    await store.settle(
        [
            Published(position=published),
            TryLater(position=retried, token=taken.token, delay_us=0, error="lost"),
            GivenUp(position=failed, token=taken.token, error="no"),
        ]
    )
    statistics = await store.statistics()
    assert (statistics.pending, statistics.retrying, statistics.held, statistics.published, statistics.failed) == (2, 1, 0, 1, 1)
    assert statistics.oldest_pending_age == timedelta(seconds=3)
