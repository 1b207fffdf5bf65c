"""The coordinator is killed with SIGKILL at every commit of sagas with every kind of step, and while steps are accepted.

The first coordinator, which registers, and the last one, which takes up what is left, live in this process: only the one that dies needs
a process of its own.
"""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from datetime import timedelta
from pathlib import Path

import pytest
from google.protobuf.wrappers_pb2 import Int64Value

from participant_sdk import AlreadyCompletedError, CompletionUndeliveredError, SagaClient, SagaHandle
from saga.v1 import saga_pb2
from tests.integration.desk import (
    TIME_LIMIT,
    Held,
    Lines,
    Stand,
    check_books,
    facts,
    lose_replies,
    of_every_kind,
    step_of,
    until_over,
    with_question,
)
from tests.integration.following import statuses, until
from tests.integration.places import Place, opened

pytestmark = pytest.mark.full

COMPLETED, COMPENSATED = saga_pb2.SAGA_STATUS_COMPLETED, saga_pb2.SAGA_STATUS_COMPENSATED
ASKED: Lines = [("first", "do"), ("ask", "ask")]
DONE: Lines = [*ASKED, ("ask", "do"), ("last", "do")]
WITHDRAWN: Lines = [*ASKED, ("ask", "withdraw"), ("first", "undo")]


# ── At every commit ──────────────────────────────────────────────────────────────────────────────────────────────────────────────────

Prepare = Callable[[Stand], None]


def lose_two_replies_of_the_pivot(stand: Stand) -> None:
    stand.wire.on_execute["desk.pay"] = lose_replies(2)


def lose_replies_of_all(stand: Stand) -> None:
    for name in ("take", "note", "pay", "ship", "tell"):
        stand.wire.on_execute[f"desk.{name}"] = lose_replies(1)


def as_it_is(stand: Stand) -> None:
    """Nothing goes wrong but the crash."""


SCENARIOS: dict[str, tuple[str, Prepare, saga_pb2.SagaStatus.ValueType, set[str]]] = {
    "forward": ("a gift", as_it_is, COMPLETED, {"take", "wrap", "note", "pay", "ship", "on_success"}),
    "left-out": ("mute", as_it_is, COMPLETED, {"take", "pay", "ship", "on_success"}),
    "declined": ("a gift broke", as_it_is, COMPENSATED, {"on_failure"}),
    "pivot-lost": ("plain", lose_two_replies_of_the_pivot, COMPLETED, {"take", "note", "pay", "ship", "on_success"}),
    "all-lost": ("a gift", lose_replies_of_all, COMPLETED, {"take", "wrap", "note", "pay", "ship", "on_success"}),
    "declined-lost": ("broke", lose_replies_of_all, COMPENSATED, {"on_failure"}),
}
"""What is asked for, what goes wrong besides, how it ends, and the steps whose effects stay."""
COMMITS = 12
"""More than any of these sagas takes; a crash that would come after the end does not come."""
FAST = {"forward-after:4", "declined-before:5", "pivot-lost-released:4"}


def marks_of(name: str) -> list[pytest.MarkDecorator]:
    return [] if name in FAST else [pytest.mark.full]


MOMENTS = [
    pytest.param(name, f"{when}:{commit}", id=f"{name}-{when}:{commit}", marks=marks_of(f"{name}-{when}:{commit}"))
    for name in SCENARIOS
    for commit in range(1, COMMITS + 1)
    for when in ("before", "after", "released")
]


async def end_through_crash(place: Place, starting: Awaitable[SagaHandle], *others: Coroutine[None, None, None]) -> saga_pb2.Saga:
    """Waits for the end of a saga and of what others do; when the process dies, a coordinator here takes up what it left."""

    async def take_over() -> None:
        await place.process.wait()
        async with place.coordinator_here():
            await over.wait()

    over = asyncio.Event()
    async with asyncio.TaskGroup() as tasks:
        taking_over = tasks.create_task(take_over())
        doing = [tasks.create_task(other) for other in others]
        saga = await until_over(await starting)
        await asyncio.gather(*doing)
        over.set()
        if place.process.is_running:
            taking_over.cancel()
    return saga


@pytest.mark.parametrize(("name", "moment"), MOMENTS)
async def test_crash_at_each_commit_leaves_the_books_right(tmp_path: Path, name: str, moment: str) -> None:  # P1, P2, R9, R16, R29
    value, prepare, status, kept = SCENARIOS[name]
    async with opened(tmp_path) as (place, stand):
        prepare(stand)
        await place.process.start({"CRASH_AT": moment})
        saga = await end_through_crash(place, stand.start(of_every_kind(), value))
        lines = await stand.desk.lines(saga.id)
        assert not place.process.is_running or f"{name}-{moment}" not in FAST
    assert (saga.status, list(saga.incidents)) == (status, [])
    check_books(saga, lines)
    undone = {step for step, what in lines if what == "undo"}
    assert {step for step, what in lines if what == "do"} - undone == kept


# ── While steps are accepted ─────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "moment",
    [
        pytest.param(moment, marks=[] if moment == "after:4" else [pytest.mark.full])
        for moment in (f"{when}:{commit}" for commit in range(1, 7) for when in ("before", "after", "released"))
    ],
)
async def test_crash_at_each_commit_of_an_accepted_step_loses_no_answer(tmp_path: Path, moment: str) -> None:  # R24, R29
    async with opened(tmp_path) as (place, stand):
        await place.process.start({"CRASH_AT": moment})

        async def answer() -> None:
            token = await stand.wire.token("desk.ask")
            try:
                await stand.desk.complete(token, stand.client)
            except AlreadyCompletedError:
                return

        saga = await end_through_crash(place, stand.start(with_question()), answer())
        assert saga.status == COMPLETED
        assert await stand.desk.lines(saga.id) == DONE


