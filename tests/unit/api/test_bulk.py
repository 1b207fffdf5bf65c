"""The same done to many sagas: looked at first, bounded, and one saga's refusal stops nobody."""

import asyncio
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import aclosing
from dataclasses import replace

import pytest

from coordinator.api import bulk
from coordinator.api.errors import RefusedError
from coordinator.core.inputs import ResolvedSkipped, ResolvedSucceeded, ResolveStep
from coordinator.core.values import Code, Failure, IncidentKind, SagaId, SagaStatus, StepId
from coordinator.engine.ports import JournalUnavailableError, SagaFilter, StoredSaga
from coordinator.journal.memory_journal import MemoryJournal
from participant_sdk.rpc_errors import error_reason
from saga.v1 import coordinator_pb2, operator_pb2, saga_pb2
from tests.unit.api.refusals import violations
from tests.unit.api.stand import Stand, accepted, done, opened, refused_by_participant, text

Responses = list[operator_pb2.ActOnSagasResponse]
PAUSE, CANCEL, RETRY = operator_pb2.BULK_ACTION_PAUSE, operator_pb2.BULK_ACTION_CANCEL, operator_pb2.BULK_ACTION_RETRY
EVERY_TRIP = operator_pb2.SagaSelection(definition_name="trip")


def saga(number: int) -> SagaId:
    return SagaId(f"01900000-0000-7000-8000-{number:012d}")


def asked(
    action: operator_pb2.BulkAction.ValueType,
    *,
    selection: operator_pb2.SagaSelection = EVERY_TRIP,
    dry_run: bool = False,
    sagas: Iterable[int] = (),
) -> operator_pb2.ActOnSagasRequest:
    return operator_pb2.ActOnSagasRequest(
        selection=selection, action=action, dry_run=dry_run, saga_ids=map(saga, sagas), reason="audit", actor="ann"
    )


async def act(stand: Stand, request: operator_pb2.ActOnSagasRequest) -> Responses:
    return [response async for response in stand.bulk.act(request)]


async def refusal_of(stand: Stand, request: operator_pb2.ActOnSagasRequest) -> RefusedError:
    with pytest.raises(RefusedError) as caught:
        await act(stand, request)
    return caught.value


def outcomes(responses: Responses) -> dict[str, str]:
    """Per saga: why it was not done; empty if it was."""
    return {response.saga.id: error_reason(response.error) for response in responses}


async def test_dry_run_tells_what_would_be_done_and_does_nothing(stand: Stand) -> None:
    await stand.start(saga_id=saga(1))
    await stand.fail(saga(2))
    responses = await act(stand, asked(CANCEL, dry_run=True))
    assert outcomes(responses) == {saga(1): "", saga(2): "POINT_OF_NO_RETURN_PASSED"}
    assert {response.found for response in responses} == {2}
    assert await stand.status(saga(1)) is SagaStatus.RUNNING
    assert (await stand.view(saga(1))).state.cause is None


async def test_one_refusal_stops_nobody(stand: Stand) -> None:
    for number in (1, 3, 4):
        await stand.start(saga_id=saga(number))
    await stand.fail(saga(2))
    responses = await act(stand, asked(CANCEL, sagas=range(1, 5)))
    assert outcomes(responses) == {saga(1): "", saga(2): "POINT_OF_NO_RETURN_PASSED", saga(3): "", saga(4): ""}
    assert {response.saga.status for response in responses if not response.HasField("error")} == {saga_pb2.SAGA_STATUS_COMPENSATING}
    assert all(not response.saga.steps for response in responses)


async def test_saga_that_is_set_aside_is_refused_alone() -> None:
    async with opened() as stand:
        await stand.fail(saga(1))
        await stand.fail(saga(2))
        await stand.journal.quarantine(saga(2), Failure(Code.INTERNAL, "no such page"))
        found = outcomes(await act(stand, asked(RETRY, sagas=(1, 2))))
        assert found == {saga(1): "", saga(2): "SAGA_QUARANTINED"}


async def test_every_step_that_an_incident_is_about_is_tried_again(stand: Stand) -> None:
    await stand.fail(saga(1))
    await stand.start(saga_id=saga(2))
    assert outcomes(await act(stand, asked(RETRY, sagas=(1, 2)))) == {saga(1): "", saga(2): "STEP_STATUS"}
    assert "ship execute 2" in stand.dispatcher.sent()


