"""CompleteStep and HeartbeatStep over a real socket: what is sent, what is repeated, and which error means what (R24)."""

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta

import grpc
import pytest
from google.protobuf.any_pb2 import Any as PackedAny
from google.protobuf.wrappers_pb2 import BytesValue, Int64Value, StringValue
from google.rpc import error_details_pb2

from participant_sdk import (
    CompletionTokenInvalidError,
    CoordinatorError,
    CoordinatorUnavailable,
    InvalidRequest,
    Rejected,
    SagaClient,
    StepNotWaitingError,
    beating,
    new_saga_id,
)
from participant_sdk.client.completion import PROGRESS_BYTES_MAX
from participant_sdk.rpc_errors import ErrorReason, error_details, find_detail, status_with
from participant_sdk.testing import completion_token
from saga.v1 import participant_pb2
from tests.integration.participant.scripted_coordinator import ScriptedCoordinator, not_mine, served, too_late, unavailable

SAGA_ID = new_saga_id()
TOKEN = completion_token(SAGA_ID, "ask")
OFTEN = timedelta(milliseconds=1)
TIME_LIMIT_S = 10.0


@pytest.fixture
def coordinator() -> ScriptedCoordinator:
    return ScriptedCoordinator()


@pytest.fixture
async def client(coordinator: ScriptedCoordinator) -> AsyncIterator[SagaClient]:
    async with served(coordinator) as address, SagaClient(address) as client:
        yield client


async def test_output_is_sent_typed_and_may_be_repeated(client: SagaClient, coordinator: ScriptedCoordinator) -> None:
    coordinator.failures.append(unavailable())
    assert await client.complete_step(TOKEN, StringValue(value="ann")) is False
    assert await client.complete_step(TOKEN, StringValue(value="ann")) is True
    assert len(coordinator.completions) == 3
    assert {request.completion_token for request in coordinator.completions} == {TOKEN}
    assert StringValue.FromString(coordinator.results[TOKEN].succeeded.output.value) == StringValue(value="ann")


async def test_output_that_is_packed_already_is_sent_as_it_is(client: SagaClient, coordinator: ScriptedCoordinator) -> None:
    packed = PackedAny()
    packed.Pack(Int64Value(value=7))
    await client.complete_step(TOKEN, packed)
    assert coordinator.results[TOKEN].succeeded.output == packed


async def test_rejection_tells_its_reason_and_is_sealed_only_if_it_says_so(client: SagaClient, coordinator: ScriptedCoordinator) -> None:
    await client.reject_step(TOKEN, Rejected("DENIED", "not this year", metadata={"by": "bob"}))
    sent = coordinator.results[TOKEN].rejected
    found = find_detail(sent.status, error_details_pb2.ErrorInfo)
    assert found is not None
    assert (sent.status.message, found.reason, dict(found.metadata)) == ("not this year", "DENIED", {"by": "bob"})
    assert not sent.sealed  # R5: no barrier has sealed it, so it is compensated
    other = completion_token(SAGA_ID, "other")
    await client.reject_step(other, participant_pb2.Rejected(status=sent.status, sealed=True))
    assert coordinator.results[other].rejected.sealed


async def test_result_that_contradicts_or_comes_too_late_is_a_step_that_does_not_wait(
    client: SagaClient, coordinator: ScriptedCoordinator
) -> None:
    await client.complete_step(TOKEN, StringValue(value="ann"))
    with pytest.raises(StepNotWaitingError, match="complete step ask") as caught:
        await client.reject_step(TOKEN, Rejected("DENIED"))
    assert caught.value.saga_id == SAGA_ID
    # Why it is refused makes no difference to who has the token.
    coordinator.failures.append(
        status_with(grpc.StatusCode.FAILED_PRECONDITION, "it has ended", error_details(ErrorReason.SAGA_ALREADY_ENDED))
    )
    with pytest.raises(StepNotWaitingError):
        await client.complete_step(TOKEN, StringValue(value="ann"))


async def test_refusal_without_a_reason_says_nothing_about_the_step(client: SagaClient, coordinator: ScriptedCoordinator) -> None:
    coordinator.failures.append(status_with(grpc.StatusCode.FAILED_PRECONDITION, "a proxy's opinion"))
    with pytest.raises(CoordinatorError) as caught:
        await client.complete_step(TOKEN, StringValue(value="ann"))
    assert not isinstance(caught.value, StepNotWaitingError)


async def test_token_of_another_coordinator_and_output_of_another_type_are_told_apart(
    client: SagaClient, coordinator: ScriptedCoordinator
) -> None:
    coordinator.failures.append(not_mine())
    with pytest.raises(CompletionTokenInvalidError):
        await client.complete_step(TOKEN, StringValue())
    details = error_details(ErrorReason.INPUT_TYPE_MISMATCH)
    coordinator.failures.append(status_with(grpc.StatusCode.INVALID_ARGUMENT, "not an Approved", details))
    with pytest.raises(InvalidRequest) as caught:
        await client.complete_step(TOKEN, StringValue())
    assert not isinstance(caught.value, CompletionTokenInvalidError)


@pytest.mark.parametrize("token", ["", "nonsense", TOKEN[:20], "x" * 300, "ä" * 40], ids=["empty", "word", "cut", "long", "not ASCII"])
async def test_text_that_is_no_token_is_never_sent(client: SagaClient, coordinator: ScriptedCoordinator, token: str) -> None:
    for call in (client.complete_step(token, StringValue()), client.heartbeat(token)):
        with pytest.raises(CompletionTokenInvalidError) as caught:
            await call
        assert token not in str(caught.value) or not token
    assert coordinator.completions == coordinator.heartbeats == []