async def test_kill_while_accepted_loses_neither_time_nor_token(tmp_path: Path) -> None:  # R24, R29
    async with opened(tmp_path) as (place, stand):
        await place.process.start()
        kept = await stand.start(with_question())
        await until(kept, "step_accepted")
        token = await stand.wire.token("desk.ask")
        before = step_of(await kept.get(), "ask").accepted_until
        stand.desk.accepts_for = timedelta(seconds=1)
        forgotten = await stand.start(with_question())
        await until(forgotten, "step_accepted")
        place.process.kill()
        async with SagaClient(place.process.address, timeout=timedelta(milliseconds=100)) as hasty:
            with pytest.raises(CompletionUndeliveredError):
                await stand.desk.complete(token, hasty)
        async with place.coordinator_here():
            assert step_of(await kept.get(), "ask").accepted_until == before
            assert (await forgotten.wait(timeout=TIME_LIMIT)).status == COMPENSATED, "its time was over, in part while nobody was there"
            with pytest.raises(AlreadyCompletedError):
                await stand.desk.complete(token, stand.client)
            assert (await kept.wait(timeout=TIME_LIMIT)).status == COMPLETED
        assert len(stand.wire.executed("desk.ask")) == 2, "an accepted step is not asked again"
        assert await stand.lines(kept) == DONE
        assert await stand.lines(forgotten) == WITHDRAWN


@pytest.mark.parametrize("is_cancelled", [False, True])
async def test_kill_while_completed_early_keeps_the_answer(tmp_path: Path, is_cancelled: bool) -> None:  # R24, R29
    async with opened(tmp_path) as (place, stand):
        await place.process.start()
        held = Held()
        stand.wire.on_execute["desk.ask"] = held
        handle = await stand.start(with_question())
        await held.held.wait()
        token = await stand.wire.token("desk.ask")
        await stand.desk.complete(token, stand.client)
        assert (await facts(stand.client, handle))[-1] == "step_completed_early"
        place.process.kill()
        held.open.set()
        async with place.coordinator_here():
            if is_cancelled:
                await handle.cancel()
            saga = await handle.wait(timeout=TIME_LIMIT)
        undone: Lines = [("ask", "undo"), ("first", "undo")]
        lines = await stand.lines(handle)
        if saga.status == COMPLETED:
            assert not is_cancelled
            assert lines == DONE
        else:
            assert is_cancelled
            assert lines in ([*ASKED, ("ask", "do"), *undone], [*DONE, ("last", "undo"), *undone])


async def test_kill_during_heartbeats_keeps_what_they_told(tmp_path: Path) -> None:  # R24
    async with opened(tmp_path) as (place, stand):
        await place.process.start()
        stand.desk.accepts_for = timedelta(seconds=2)
        handle = await stand.start(with_question())
        await until(handle, "step_accepted")
        token = await stand.wire.token("desk.ask")
        beat = await stand.client.heartbeat(token, time_limit=timedelta(minutes=10), progress=Int64Value(value=3))
        assert beat.time_left > timedelta(minutes=9)
        place.process.kill()
        async with place.coordinator_here():
            step = step_of(await handle.get(), "ask")
            told = Int64Value()
            assert step.progress.Unpack(told)
            assert told.value == 3
            beat = await stand.client.heartbeat(token)
            assert beat.time_left > timedelta(minutes=9)
            await handle.cancel()
            assert (await stand.client.heartbeat(token)).is_cancelled
            assert (await handle.wait(timeout=TIME_LIMIT)).status == COMPENSATED
        assert await stand.lines(handle) == WITHDRAWN


async def test_kill_while_paused_keeps_the_pause(tmp_path: Path) -> None:  # R29
    async with opened(tmp_path) as (place, stand):
        await place.process.start()
        held = Held()
        stand.wire.on_execute["desk.pay"] = held
        handle = await stand.start(of_every_kind())
        await held.held.wait()
        await stand.client.operator.pause(handle.id, reason="the bank calls", actor="ann")
        place.process.kill()
        held.open.set()
        async with place.coordinator_here():
            paused = await handle.get()
            assert (paused.paused.actor, statuses(paused)["pay"]) == ("ann", "EXECUTING")
            calls = len(stand.wire.executions)
            await handle.cancel()  # nobody knows whether the pivot took effect: recorded, and judged when it is known (R10)
            assert (await handle.get()).HasField("turn_back_requested")
            assert len(stand.wire.executions) == calls, "nothing starts while it is paused"
            await stand.client.operator.resume(handle.id, actor="ann")
            saga = await until_over(handle)
        assert saga.status == COMPLETED, "the pivot had taken effect"
        check_books(saga, await stand.lines(handle))


async def test_hook_survives_a_kill_and_a_participant_that_is_away(tmp_path: Path) -> None:  # R16
    """The outcome is told at once, the hook comes later, once."""
    async with opened(tmp_path) as (place, stand):
        await place.process.start()
        held = Held(before=True)
        stand.wire.on_execute["desk.tell"] = held
        handle = await stand.start(of_every_kind())
        saga = await handle.wait(timeout=TIME_LIMIT)
        assert (saga.status, saga.hook.status) == (COMPLETED, saga_pb2.STEP_STATUS_EXECUTING)
        await held.held.wait()
        stand.wire.is_cut = True
        place.process.kill()
        held.open.set()
        del stand.wire.on_execute["desk.tell"]
        async with place.coordinator_here():
            assert (await handle.get()).status == COMPLETED
            await until(handle, "attempt_failed", step_id="on_success")
            stand.wire.is_cut = False
            saga = await until_over(handle)
        assert saga.hook.status == saga_pb2.STEP_STATUS_SUCCEEDED
        check_books(saga, await stand.lines(handle))
