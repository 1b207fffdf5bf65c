"""The clock of the machine is set forward or back by hours between two lives of the coordinator.

While a process lives nothing of that reaches it: it follows the monotonic clock. What was written by a clock that was wrong is read by one
that is right, or the other way round: limits may be judged early or late, but nothing is lost, doubled or stuck.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from participant_sdk import SagaHandle
from saga.v1 import operator_pb2, saga_pb2
from tests.integration.desk import Held, Lines, Stand, check_books, lose_until, of_every_kind, step_of, until_over, with_question
from tests.integration.following import statuses, until
from tests.integration.places import Place, opened

COMPLETED, COMPENSATED = saga_pb2.SAGA_STATUS_COMPLETED, saga_pb2.SAGA_STATUS_COMPENSATED
HOURS = timedelta(hours=3)
SOON_S = 20.0
"""Longer than one attempt of a step that was under way is waited for."""
AN_HOUR = timedelta(hours=1)
FORWARD = {"CLOCK_SHIFT_S": f"{HOURS.total_seconds()}"}
BACK = {"CLOCK_SHIFT_S": f"{-HOURS.total_seconds()}"}
IN_BOTH_DIRECTIONS = [pytest.param(FORWARD, id="forward"), pytest.param(BACK, id="back")]
ASKED: Lines = [("first", "do"), ("ask", "ask")]


@asynccontextmanager
async def running(directory: Path) -> AsyncIterator[tuple[Place, Stand]]:
    """A coordinator in a process of its own, whose clock is right."""
    async with opened(directory) as (place, stand):
        await place.process.start()
        yield place, stand


async def over_soon(handle: SagaHandle) -> saga_pb2.Saga:
    """The saga at its end, which is not hours away."""
    async with asyncio.timeout(SOON_S):
        return await until_over(handle)


async def come_back(place: Place, stand: Stand, shift: dict[str, str]) -> None:
    """Another process, whose clock differs; the participant registers again, as the SDK does, since that may be over."""
    await place.process.start(shift)
    await stand.register(place.process.address)


async def check_history(stand: Stand, handle: SagaHandle) -> None:
    """Time never goes back within a saga, whatever the clock does."""
    instants = [event.occurred_at.ToDatetime() async for event in stand.client.history(handle.id)]
    assert instants == sorted(instants)


async def test_accepted_step_expires_when_the_clock_goes_forward_and_its_answer_is_refused(tmp_path: Path) -> None:  # R24
    async with running(tmp_path) as (place, stand):
        stand.desk.accepts_for = AN_HOUR
        handle = await stand.start(with_question())
        await until(handle, "step_accepted")
        place.process.kill()
        await come_back(place, stand, FORWARD)
        saga = await until_over(handle)
        assert (saga.status, saga.cause) == (COMPENSATED, saga_pb2.TURN_BACK_CAUSE_STEP_UNKNOWN)
        assert await stand.lines(handle) == [*ASKED, ("ask", "withdraw"), ("first", "undo")]
        await check_history(stand, handle)


@pytest.mark.full
async def test_accepted_step_can_be_completed_when_the_clock_goes_back(tmp_path: Path) -> None:  # R24
    async with running(tmp_path) as (place, stand):
        stand.desk.accepts_for = AN_HOUR
        handle = await stand.start(with_question())
        await until(handle, "step_accepted")
        token = await stand.wire.token("desk.ask")
        accepted_until = step_of(await handle.get(), "ask").accepted_until.ToDatetime()
        place.process.kill()
        await come_back(place, stand, BACK)
        beat = await stand.client.heartbeat(token, time_limit=timedelta(minutes=1))
        assert AN_HOUR - timedelta(seconds=SOON_S) < beat.time_left <= AN_HOUR, "in the time of the saga, which nobody set back"
        explanation = await stand.client.operator.explain(handle.id)
        assert explanation.waits[0].reason == operator_pb2.WAIT_REASON_COMPLETION
        assert "(in 59 min" in explanation.waits[0].description or "(in 1 h" in explanation.waits[0].description
        assert step_of(await handle.get(), "ask").accepted_until.ToDatetime() == accepted_until
        await stand.desk.complete(token, stand.client)
        saga = await over_soon(handle)
        assert saga.status == COMPLETED
        assert await stand.lines(handle) == [*ASKED, ("ask", "do"), ("last", "do")]
        await check_history(stand, handle)


@pytest.mark.full
@pytest.mark.parametrize("shift", IN_BOTH_DIRECTIONS)
async def test_call_under_way_is_repeated_or_given_up_whatever_the_clock_did(tmp_path: Path, shift: dict[str, str]) -> None:  # R29
    async with running(tmp_path) as (place, stand):
        held = Held()
        stand.wire.on_execute["desk.take"] = held
        handle = await stand.start(of_every_kind(), "a gift")
        await held.held.wait()
        place.process.kill()
        held.open.set()
        del stand.wire.on_execute["desk.take"]
        await come_back(place, stand, shift)
        saga = await over_soon(handle)
        assert saga.status == (COMPENSATED if shift is FORWARD else COMPLETED), "the time limit of a step is five minutes"
        check_books(saga, await stand.lines(handle))
        await check_history(stand, handle)


@pytest.mark.full
@pytest.mark.parametrize("shift", IN_BOTH_DIRECTIONS)
async def test_backoff_is_over_in_time_whatever_the_clock_did(tmp_path: Path, shift: dict[str, str]) -> None:
    async with running(tmp_path) as (place, stand):
        stand.wire.on_execute["desk.ship"] = lose_until(there := asyncio.Event())
        handle = await stand.start(of_every_kind())
        await until(handle, "attempt_failed", step_id="ship")
        place.process.kill()
        there.set()
        await come_back(place, stand, shift)
        saga = await over_soon(handle)
        assert saga.status == COMPLETED
        check_books(saga, await stand.lines(handle))
        await check_history(stand, handle)


@pytest.mark.full
async def test_deadline_that_passes_by_a_jump_turns_back_before_the_pivot_and_not_behind_it(tmp_path: Path) -> None:  # R10, R13
    async with running(tmp_path) as (place, stand):
        before, behind = Held(), Held()
        stand.wire.on_execute["desk.take"] = before
        early = await stand.start(of_every_kind(), time_limit=AN_HOUR)
        await before.held.wait()
        del stand.wire.on_execute["desk.take"]
        stand.wire.on_execute["desk.pay"] = behind
        late = await stand.start(of_every_kind(), time_limit=AN_HOUR)
        await behind.held.wait()
        place.process.kill()
        before.open.set()
        behind.open.set()
        await come_back(place, stand, FORWARD)
        first, second = await until_over(early), await until_over(late)
        assert (first.status, first.cause) == (COMPENSATED, saga_pb2.TURN_BACK_CAUSE_TIME_LIMIT)
        assert second.status == COMPLETED, "the pivot had taken effect"
        for saga in (first, second):
            check_books(saga, await stand.desk.lines(saga.id))


@pytest.mark.full
async def test_paused_saga_stays_paused_and_is_judged_by_the_clock_of_its_resumption(tmp_path: Path) -> None:
    async with running(tmp_path) as (place, stand):
        stand.desk.accepts_for = AN_HOUR
        handle = await stand.start(with_question())
        await until(handle, "step_accepted")
        await stand.client.operator.pause(handle.id, actor="ann")
        place.process.kill()
        await come_back(place, stand, FORWARD)
        saga = await handle.get()
        assert (statuses(saga)["ask"], saga.paused.actor) == ("ACCEPTED", "ann")
        await stand.client.operator.resume(handle.id, actor="ann")
        assert (await until_over(handle)).status == COMPENSATED
        assert await stand.lines(handle) == [*ASKED, ("ask", "withdraw"), ("first", "undo")]
        await check_history(stand, handle)


@pytest.mark.full
async def test_delayed_start_begins_by_the_clock_of_its_coordinator(tmp_path: Path) -> None:
    async with running(tmp_path) as (place, stand):
        handle = await stand.start(of_every_kind(), start_at=datetime.now(UTC) + AN_HOUR)
        place.process.kill()
        await come_back(place, stand, FORWARD)
        saga = await until_over(handle)
        assert saga.status == COMPLETED
        check_books(saga, await stand.lines(handle))


@pytest.mark.full
async def test_saga_that_was_begun_by_a_clock_ahead_goes_on_when_it_is_set_right(tmp_path: Path) -> None:
    """Nothing that is written in the future holds a saga up until then."""
    async with opened(tmp_path) as (place, stand):
        await come_back(place, stand, FORWARD)
        held = Held()
        stand.wire.on_execute["desk.ask"] = held
        handle = await stand.start(with_question())
        await held.held.wait()
        place.process.kill()
        held.open.set()
        await come_back(place, stand, {})
        async with asyncio.timeout(SOON_S):
            await until(handle, "step_accepted")
            await handle.cancel()
            saga = await until_over(handle)
        assert saga.status == COMPENSATED
        assert await stand.lines(handle) == [*ASKED, ("ask", "withdraw"), ("first", "undo")]
