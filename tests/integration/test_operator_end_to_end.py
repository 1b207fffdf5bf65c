"""What operators see and do, with a real coordinator: explanations are true, every act is in the history, and outlives a restart."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from google.protobuf.wrappers_pb2 import StringValue

from participant_sdk import RetryPolicy, SagaAlreadyEnded, SagaHandle, StepKind, StepNotWaitingError
from participant_sdk.client import NoLongerSelected, PointOfNoReturnPassed, Resolution, SagaSelection
from saga.v1 import operator_pb2, saga_pb2
from tests.integration.conftest import Running
from tests.integration.definitions import QUICK
from tests.integration.desk import (
    TIME_LIMIT,
    Desk,
    Held,
    Stand,
    check_books,
    lose_until,
    of_every_kind,
    open_incidents,
    open_stand,
    saga_of,
    step_of,
    until_over,
    with_question,
)
from tests.integration.following import statuses, until
from tests.integration.places import opened

pytestmark = pytest.mark.full

COMPLETED, COMPENSATED, FAILED = saga_pb2.SAGA_STATUS_COMPLETED, saga_pb2.SAGA_STATUS_COMPENSATED, saga_pb2.SAGA_STATUS_FAILED
PATIENT = RetryPolicy(initial_backoff=timedelta(seconds=1), max_backoff=timedelta(seconds=1))


@pytest.fixture
async def stand(running: Running, tmp_path: Path) -> AsyncIterator[Stand]:
    async with open_stand(tmp_path, running.address) as stand:
        yield stand


def reasons(explained: operator_pb2.ExplainSagaResponse) -> list[tuple[str, str]]:
    """What a saga waits for, and which step."""
    return [(operator_pb2.WaitReason.Name(wait.reason).removeprefix("WAIT_REASON_"), wait.step_id) for wait in explained.waits]


async def explained_as(stand: Stand, handle: SagaHandle, reason: str) -> operator_pb2.ExplainSagaResponse:
    """Waits until the first reason is that one."""
    async with asyncio.timeout(TIME_LIMIT.total_seconds()):
        while True:
            explained = await stand.client.operator.explain(handle.id)
            if explained.waits and reasons(explained)[0][0] == reason:
                return explained


# ── Explanations ─────────────────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_participant_that_is_missing_is_named(stand: Stand) -> None:
    saga = saga_of("lost")
    saga.step("nobody.act", request=StringValue, response=StringValue, without_compensation=True, kind=StepKind.BEST_EFFORT)
    handle = await stand.start(saga)
    explained = await explained_as(stand, handle, "NO_SUCH_PARTICIPANT")
    assert explained.waits[0].participant == "nobody"
    assert "'nobody'" in explained.summary
    assert "nobody.act" in explained.summary
    await handle.cancel()


async def test_circuit_that_is_open_is_told_with_its_error_and_its_end(stand: Stand) -> None:
    stand.wire.on_execute["desk.take"] = lose_until(there := asyncio.Event())
    handle = await stand.start(with_question())
    explained = await explained_as(stand, handle, "CIRCUIT_OPEN")
    (wait,) = [wait for wait in explained.waits if wait.reason == operator_pb2.WAIT_REASON_CIRCUIT_OPEN]
    assert (wait.participant, wait.error.message) == ("desk", "the line is dead")
    calls, until_then = len(stand.wire.executions), wait.until.ToDatetime(UTC)
    there.set()
    await until(handle, "step_accepted")
    (sent,) = [event.step_succeeded.attempt.sent_at async for event in stand.client.history(handle.id) if event.HasField("step_succeeded")]
    assert sent.ToDatetime(UTC) >= until_then, "it is let through when it was said, not before"
    assert len(stand.wire.executed("desk.take")) == calls + 1
    await handle.cancel()
    await handle.wait(timeout=TIME_LIMIT)


async def test_backoff_is_told_with_the_last_error_and_the_next_attempt_comes_then(stand: Stand) -> None:
    stand.wire.on_execute["desk.take"] = lose_until(there := asyncio.Event())
    saga = saga_of("patient")
    saga.step(Desk.take, execute_retry=PATIENT, compensate_retry=PATIENT)
    handle = await stand.start(saga)
    await until(handle, "attempt_failed")
    there.set()
    explained = await stand.client.operator.explain(handle.id)
    assert reasons(explained) == [("BACKOFF", "take")]
    wait = explained.waits[0]
    assert wait.error.message == "the line is dead"
    assert wait.until == explained.next_at == step_of(await handle.get(), "take").next_attempt_at
    assert any(choice.startswith("RetryStep take") for choice in explained.choices), explained.choices
    await handle.wait(timeout=TIME_LIMIT)
    (sent,) = [event.step_succeeded.attempt.sent_at async for event in stand.client.history(handle.id) if event.HasField("step_succeeded")]
    late = sent.ToDatetime() - wait.until.ToDatetime()
    assert timedelta() <= late < timedelta(seconds=5)


async def test_call_under_way_and_predecessors_are_told(stand: Stand) -> None:
    held = Held()
    stand.wire.on_execute["desk.take"] = held
    handle = await stand.start(with_question())
    await held.held.wait()
    explained = await stand.client.operator.explain(handle.id)
    assert reasons(explained)[:2] == [("ATTEMPT_UNDER_WAY", "first"), ("PREDECESSORS", "ask")]
    assert not explained.HasField("next_at")
    assert not any(choice.startswith(("RetryStep", "ResolveStep")) for choice in explained.choices)
    await handle.cancel()
    back = await stand.client.operator.explain(handle.id)
    assert reasons(back)[0] == ("QUIESCENCE", "first")
    held.open.set()
    assert (await handle.wait(timeout=TIME_LIMIT)).status == COMPENSATED


async def test_accepted_step_is_told_with_its_time_and_a_pause_with_who_and_why(stand: Stand) -> None:
    handle = await stand.start(with_question())
    await until(handle, "step_accepted")
    explained = await stand.client.operator.explain(handle.id)
    assert reasons(explained)[0] == ("COMPLETION", "ask")
    assert explained.waits[0].until == explained.next_at == step_of(await handle.get(), "ask").accepted_until
    await stand.client.operator.pause(handle.id, reason="the boss is away", actor="ann")
    explained = await stand.client.operator.explain(handle.id)
    assert reasons(explained)[0] == ("PAUSED", "")
    assert (explained.waits[0].person.actor, explained.waits[0].person.reason) == ("ann", "the boss is away")
    assert "ResumeSaga" in explained.choices
    assert "PauseSaga" not in explained.choices
    assert all(word in explained.summary for word in ("ann", "the boss is away"))
    await handle.cancel()
    await stand.client.operator.resume(handle.id)
    await handle.wait(timeout=TIME_LIMIT)


async def test_incident_is_told_and_what_is_offered_is_taken(stand: Stand) -> None:
    handle = await stand.start(of_every_kind(), "nowhere")
    failed = await handle.wait(timeout=TIME_LIMIT)
    explained = await stand.client.operator.explain(handle.id)
    assert reasons(explained) == [("INCIDENT", "ship")]
    assert (explained.waits[0].incident_id, explained.waits[0].error) == (failed.incidents[0].id, failed.incidents[0].error)
    assert explained.next == ""
    assert [choice for choice in explained.choices if choice.endswith("Saga")] == ["TerminateSaga"]
    with pytest.raises(PointOfNoReturnPassed):
        await handle.cancel()
    assert any(choice.startswith("RetryStep ship") for choice in explained.choices), explained.choices
    await stand.client.operator.retry_step(handle.id, "ship", reason="again")
    await until(handle, "incident_opened", count=2)
    assert any(choice.startswith("ResolveStep ship (succeeded, skipped)") for choice in explained.choices), explained.choices
    await stand.client.operator.resolve_step(handle.id, "ship", Resolution.SKIPPED, reason="fetched")
    saga = await until_over(handle)
    ended = await stand.client.operator.explain(handle.id)
    assert (saga.status, reasons(ended), list(ended.choices)) == (COMPLETED, [], [])
    assert "COMPLETED" in ended.summary


async def test_start_that_is_delayed_is_told(stand: Stand) -> None:
    handle = await stand.start(with_question(), start_at=datetime.now(UTC) + timedelta(hours=1))
    explained = await stand.client.operator.explain(handle.id)
    assert reasons(explained)[0] == ("START_TIME", "")
    assert explained.next_at == explained.saga.start_at
    await handle.cancel()


async def test_hook_that_waits_is_told_of_a_saga_that_has_ended(stand: Stand) -> None:
    stand.wire.on_execute["desk.tell"] = lose_until(there := asyncio.Event())
    handle = await stand.start(of_every_kind())
    await until(handle, "attempt_failed", step_id="on_success")
    explained = await stand.client.operator.explain(handle.id)
    assert explained.saga.status == COMPLETED
    assert reasons(explained)[0][1] == "on_success"
    assert "hook" in explained.summary
    there.set()
    await until_over(handle)


@pytest.mark.parametrize("limit", ["participant_concurrency", "participant_rate_per_second"])
async def test_limit_that_holds_a_call_back_is_told(tmp_path: Path, limit: str) -> None:
    async with opened(tmp_path) as (place, stand):
        settings = (
            place.coordinator_here(participant_concurrency=1)
            if limit == "participant_concurrency"
            else place.coordinator_here(participant_rate_per_second=0.2)
        )
        async with settings:
            held = Held()
            stand.wire.on_execute["desk.take"] = held
            first = await stand.start(with_question())
            await held.held.wait()
            second = await stand.start(with_question())
            if limit == "participant_concurrency":
                explained = await explained_as(stand, second, "CONCURRENCY_LIMIT")
                assert "1 of at most 1" in explained.summary
            else:
                explained = await explained_as(stand, second, "RATE_LIMIT")
                assert "0.2 calls per second" in explained.summary
            assert reasons(await stand.client.operator.explain(first.id))[0] == ("ATTEMPT_UNDER_WAY", "first")
            for handle in (first, second):
                await stand.client.operator.terminate(handle.id, reason="enough")
            held.open.set()


# ── Many at once ─────────────────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("sagas", [40, pytest.param(120, marks=pytest.mark.full)])
async def test_many_sagas_are_paused_resumed_and_cancelled_after_a_dry_run(stand: Stand, sagas: int) -> None:
    held, operator = Held(before=True), stand.client.operator
    stand.wire.on_execute["desk.take"] = held
    stand.desk.accepts_for = timedelta(minutes=10)  # on a busy machine none of them may expire before it is cancelled
    await stand.client.register(with_question())
    start = [stand.client.start("with-question", StringValue(value=f"{n}"), labels={"lot": str(n % 2)}) for n in range(sagas)]
    handles = await asyncio.gather(*start)
    await held.held.wait()
    odd = SagaSelection(definition="with-question", labels={"lot": "1"})

    async def act(action: operator_pb2.BulkAction.ValueType, where: SagaSelection, expected: int) -> list[str]:
        dry = [result async for result in operator.dry_run(where, action)]
        assert {result.found for result in dry} == {expected}
        shown = [result.saga.id for result in dry]
        assert all(result.refusal is None for result in dry)
        acted = [result async for result in operator.act_on_sagas(where, action, saga_ids=shown, reason="drill", actor="ann")]
        assert all(result.refusal is None for result in acted)
        assert [result.saga.id for result in acted] == shown
        return shown

    async def listed(*, paused: bool) -> set[str]:
        return {saga.id async for saga in stand.client.list(definition="with-question", paused=paused)}

    before = len([event async for event in stand.client.history(handles[1].id)])
    assert len([result async for result in operator.dry_run(odd, operator_pb2.BULK_ACTION_TERMINATE)]) == sagas // 2
    assert len([event async for event in stand.client.history(handles[1].id)]) == before, "a dry run changes nothing"
    paused = set(await act(operator_pb2.BULK_ACTION_PAUSE, odd, sagas // 2))
    assert (await listed(paused=True), len(await listed(paused=False))) == (paused, sagas // 2)
    held.open.set()
    await asyncio.gather(*(until(handle, "step_accepted") for handle in handles if handle.id not in paused))
    assert await act(operator_pb2.BULK_ACTION_RESUME, SagaSelection(definition="with-question", paused=True), sagas // 2)
    even, cancel = [handles[0].id], operator_pb2.BULK_ACTION_CANCEL
    (refused,) = [result async for result in operator.act_on_sagas(odd, cancel, saga_ids=even, reason="x")]
    assert isinstance(refused.refusal, NoLongerSelected)
    running = SagaSelection(definition="with-question", statuses=[saga_pb2.SAGA_STATUS_RUNNING])
    await act(operator_pb2.BULK_ACTION_CANCEL, running, sagas)
    ended = await asyncio.gather(*(handle.wait(timeout=10 * TIME_LIMIT) for handle in handles))
    assert {saga.status for saga in ended} == {COMPENSATED}
    for saga in ended:
        lines = await stand.desk.lines(saga.id)
        assert lines.count(("first", "do")) == lines.count(("first", "undo"))
        assert lines.count(("ask", "ask")) == lines.count(("ask", "withdraw")) <= 1
    again = [result async for result in operator.dry_run(odd, operator_pb2.BULK_ACTION_PAUSE)]
    assert {type(result.refusal) for result in again} == {SagaAlreadyEnded}


# ── The history ──────────────────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_every_act_of_a_person_is_in_the_history_with_who_and_why(stand: Stand) -> None:
    operator, seen = stand.client.operator, set[str]()
    output = "google.protobuf.StringValue{value: string(1 / int(input))}"

    async def note(handle: SagaHandle) -> None:
        async for event in stand.client.history(handle.id):
            fact = getattr(event, event.WhichOneof("fact") or "")
            named = {field.name for field in fact.DESCRIPTOR.fields}
            if "actor" in named and fact.actor:
                why = fact.reason if "reason" in named else fact.error.message
                assert (fact.actor, why) == ("ann", f"why {event.WhichOneof('fact')}")
                seen.add(event.WhichOneof("fact") or "")

    def by(fact: str) -> str:
        return f"why {fact}"

    held = Held(loses_reply=True)
    stand.wire.on_execute["desk.pay"] = held
    saga = saga_of("all")
    saga.step(Desk.take, execute_retry=QUICK, compensate_retry=QUICK)
    saga.step(Desk.pay, saga.input, kind=StepKind.PIVOT, execute_retry=RetryPolicy(max_attempts=1))
    saga.step(Desk.ship, 'google.protobuf.StringValue{value: "nowhere"}', kind=StepKind.RETRIABLE, execute_retry=QUICK)
    saga.returns(output, StringValue)
    handle = await stand.start(saga, "0")
    await held.held.wait()
    await handle.cancel(reason=by("turn_back_requested"), actor="ann")
    await operator.pause(handle.id, reason=by("saga_paused"), actor="ann")
    held.open.set()
    await until(handle, "step_unknown")
    await operator.resume(handle.id, reason=by("saga_resumed"), actor="ann")
    await until(handle, "saga_failed")
    await operator.change_step_policy(handle.id, "pay", execute_retry=QUICK, reason=by("step_policy_changed"), actor="ann")
    await operator.retry_step(handle.id, "pay", reason=by("step_retried"), actor="ann")
    await until(handle, "saga_failed", count=2)
    await operator.resolve_step(handle.id, "ship", Resolution.SKIPPED, reason=by("step_resolved"), actor="ann")
    await until(handle, "saga_failed", count=3)
    await operator.resolve_output(handle.id, StringValue(value="none"), reason=by("output_resolved"), actor="ann")
    assert (await until_over(handle)).status == COMPLETED
    await note(handle)
    back = await stand.start(with_question())
    await until(back, "step_accepted")
    await back.cancel(reason=by("saga_turned_back"), actor="ann")
    await back.wait(timeout=TIME_LIMIT)
    await note(back)
    stuck = await stand.start(with_question())
    await until(stuck, "step_accepted")
    await operator.terminate(stuck.id, reason=by("saga_terminated"), actor="ann")
    await note(stuck)
    assert seen == {
        "turn_back_requested", "saga_paused", "saga_resumed", "step_policy_changed", "step_retried", "step_resolved", "output_resolved",
        "saga_turned_back", "saga_terminated",
    }  # fmt: skip


async def test_answer_that_contradicts_a_person_is_an_incident_that_is_acknowledged(stand: Stand) -> None:  # R17
    stand.wire.on_execute["desk.deliver"] = lose_until(asyncio.Event())
    saga = saga_of("contradicted")
    saga.step(Desk.take, execute_retry=QUICK, compensate_retry=QUICK)
    saga.step(Desk.deliver, saga.input, kind=StepKind.RETRIABLE, execute_retry=RetryPolicy(max_attempts=1))
    handle = await stand.start(saga)
    await handle.wait(timeout=TIME_LIMIT)
    await stand.client.operator.resolve_step(handle.id, "deliver", Resolution.SKIPPED, reason="it never left", actor="ann")
    assert (await until_over(handle)).status == COMPLETED
    token = stand.wire.executed("desk.deliver")[0].completion_token
    with pytest.raises(StepNotWaitingError):
        await stand.client.complete_step(token, StringValue(value="it did"))
    ended = await handle.get()
    assert (ended.status, open_incidents(ended)) == (COMPLETED, [("LATE_OUTCOME", "deliver")])
    (listed,) = [one async for one in stand.client.operator.incidents(definition="contradicted")]
    assert (listed.saga_id, listed.incident.kind) == (handle.id, saga_pb2.INCIDENT_KIND_LATE_OUTCOME)
    assert [saga.id async for saga in stand.client.list(needs_person=True)] == [handle.id]
    explained = await stand.client.operator.explain(handle.id)
    assert f"AcknowledgeIncident {listed.incident.id}" in explained.choices
    await stand.client.operator.acknowledge_incident(handle.id, listed.incident.id, reason="told the customer", actor="ann")
    assert open_incidents(await handle.get()) == []
    assert [saga.id async for saga in stand.client.list(needs_person=True)] == []
    closed = [event.incident_closed async for event in stand.client.history(handle.id) if event.HasField("incident_closed")]
    assert [(one.actor, one.reason) for one in closed if one.actor] == [("ann", "told the customer")]


# ── After a restart ──────────────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_commands_reach_sagas_that_only_the_journal_holds(tmp_path: Path) -> None:  # P1
    """FAILED and ended sagas are not held in memory after a restart; each command takes its saga up from the journal."""
    async with opened(tmp_path) as (place, stand):
        async with place.coordinator_here():
            failed = [await stand.start(of_every_kind(), "nowhere") for _ in range(4)]
            ended = await stand.start(of_every_kind(), "x")
            waiting = await stand.start(with_question())
            for handle in failed:
                assert (await handle.wait(timeout=TIME_LIMIT)).status == FAILED
            await until_over(ended)
            await until(waiting, "step_accepted")
            before = {handle.id: await handle.get() for handle in (*failed, ended)}
        operator = stand.client.operator
        async with place.coordinator_here():
            assert {handle.id: await handle.get() for handle in (*failed, ended)} == before
            listed = {one.saga_id async for one in operator.incidents(kinds=[saga_pb2.INCIDENT_KIND_STEP_REJECTED])}
            assert listed == {handle.id for handle in failed}
            assert reasons(await operator.explain(failed[0].id)) == [("INCIDENT", "ship")]
            await operator.retry_step(failed[0].id, "ship", message=StringValue(value="here"), reason="moved", actor="ann")
            await operator.resolve_step(failed[1].id, "ship", StringValue(value="S"), reason="by hand", actor="ann")
            await operator.terminate(failed[2].id, reason="lost", actor="ann")
            with pytest.raises(PointOfNoReturnPassed):
                await failed[3].cancel()
            for command in (ended.cancel(), operator.pause(ended.id), operator.resume(ended.id), operator.terminate(ended.id, reason="x")):
                with pytest.raises(SagaAlreadyEnded):
                    await command
            assert "COMPLETED" in (await operator.explain(ended.id)).summary
            sagas = [await until_over(handle) for handle in failed[:3]]
            assert [saga.status for saga in sagas] == [COMPLETED, COMPLETED, FAILED]
            check_books(sagas[0], await stand.lines(failed[0]))
            await operator.pause(waiting.id, actor="ann")
        async with place.coordinator_here():
            assert (await failed[3].get()).status == FAILED
            assert [saga.id async for saga in stand.client.list(needs_person=True)] == [failed[3].id]
            await operator.change_step_policy(failed[3].id, "ship", execute_retry=RetryPolicy(max_attempts=2), actor="ann")
            await operator.retry_step(failed[3].id, "ship", reason="again", actor="ann")
            await until(failed[3], "incident_opened", count=2)
            assert (await waiting.get()).paused.actor == "ann"
            assert statuses(await waiting.get())["ask"] == "ACCEPTED"
            await waiting.cancel()
            await operator.resume(waiting.id)
            assert (await waiting.wait(timeout=TIME_LIMIT)).status == COMPENSATED
