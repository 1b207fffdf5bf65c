"""Steps that finish later (R24), with a real coordinator, a participant with a database, and its books."""

import asyncio
import random
import sqlite3
from collections.abc import AsyncIterator, Awaitable
from contextlib import closing
from datetime import timedelta
from pathlib import Path

import pytest
from google.protobuf.wrappers_pb2 import Int64Value, StringValue
from sqlalchemy import insert

from coordinator.bootstrap import run_coordinator
from coordinator.settings import Settings
from coordinator.telemetry.setup import Telemetry
from participant_sdk import (
    AlreadyCompletedError,
    CompletionError,
    CompletionRefusedError,
    CompletionTokenInvalidError,
    CoordinatorError,
    InvalidRequest,
    Rejected,
    SagaClient,
    SagaHandle,
    StepKind,
    StepNotWaitingError,
    beating,
    new_saga_id,
)
from participant_sdk.completion_token import read_token, write_token
from participant_sdk.testing import completion_token
from saga.v1 import participant_pb2, saga_pb2
from tests.budget import budget
from tests.integration.conftest import Running
from tests.integration.definitions import QUICK
from tests.integration.desk import (
    TIME_LIMIT,
    Context,
    Desk,
    Forward,
    Held,
    Lines,
    Stand,
    facts,
    lose_replies,
    open_incidents,
    open_stand,
    saga_of,
    step_of,
    until_over,
    with_question,
)
from tests.integration.following import statuses, until
from tests.participants import ledger

COMPLETED, COMPENSATED, FAILED = saga_pb2.SAGA_STATUS_COMPLETED, saga_pb2.SAGA_STATUS_COMPENSATED, saga_pb2.SAGA_STATUS_FAILED
DONE: Lines = [("first", "do"), ("ask", "ask"), ("ask", "do"), ("last", "do")]
WITHDRAWN: Lines = [("first", "do"), ("ask", "ask"), ("ask", "withdraw"), ("first", "undo")]
A_SECOND = timedelta(seconds=1)


@pytest.fixture
async def stand(running: Running, tmp_path: Path) -> AsyncIterator[Stand]:
    async with open_stand(tmp_path, running.address) as stand:
        yield stand


async def asked(stand: Stand, value: str = "x", *, within: timedelta = TIME_LIMIT) -> tuple[SagaHandle, str]:
    """A saga whose question is accepted, and its token."""
    stand.desk.accepts_for = within
    handle = await stand.start(with_question(), value)
    await until(handle, "step_accepted")
    (request,) = [request for request in stand.wire.executed("desk.ask") if request.saga_id == handle.id]
    return handle, request.completion_token


async def refusal(call: Awaitable[object]) -> type[Exception]:
    with pytest.raises((CoordinatorError, CompletionError)) as caught:
        await call
    return caught.type


# ── In time ──────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_accepted_step_waits_and_goes_on_with_what_completed_it(stand: Stand) -> None:
    handle, token = await asked(stand)
    waiting = step_of(await handle.get(), "ask")
    assert (waiting.status, waiting.HasField("accepted_until")) == (saga_pb2.STEP_STATUS_ACCEPTED, True)
    await stand.desk.complete(token, stand.client, "granted")
    saga = await handle.wait(timeout=TIME_LIMIT)
    output = StringValue()
    assert step_of(saga, "ask").output.Unpack(output)
    assert (saga.status, output.value) == (COMPLETED, "granted")
    assert await stand.lines(handle) == DONE


async def test_refused_step_turns_the_saga_back_and_leaves_nothing_to_withdraw(stand: Stand) -> None:  # R5
    handle, token = await asked(stand)
    await stand.desk.deny(token, stand.client)
    saga = await handle.wait(timeout=TIME_LIMIT)
    assert (saga.status, saga.failed_step_id, statuses(saga)["ask"]) == (COMPENSATED, "ask", "REJECTED")
    assert await stand.lines(handle) == [("first", "do"), ("ask", "ask"), ("first", "undo")]