async def test_heartbeat_extends_and_tells_how_it_stands(client: SagaClient, coordinator: ScriptedCoordinator) -> None:
    coordinator.failures.append(unavailable())
    beat = await client.heartbeat(TOKEN, time_limit=timedelta(minutes=5), progress=StringValue(value="page 3"))
    assert (beat.time_left, beat.is_cancelled, beat.is_turn_back_requested) == (timedelta(minutes=5), False, False)
    sent = coordinator.heartbeats[-1]
    assert sent.time_limit.ToTimedelta() == timedelta(minutes=5)
    assert StringValue.FromString(sent.progress.value).value == "page 3"
    coordinator.is_step_wanted = False
    beat = await client.heartbeat(TOKEN)
    assert (beat.time_left, beat.is_cancelled) == (timedelta(), True)
    assert not coordinator.heartbeats[-1].HasField("time_limit")
    assert not coordinator.heartbeats[-1].HasField("progress")


async def test_progress_that_is_too_large_is_refused_before_it_is_sent(client: SagaClient, coordinator: ScriptedCoordinator) -> None:
    with pytest.raises(ValueError, match="at most 16384 bytes"):
        await client.heartbeat(TOKEN, progress=BytesValue(value=b"x" * PROGRESS_BYTES_MAX))
    assert coordinator.heartbeats == []


# ── beating ──────────────────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_beating_tells_of_progress_until_the_work_is_done(client: SagaClient, coordinator: ScriptedCoordinator) -> None:
    async with asyncio.timeout(TIME_LIMIT_S), beating(client, TOKEN, every=OFTEN, time_limit=timedelta(hours=1)) as beat:
        await coordinator.wait_for_heartbeats(1)
        beat.report(StringValue(value="half of it"))
        await coordinator.wait_for_heartbeats(4)
        assert beat.last is not None
        assert beat.last.time_left == timedelta(minutes=5)
    sent = len(coordinator.heartbeats)
    told = [StringValue.FromString(each.progress.value).value for each in coordinator.heartbeats if each.HasField("progress")]
    assert told == ["half of it"]
    assert {each.time_limit.seconds for each in coordinator.heartbeats} == {3600}
    await client.heartbeat(TOKEN)
    assert len(coordinator.heartbeats) == sent + 1, "the heart stands still when the body has ended"


async def test_step_that_is_not_wanted_any_more_cancels_the_work(client: SagaClient, coordinator: ScriptedCoordinator) -> None:
    was_cancelled: list[bool] = []

    async def work() -> None:
        async with beating(client, TOKEN, every=OFTEN) as beat:
            await coordinator.wait_for_heartbeats(1)
            coordinator.is_step_wanted = False
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                was_cancelled.append(beat.is_cancelled)
                raise

    async with asyncio.timeout(TIME_LIMIT_S):
        with pytest.raises(StepNotWaitingError, match="not wanted any more"):
            await work()
    assert was_cancelled == [True]
    current = asyncio.current_task()
    assert current is not None
    assert current.cancelling() == 0


@pytest.mark.parametrize(("answer", "error"), [(too_late(), StepNotWaitingError), (not_mine(), CompletionTokenInvalidError)])
async def test_heartbeat_that_is_refused_ends_the_work(
    client: SagaClient, coordinator: ScriptedCoordinator, answer: object, error: type[Exception]
) -> None:
    coordinator.failures.append(answer)
    with pytest.raises(error):
        async with asyncio.timeout(TIME_LIMIT_S), beating(client, TOKEN, every=OFTEN):
            await asyncio.Event().wait()


async def test_coordinator_that_is_away_does_not_end_the_work_and_progress_waits(
    coordinator: ScriptedCoordinator, caplog: pytest.LogCaptureFixture
) -> None:
    async with served(coordinator) as address:
        """Only to learn of a port that is free."""
    async with (
        asyncio.timeout(TIME_LIMIT_S),
        SagaClient(address, timeout=timedelta(milliseconds=20)) as client,
        beating(client, TOKEN, every=OFTEN) as beat,
    ):
        beat.report(StringValue(value="page 1"))
        while "a heartbeat was lost" not in caplog.text:
            await asyncio.sleep(0)
        async with served(coordinator, address):
            await coordinator.wait_for_heartbeats(1)
    assert StringValue.FromString(coordinator.heartbeats[0].progress.value).value == "page 1"


async def test_work_that_fails_or_is_cancelled_keeps_its_own_error(client: SagaClient, coordinator: ScriptedCoordinator) -> None:
    with pytest.raises(KeyError):
        async with beating(client, TOKEN, every=OFTEN):
            raise KeyError("a bug")
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0), beating(client, TOKEN, every=OFTEN):
            await asyncio.Event().wait()
    with pytest.raises(TimeoutError, match="the work's own"):
        async with beating(client, TOKEN, every=OFTEN):
            raise TimeoutError("the work's own")


async def test_progress_that_is_too_large_is_told_where_it_is_reported(client: SagaClient) -> None:
    with pytest.raises(ValueError, match="at most 16384 bytes"):
        async with beating(client, TOKEN, every=OFTEN) as beat:
            beat.report(BytesValue(value=b"x" * PROGRESS_BYTES_MAX))


async def test_coordinator_that_stays_away_is_told_so(coordinator: ScriptedCoordinator) -> None:
    async with served(coordinator) as address:
        """Only to learn of a port that is free."""
    async with SagaClient(address, timeout=timedelta(milliseconds=20)) as client:
        with pytest.raises(CoordinatorUnavailable):
            await client.complete_step(TOKEN, StringValue())