async def test_step_that_only_a_late_outcome_is_about_is_not_tried_again(stand: Stand) -> None:
    """What stops the saga is tried again, and a contradiction about another step keeps nobody from that (R17)."""
    await stand.start(saga_id=saga(1))
    await stand.end("reserve", done(), saga(1))
    await stand.end("charge", accepted(1), saga(1))
    await stand.clock.pass_time(2)
    await stand.give(ResolveStep(step_id=StepId("charge"), resolution=ResolvedSucceeded(text("C-1")), reason="by phone"), saga(1))
    late = coordinator_pb2.CompleteStepRequest(completion_token=stand.token("charge", saga_id=saga(1)))
    late.rejected.status.message = "declined"
    with pytest.raises(RefusedError):
        await stand.completions.complete(late)
    assert outcomes(await act(stand, asked(RETRY, sagas=(1,)))) == {saga(1): "STEP_STATUS"}
    await stand.end("ship", refused_by_participant(), saga(1))
    assert outcomes(await act(stand, asked(RETRY, sagas=(1,)))) == {saga(1): ""}
    assert "ship execute 2" in stand.dispatcher.sent()
    open_ones = [one.fact.kind for one in (await stand.view(saga(1))).state.incidents if one.closed_at is None]
    assert open_ones == [IncidentKind.LATE_OUTCOME]


async def test_selection_finds_only_what_it_says(stand: Stand) -> None:
    await stand.fail(saga(1))
    await stand.start(saga_id=saga(2), labels=(("team", "blue"),))
    blue = operator_pb2.SagaSelection(labels={"team": "blue"})
    assert set(outcomes(await act(stand, asked(PAUSE, selection=blue, dry_run=True)))) == {saga(2)}
    stuck = operator_pb2.SagaSelection(needs_person=True, incident_kinds=[saga_pb2.INCIDENT_KIND_STEP_REJECTED])
    assert set(outcomes(await act(stand, asked(RETRY, selection=stuck, dry_run=True)))) == {saga(1)}


@pytest.mark.parametrize(
    ("action", "expected"),
    [
        (PAUSE, {"SAGA_STATUS"}),
        (operator_pb2.BULK_ACTION_RESUME, {""}),
        (operator_pb2.BULK_ACTION_TERMINATE, {""}),
    ],
)
async def test_every_action_is_the_command_of_its_name(stand: Stand, action: operator_pb2.BulkAction.ValueType, expected: set[str]) -> None:
    await stand.fail(saga(1))
    assert set(outcomes(await act(stand, asked(action, dry_run=True))).values()) == expected
    assert set(outcomes(await act(stand, asked(action, sagas=(1,)))).values()) == expected
    view = await stand.view(saga(1))
    assert (view.state.terminated is not None) == (action == operator_pb2.BULK_ACTION_TERMINATE)


async def test_saga_that_nobody_was_shown_is_left_alone(stand: Stand) -> None:
    """As many are found as were shown, but others: one has ended since, and one was started."""
    await stand.fail(saga(1))
    stuck = operator_pb2.SagaSelection(needs_person=True)
    shown = await act(stand, asked(operator_pb2.BULK_ACTION_TERMINATE, selection=stuck, dry_run=True))
    assert [one.saga.id for one in shown] == [saga(1)]
    await stand.give(ResolveStep(step_id=StepId("ship"), resolution=ResolvedSkipped(), reason="by hand"), saga(1))
    await stand.fail(saga(2))
    (answer,) = await act(stand, asked(operator_pb2.BULK_ACTION_TERMINATE, selection=stuck, sagas=(1, 1)))
    assert (answer.saga.id, answer.found, error_reason(answer.error)) == (saga(1), 1, "NO_LONGER_SELECTED")
    assert answer.saga.status == saga_pb2.SAGA_STATUS_COMPLETED
    assert (await stand.view(saga(2))).state.terminated is None


async def test_saga_that_nobody_knows_is_refused_alone(stand: Stand) -> None:
    await stand.start(saga_id=saga(1))
    assert outcomes(await act(stand, asked(PAUSE, sagas=(9, 1)))) == {saga(9): "SAGA_NOT_FOUND", saga(1): ""}


@pytest.mark.parametrize(
    ("request_", "fields"),
    [
        (operator_pb2.ActOnSagasRequest(selection=EVERY_TRIP, action=PAUSE), {"reason", "saga_ids"}),
        (operator_pb2.ActOnSagasRequest(selection=EVERY_TRIP, action=PAUSE, reason="x", saga_ids=[saga(1), "7"]), {"saga_ids[1]"}),
        (operator_pb2.ActOnSagasRequest(selection=EVERY_TRIP, action=PAUSE, reason="x", saga_ids=[saga(1)] * 10_001), {"saga_ids"}),
        (operator_pb2.ActOnSagasRequest(selection=EVERY_TRIP, dry_run=True), {"action"}),
        (operator_pb2.ActOnSagasRequest(selection=EVERY_TRIP, dry_run=True, action=99), {"action"}),  # type: ignore[arg-type]
        (operator_pb2.ActOnSagasRequest(dry_run=True, action=PAUSE), {"selection"}),
        (operator_pb2.ActOnSagasRequest(selection=EVERY_TRIP, dry_run=True, action=PAUSE, actor="a" * 256), {"actor"}),
    ],
)
async def test_request_that_says_too_little_is_refused(stand: Stand, request_: operator_pb2.ActOnSagasRequest, fields: set[str]) -> None:
    assert set(violations(await refusal_of(stand, request_))) == fields