async def test_refusal_without_seal_is_not_taken_for_clean(stand: Stand) -> None:  # R5
    handle, token = await asked(stand)
    await stand.client.reject_step(token, Rejected("DENIED", "said without the barrier"))
    saga = await handle.wait(timeout=TIME_LIMIT)
    assert (saga.status, statuses(saga)["ask"]) == (COMPENSATED, "COMPENSATED")
    assert await stand.lines(handle) == WITHDRAWN


async def test_heartbeat_extends_the_time_and_carries_progress(stand: Stand) -> None:
    handle, token = await asked(stand, within=timedelta(seconds=2))
    before = step_of(await handle.get(), "ask").accepted_until.ToDatetime()
    beat = await stand.client.heartbeat(token, time_limit=timedelta(minutes=5), progress=Int64Value(value=7))
    assert timedelta(minutes=4) < beat.time_left <= timedelta(minutes=5)
    beat = await stand.client.heartbeat(token, time_limit=A_SECOND, progress=Int64Value(value=8))
    assert beat.time_left > timedelta(minutes=4), "it never shortens"
    step = step_of(await handle.get(), "ask")
    told = Int64Value()
    assert step.progress.Unpack(told)
    assert told.value == 7, "what comes within a second is for the next heartbeat"
    assert step.accepted_until.ToDatetime() > before + timedelta(minutes=4)
    await stand.desk.complete(token, stand.client)
    assert (await handle.wait(timeout=TIME_LIMIT)).status == COMPLETED


async def test_cancelled_saga_tells_its_heartbeat_and_takes_no_result(stand: Stand) -> None:  # R24
    handle, token = await asked(stand)
    begun = asyncio.Event()

    async def work() -> None:
        async with beating(stand.client, token, every=timedelta(milliseconds=50)):
            begun.set()
            await asyncio.Event().wait()

    working = asyncio.ensure_future(work())
    await begun.wait()
    await handle.cancel(reason="ill", actor="ada")
    async with asyncio.timeout(TIME_LIMIT.total_seconds()):
        assert await refusal(working) is StepNotWaitingError
    assert (await handle.wait(timeout=TIME_LIMIT)).status == COMPENSATED
    assert await refusal(stand.desk.complete(token, stand.client)) is CompletionRefusedError
    assert await stand.lines(handle) == WITHDRAWN


# ── Out of time ──────────────────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_time_that_is_over_leaves_the_step_unknown_and_is_compensated(stand: Stand) -> None:  # R24
    handle, token = await asked(stand, within=A_SECOND)
    saga = await handle.wait(timeout=TIME_LIMIT)
    assert (saga.status, saga.cause, saga.failed_step_id) == (COMPENSATED, saga_pb2.TURN_BACK_CAUSE_STEP_UNKNOWN, "ask")
    assert step_of(saga, "ask").execute_attempts == 1, "expired is never tried again"
    assert await refusal(stand.desk.complete(token, stand.client)) is CompletionRefusedError
    assert await refusal(stand.client.complete_step(token, StringValue(value="late"))) is StepNotWaitingError
    assert await stand.lines(handle) == WITHDRAWN
    assert "late_outcome" in await facts(stand.client, handle)


async def test_time_that_is_over_past_the_point_of_no_return_asks_a_person(stand: Stand) -> None:  # R11, R24
    stand.desk.accepts_for = A_SECOND
    saga = saga_of("delivery")
    saga.step(Desk.take, execute_retry=QUICK, compensate_retry=QUICK)
    saga.step(Desk.pay, saga.input, kind=StepKind.PIVOT, execute_retry=QUICK)
    saga.step(Desk.deliver, saga.input, kind=StepKind.RETRIABLE, execute_retry=QUICK)
    handle = await stand.start(saga)
    failed = await handle.wait(timeout=TIME_LIMIT)
    assert (failed.status, open_incidents(failed)) == (FAILED, [("STEP_EXHAUSTED", "deliver")])
    await stand.client.operator.retry_step(handle.id, "deliver", reason="the van is back", actor="ann")
    await until(handle, "step_accepted", count=2)
    first, second = stand.wire.executed("desk.deliver")
    assert (first.key, first.completion_token) == (second.key, second.completion_token)
    await stand.desk.complete(first.completion_token, stand.client)
    ended = await handle.wait(timeout=TIME_LIMIT)
    assert (ended.status, open_incidents(ended)) == (COMPLETED, [])
    assert await stand.lines(handle) == [("take", "do"), ("pay", "do"), ("deliver", "ask"), ("deliver", "do")]


# ── Tokens that do not fit ───────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_second_result_is_a_repetition_if_it_is_the_same_and_too_late_if_not(stand: Stand) -> None:
    handle, token = await asked(stand)
    await stand.desk.complete(token, stand.client, "granted")
    await handle.wait(timeout=TIME_LIMIT)
    assert await stand.client.complete_step(token, StringValue(value="granted"))
    assert await refusal(stand.client.complete_step(token, StringValue(value="other"))) is StepNotWaitingError
    assert await refusal(stand.client.reject_step(token, Rejected("DENIED"))) is StepNotWaitingError
    assert await refusal(stand.desk.complete(token, stand.client, "other")) is AlreadyCompletedError
    assert await refusal(stand.client.heartbeat(token)) is StepNotWaitingError
    assert await stand.lines(handle) == DONE
    assert (await handle.get()).status == COMPLETED


async def test_tokens_that_were_changed_or_made_elsewhere_complete_nothing(stand: Stand, tmp_path: Path) -> None:
    """Garbled, spliced from two sagas, made by another database, of a saga that is not there, of a round that never was."""
    handle, token = await asked(stand)
    other, others_token = await asked(stand, "y")
    mine, others = read_token(token), read_token(others_token)
    foreign = completion_token(handle.id, "ask")
    async with (
        run_coordinator(
            Settings(address="127.0.0.1:0", database=f"sqlite+aiosqlite:///{tmp_path / 'elsewhere.db'}", drain_time_limit_s=1.0),
            Telemetry(None),
        ) as elsewhere,
        SagaClient(elsewhere.address) as client,
    ):
        assert await refusal(client.complete_step(token, StringValue(value="x"))) is CompletionTokenInvalidError
    wrong = [
        write_token(others[0], mine[1]),
        write_token(mine[0], others[1]),
        write_token(mine[0]._replace(saga_id=new_saga_id()), mine[1]),
        write_token(mine[0]._replace(round=2), mine[1]),
        write_token(mine[0]._replace(step_id="first"), mine[1]),
        token[:-1] + ("A" if token[-1] != "A" else "Q"),
        token[:-4],
        foreign,
        "",
        "none at all",
        "ä" * 40,
        "A" * 300,
    ]
    for one in wrong:
        assert await refusal(stand.client.complete_step(one, StringValue(value="x"))) is CompletionTokenInvalidError, one
        assert await refusal(stand.client.heartbeat(one)) is CompletionTokenInvalidError, one
    assert await refusal(stand.client.complete_step(token, Int64Value(value=1))) is InvalidRequest
    assert [statuses(await each.get())["ask"] for each in (handle, other)] == ["ACCEPTED", "ACCEPTED"]
    await stand.desk.complete(token, stand.client)
    assert (await handle.wait(timeout=TIME_LIMIT)).status == COMPLETED
    assert statuses(await other.get())["ask"] == "ACCEPTED"
    await other.cancel()
    assert (await other.wait(timeout=TIME_LIMIT)).status == COMPENSATED
    assert [await stand.lines(each) for each in (handle, other)] == [DONE, WITHDRAWN]


async def test_token_of_a_step_that_was_never_accepted_is_kept_only_while_the_step_may_be(stand: Stand) -> None:
    handle = await stand.start(with_question())
    await until(handle, "step_accepted")
    token = stand.wire.executed("desk.take")[0].completion_token  # every execution carries one
    assert await refusal(stand.client.complete_step(token, StringValue(value="x"))) is StepNotWaitingError
    await handle.cancel()
    assert (await handle.wait(timeout=TIME_LIMIT)).status == COMPENSATED
    assert await stand.lines(handle) == WITHDRAWN