class WideJournal(MemoryJournal):
    """Finds as many sagas as a test says, in pages."""

    rows = 0
    pages = 0

    async def list_sagas(self, where: SagaFilter, before: object, limit: int, /) -> Sequence[StoredSaga]:
        self.pages += 1
        count = min(limit, self.rows)
        (row,) = await super().list_sagas(where, None, 1)
        page = [replace(row, saga_id=saga(self.rows - number)) for number in range(count)]
        self.rows -= count
        return page


async def test_too_many_sagas_and_nothing_is_done() -> None:
    async with opened(journal_class=WideJournal) as stand:
        await stand.start(saga_id=saga(1))
        assert isinstance(stand.journal, WideJournal)
        stand.journal.rows = bulk.SAGAS_MAX * 5
        assert error_reason((await refusal_of(stand, asked(PAUSE, sagas=(1,)))).status) == "SELECTION_TOO_LARGE"
        assert stand.journal.pages == bulk.SAGAS_MAX // bulk.PAGE_SAGAS + 1  # it did not read them all to find out
        assert (await stand.view(saga(1))).state.paused is None


async def test_as_many_sagas_as_are_allowed_are_found_page_by_page() -> None:
    async with opened(journal_class=WideJournal) as stand:
        await stand.start(saga_id=saga(1))
        assert isinstance(stand.journal, WideJournal)
        stand.journal.rows = bulk.PAGE_SAGAS + 1
        assert len(await act(stand, asked(PAUSE, dry_run=True))) == bulk.PAGE_SAGAS + 1


class FadingJournal(MemoryJournal):
    """Cannot be read any more once a test says so."""

    is_away = False

    async def find_saga(self, saga_id: SagaId, /) -> StoredSaga | None:
        if self.is_away:
            raise JournalUnavailableError("away")
        return await super().find_saga(saga_id)


async def test_database_that_goes_away_ends_the_call() -> None:
    async with opened(journal_class=FadingJournal) as stand:
        assert isinstance(stand.journal, FadingJournal)
        for number in range(1, bulk.AT_ONCE + 2):
            await stand.fail(saga(number))
        seen: Responses = []
        with pytest.raises(JournalUnavailableError):
            await _fade_away(stand.journal, stand.bulk.act(asked(RETRY, sagas=range(1, bulk.AT_ONCE + 2))), seen)
        assert len(seen) == bulk.AT_ONCE + 1  # the first of the second group says why; then it is over
        assert error_reason(seen[-1].error) == "JOURNAL_UNAVAILABLE"


async def _fade_away(journal: FadingJournal, responses: AsyncIterator[operator_pb2.ActOnSagasResponse], seen: Responses) -> None:
    async for response in responses:
        seen.append(response)
        journal.is_away = True


async def test_caller_that_goes_away_leaves_the_rest_undone(stand: Stand) -> None:
    for number in range(1, bulk.AT_ONCE + 2):
        await stand.start(saga_id=saga(number))
    async with aclosing(stand.bulk.act(asked(PAUSE, sagas=range(1, bulk.AT_ONCE + 2)))) as responses:  # type: ignore[type-var]
        async for _ in responses:
            break
    await asyncio.sleep(0)
    paused = [(await stand.view(saga(number))).state.paused is not None for number in range(1, bulk.AT_ONCE + 2)]
    assert paused.count(False) == 1
    assert stand.waits._futures == {}


async def test_saga_that_ended_since_it_was_found_is_refused_alone(stand: Stand) -> None:
    await stand.fail(saga(1))
    await stand.give(ResolveStep(step_id=StepId("ship"), resolution=ResolvedSkipped(), reason="by hand"), saga(1))
    ended = operator_pb2.SagaSelection(definition_name="trip", statuses=[saga_pb2.SAGA_STATUS_COMPLETED])
    assert outcomes(await act(stand, asked(CANCEL, selection=ended, sagas=(1,)))) == {saga(1): "SAGA_ALREADY_ENDED"}