# ── Before the acceptance is known ───────────────────────────────────────────────────────────────────────────────────────────────────


async def test_result_that_comes_before_the_acceptance_counts_when_it_has_come(stand: Stand) -> None:  # R24
    held = Held()
    stand.wire.on_execute["desk.ask"] = held
    handle = await stand.start(with_question())
    await held.held.wait()  # the participant has committed its acceptance, the coordinator has not heard of it
    token = await stand.wire.token("desk.ask")
    await stand.desk.complete(token, stand.client)
    assert statuses(await handle.get())["ask"] == "EXECUTING"
    assert await stand.client.complete_step(token, StringValue(value="yes")), "kept already"
    assert await refusal(stand.client.complete_step(token, StringValue(value="no"))) is StepNotWaitingError
    held.open.set()
    saga = await handle.wait(timeout=TIME_LIMIT)
    assert saga.status == COMPLETED
    assert await stand.lines(handle) == DONE
    assert "step_completed_early" in await facts(stand.client, handle)


async def test_handler_may_complete_its_own_step_before_it_returns(stand: Stand) -> None:
    """Without the barrier's help: straight to the coordinator, from inside of the call."""

    async def complete_inside(
        forward: Forward, request: participant_pb2.ExecuteRequest, context: Context
    ) -> participant_pb2.ExecuteResponse:
        accepted = await forward()
        async with stand.desk.engine.begin() as connection:
            await connection.execute(insert(ledger).values(saga_id=request.saga_id, step_id="ask", direction="do"))
        assert not await stand.client.complete_step(request.completion_token, StringValue(value="at once"))
        return accepted

    stand.wire.on_execute["desk.ask"] = complete_inside
    handle = await stand.start(with_question())
    assert (await handle.wait(timeout=TIME_LIMIT)).status == COMPLETED
    assert await stand.lines(handle) == DONE


async def test_result_given_while_the_database_is_locked_counts_once(stand: Stand, tmp_path: Path) -> None:  # R25
    held = Held()
    stand.wire.on_execute["desk.ask"] = held
    handle = await stand.start(with_question())
    await held.held.wait()
    token = await stand.wire.token("desk.ask")
    with closing(sqlite3.connect(tmp_path / "saga.db", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        completing = asyncio.ensure_future(stand.desk.complete(token, stand.client))
        held.open.set()  # acceptance and result both wait for the same database
        done, _ = await asyncio.wait({completing}, timeout=0.3)
        assert not done, "answered before it was committed"
        other.execute("ROLLBACK")
    await completing
    assert (await handle.wait(timeout=TIME_LIMIT)).status == COMPLETED
    assert await stand.lines(handle) == DONE


async def test_early_result_counts_though_the_reply_is_lost(stand: Stand) -> None:  # R5, R24
    held = Held(loses_reply=True)
    stand.wire.on_execute["desk.ask"] = held
    handle = await stand.start(with_question())
    await held.held.wait()
    await stand.desk.complete(await stand.wire.token("desk.ask"), stand.client)
    held.open.set()
    assert (await handle.wait(timeout=TIME_LIMIT)).status == COMPLETED
    assert await stand.lines(handle) == DONE


async def test_acceptance_whose_reply_is_lost_is_answered_again(stand: Stand) -> None:
    stand.wire.on_execute["desk.ask"] = lose_replies(3)
    handle, token = await asked_after_losses(stand, 4)
    await stand.desk.complete(token, stand.client)
    saga = await handle.wait(timeout=TIME_LIMIT)
    assert (saga.status, step_of(saga, "ask").execute_attempts) == (COMPLETED, 4)
    assert await stand.lines(handle) == DONE


async def asked_after_losses(stand: Stand, calls: int) -> tuple[SagaHandle, str]:
    handle = await stand.start(with_question())
    await until(handle, "step_accepted")
    requests = stand.wire.executed("desk.ask")
    assert len(requests) == calls
    (token,) = {request.completion_token for request in requests}
    return handle, token


# ── Against a cancel ─────────────────────────────────────────────────────────────────────────────────────────────────────────────────


TURNS_MAX = 200
"""Of the event loop, for which one of two racers may wait: about as long as a call to the coordinator takes."""


async def let_run(turns: int) -> None:
    """Lets the others go first. No time passes."""
    for _ in range(turns):
        await asyncio.sleep(0)


async def race(stand: Stand, *, rounds: int, seed: int) -> set[str]:
    """A completion and a cancel at the same moment, in both orders. What the books may then say; returns what was seen."""
    chance = random.Random(seed)
    seen: set[str] = set()

    async def one(number: int) -> None:
        handle, token = await asked(stand, f"{number}")

        async def complete(turns: int) -> str:
            await let_run(turns)
            try:
                await stand.desk.complete(token, stand.client)
            except (CompletionRefusedError, StepNotWaitingError) as error:
                return type(error).__name__
            return "taken"

        async def cancel(turns: int) -> str:
            await let_run(turns)
            try:
                await handle.cancel()
            except CoordinatorError as error:
                return type(error).__name__
            return "cancelled"

        answers = await asyncio.gather(complete(chance.randrange(TURNS_MAX)), cancel(chance.randrange(TURNS_MAX)))
        saga = await handle.wait(timeout=TIME_LIMIT)
        lines = await stand.lines(handle)
        if saga.status == COMPLETED:
            assert lines == DONE, answers
            assert "taken" in answers
        else:
            assert saga.status == COMPENSATED, answers
            about_ask = [what for step, what in lines if step == "ask"]
            assert about_ask in (["ask", "withdraw"], ["ask", "do", "undo"]), (answers, lines)
            assert sorted(lines).count(("first", "undo")) == 1
            assert ("last", "do") not in lines or ("last", "undo") in lines
            seen.add(about_ask[-1])
        seen.add("COMPLETED" if saga.status == COMPLETED else "COMPENSATED")
        seen.update(answers)

    for first in range(0, rounds, 10):
        async with asyncio.TaskGroup() as tasks:
            for number in range(first, min(first + 10, rounds)):
                tasks.create_task(one(number))
    return seen


@pytest.mark.full
async def test_completion_racing_a_cancel_is_kept_or_undone_never_both(stand: Stand) -> None:  # R24
    seen = await race(stand, rounds=30, seed=random.randrange(2**32))
    assert "COMPENSATED" in seen


@pytest.mark.full
async def test_many_completions_racing_cancels_are_kept_or_undone_never_both(stand: Stand) -> None:  # R24
    seen = await race(stand, rounds=max(100, budget(150)), seed=random.randrange(2**32))
    assert {"COMPENSATED", "withdraw", "undo"} <= seen


async def test_completion_that_comes_after_the_cancel_of_the_step_before_is_undone_with_its_output(stand: Stand) -> None:  # R12, R24
    """The result is stored by the barrier, the coordinator has turned back already: told too late, undone with what was stored."""
    handle, token = await asked(stand)
    held = asyncio.Event()

    async def complete_slowly() -> None:
        async with stand.desk.completing(token, client=stand.client) as completion:
            await completion.session.execute(insert(ledger).values(saga_id=handle.id, step_id="ask", direction="do"))
            completion.succeed(StringValue(value="yes"))
            held.set()
            await until(handle, "saga_turned_back")

    completing = asyncio.ensure_future(complete_slowly())
    await held.wait()
    await handle.cancel()
    assert await refusal(completing) is StepNotWaitingError
    assert (await until_over(handle)).status == COMPENSATED
    assert await stand.lines(handle) == [("first", "do"), ("ask", "ask"), ("ask", "do"), ("ask", "undo"), ("first", "undo")]
