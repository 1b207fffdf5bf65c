"""Steps that are finished later, by a participant with a database on a real socket and a scripted coordinator (R24).

The participant is the one of docs/participants.md, so that what the document shows is what runs here.
"""

import asyncio
import re
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from types import ModuleType
from typing import Any, TypeAlias

import grpc
import pytest
from google.protobuf.wrappers_pb2 import Int64Value, StringValue
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from participant_sdk import (
    Accepted,
    AlreadyCompletedError,
    CompletionMisusedError,
    CompletionPostponedError,
    CompletionRefusedError,
    CompletionTokenInvalidError,
    CompletionUndeliveredError,
    NoBarrier,
    Participant,
    ParticipantServer,
    ParticipantSetupError,
    SagaClient,
    SqlBarrier,
    StepContext,
    StepNotWaitingError,
    action,
    new_saga_id,
)
from participant_sdk.rpc_errors import error_reason, from_rpc_error
from participant_sdk.testing import MemoryBarrier, completion_token
from saga.v1 import participant_pb2, participant_pb2_grpc
from tests.integration.participant.scripted_coordinator import ScriptedCoordinator, served, too_late

Stub: TypeAlias = "participant_pb2_grpc.ParticipantServiceAsyncStub"

DOCUMENT = Path(__file__).parents[3] / "docs" / "participants.md"
TURNS_TO_CLOSE = 20
"""Rounds of the event loop after which a client that waits for nothing has closed its channel."""
SAGA_ID = new_saga_id()
TOKEN = completion_token(SAGA_ID, "ask")
KEY = f"{SAGA_ID}/ask/execute/1"


def documented(name: str) -> Any:
    """The snippet of that name in the document, as a module."""
    (code,) = re.findall(rf"<!-- the test-suite runs this: {name} -->\n```python\n(.*?)```", DOCUMENT.read_text(), re.DOTALL)
    module = ModuleType(name)
    exec(compile(code, f"{DOCUMENT.name}:{name}", "exec"), vars(module))
    return module


recipe = documented("approvals")


def execute(token: str = TOKEN, *, action_name: str = "approvals.ask") -> participant_pb2.ExecuteRequest:
    request = participant_pb2.ExecuteRequest(saga_id=SAGA_ID, step_id="ask", action=action_name, key=KEY, attempt=1, completion_token=token)
    request.first_attempt_at.GetCurrentTime()
    request.input.Pack(StringValue(value="a bicycle"))
    return request


def compensate(*, action_name: str = "approvals.ask") -> participant_pb2.CompensateRequest:
    request = participant_pb2.CompensateRequest(
        saga_id=SAGA_ID, step_id="ask", action=action_name, key=f"{SAGA_ID}/ask/compensate/1", execute_key=KEY, attempt=1
    )
    request.first_attempt_at.GetCurrentTime()
    request.input.Pack(StringValue(value="a bicycle"))
    request.unknown.SetInParent()
    return request


@pytest.fixture
def coordinator() -> ScriptedCoordinator:
    return ScriptedCoordinator()


@pytest.fixture
async def address(coordinator: ScriptedCoordinator) -> AsyncIterator[str]:
    async with served(coordinator) as address:
        yield address


@pytest.fixture
async def engine(tmp_path: Path) -> AsyncIterator[AsyncEngine]:
    engine = create_async_engine(f"sqlite+aiosqlite:///{tmp_path / 'approvals.db'}")
    async with engine.begin() as connection:
        await connection.run_sync(recipe.Base.metadata.create_all)
    yield engine
    await engine.dispose()


@pytest.fixture
async def approvals(engine: AsyncEngine) -> Any:
    barrier = SqlBarrier(engine)
    await barrier.create_table()
    return recipe.Approvals(barrier=barrier)


@pytest.fixture
async def stub(approvals: Any, address: str) -> AsyncIterator[Stub]:
    async with ParticipantServer(approvals, coordinator=address) as server, grpc.aio.insecure_channel(server.address) as channel:
        yield participant_pb2_grpc.ParticipantServiceStub(channel)


async def states(engine: AsyncEngine) -> list[str]:
    async with engine.connect() as connection:
        return list(await connection.scalars(select(recipe.Question.state)))


async def test_person_approves_and_the_coordinator_is_told(
    stub: Stub, approvals: Any, coordinator: ScriptedCoordinator, engine: AsyncEngine
) -> None:
    accepted = await stub.Execute(execute())
    assert accepted.accepted.time_limit.ToTimedelta() == timedelta(days=3)
    assert await stub.Execute(execute()) == accepted
    assert await recipe.answer(approvals, TOKEN, "ann", "approved") == "thank you"
    sent = coordinator.results[TOKEN]
    assert StringValue.FromString(sent.succeeded.output.value).value == "ann"
    assert await states(engine) == ["approved"]
    again = await stub.Execute(execute())
    assert again.succeeded == sent.succeeded


async def test_person_denies_and_the_rejection_is_sealed(
    stub: Stub, approvals: Any, coordinator: ScriptedCoordinator, engine: AsyncEngine
) -> None:
    await stub.Execute(execute())
    assert await recipe.answer(approvals, TOKEN, "bob", "denied") == "thank you"
    rejected = coordinator.results[TOKEN].rejected
    assert rejected.sealed  # R5
    assert error_reason(rejected.status) == "DENIED"
    assert (await stub.Execute(execute())).rejected == rejected
    assert not (await stub.Compensate(compensate())).compensated.handler_ran
    assert await states(engine) == ["denied"]


async def test_second_answer_learns_of_the_first_and_tells_the_coordinator_again(
    stub: Stub, approvals: Any, coordinator: ScriptedCoordinator, engine: AsyncEngine
) -> None:
    await stub.Execute(execute())
    await recipe.answer(approvals, TOKEN, "ann", "approved")
    assert await recipe.answer(approvals, TOKEN, "bob", "denied") == "approved by ann before"
    assert len(coordinator.completions) == 2
    assert coordinator.completions[0] == coordinator.completions[1]
    assert await states(engine) == ["approved"]


async def test_answer_after_the_undo_is_refused_and_nobody_is_told(
    stub: Stub, approvals: Any, coordinator: ScriptedCoordinator, engine: AsyncEngine
) -> None:
    await stub.Execute(execute())
    assert (await stub.Compensate(compensate())).compensated.handler_ran
    assert await recipe.answer(approvals, TOKEN, "ann", "approved") == "too late: it was withdrawn"
    assert await states(engine) == ["withdrawn"]
    assert coordinator.completions == []


async def test_result_that_cannot_be_delivered_is_stored_and_sent_by_the_repetition(
    approvals: Any, coordinator: ScriptedCoordinator, engine: AsyncEngine
) -> None:
    async with served(coordinator) as address:
        """Only to learn of a port that is free."""
    async with ParticipantServer(approvals, coordinator=None) as server, grpc.aio.insecure_channel(server.address) as channel:
        await participant_pb2_grpc.ParticipantServiceStub(channel).Execute(execute())
    async with SagaClient(address, timeout=timedelta(milliseconds=50)) as client:
        with pytest.raises(CompletionUndeliveredError, match="same token"):
            async with approvals.completing(TOKEN, client=client) as completion:
                completion.succeed(StringValue(value="ann"))
    ran: list[str] = []
    async with served(coordinator, address), SagaClient(address) as client:
        with pytest.raises(AlreadyCompletedError) as caught:
            async with approvals.completing(TOKEN, client=client):
                ran.append("the body")
    assert ran == []
    assert (caught.value.output, caught.value.rejection) == (StringValue(value="ann"), None)
    assert StringValue.FromString(coordinator.results[TOKEN].succeeded.output.value).value == "ann"


async def test_result_that_comes_too_late_for_the_coordinator_is_undone_with_its_output(
    stub: Stub, approvals: Any, coordinator: ScriptedCoordinator, engine: AsyncEngine
) -> None:
    await stub.Execute(execute())
    coordinator.failures.append(too_late())
    with pytest.raises(StepNotWaitingError):
        async with approvals.completing(TOKEN) as completion:
            completion.succeed(StringValue(value="ann"))
    assert (await stub.Compensate(compensate())).compensated.handler_ran
    assert await states(engine) == ["withdrawn"]


async def test_completion_before_the_acceptance_is_to_be_asked_again(stub: Stub, approvals: Any) -> None:
    with pytest.raises(CompletionPostponedError) as caught:
        async with approvals.completing(TOKEN, time_limit=timedelta(milliseconds=50)):
            raise AssertionError("no body may run")
    assert (caught.value.saga_id, caught.value.step_id) == (SAGA_ID, "ask")


@pytest.mark.parametrize(
    ("result", "message"),
    [
        (None, "left without a result"),
        (Int64Value(value=7), "completed with a google.protobuf.StringValue, found Int64Value"),
        (StringValue(value="x" * (1 << 20)), "1048576 are allowed"),
    ],
)
async def test_completion_without_a_fitting_result_is_rolled_back(
    stub: Stub, approvals: Any, coordinator: ScriptedCoordinator, engine: AsyncEngine, result: object, message: str
) -> None:
    await stub.Execute(execute())

    async def complete() -> None:
        async with approvals.completing(TOKEN) as completion:
            await completion.session.execute(recipe.update(recipe.Question).values(state="written"))
            if result is not None:
                completion.succeed(result)

    with pytest.raises(CompletionMisusedError, match=message):
        await complete()
    assert await states(engine) == ["open"]
    assert coordinator.completions == []
    assert await recipe.answer(approvals, TOKEN, "ann", "approved") == "thank you"


async def test_completion_with_two_results_is_rolled_back(stub: Stub, approvals: Any, engine: AsyncEngine) -> None:
    await stub.Execute(execute())
    async with approvals.completing(TOKEN) as completion:
        completion.reject("DENIED")
        with pytest.raises(CompletionMisusedError, match="once"):
            completion.succeed(StringValue(value="ann"))
    assert (await stub.Execute(execute())).HasField("rejected"), "the first one counts"


async def test_completion_that_takes_too_long_is_rolled_back_and_lets_go(stub: Stub, approvals: Any, engine: AsyncEngine) -> None:
    await stub.Execute(execute())
    with pytest.raises(TimeoutError):
        async with approvals.completing(TOKEN, time_limit=timedelta(milliseconds=50)):
            await asyncio.Event().wait()
    assert (await stub.Compensate(compensate())).compensated.handler_ran


async def test_token_that_is_none_or_of_another_call_completes_nothing(
    stub: Stub, approvals: Any, coordinator: ScriptedCoordinator
) -> None:
    await stub.Execute(execute(token=completion_token(SAGA_ID, "ask", round_=1)[:-3] + "abc"))
    with pytest.raises(CompletionTokenInvalidError):
        async with approvals.completing("nonsense"):
            raise AssertionError("no body may run")
    with pytest.raises(CompletionRefusedError, match="token"):
        async with approvals.completing(TOKEN):
            raise AssertionError("no body may run")
    assert coordinator.completions == []


async def test_token_of_another_action_is_told_where_it_belongs(approvals: Any, address: str, engine: AsyncEngine) -> None:
    class Other(Participant, name="other"):
        @action
        async def ask(self, request: StringValue, step: StepContext) -> StringValue | Accepted:
            return Accepted(timedelta(hours=1))

    other = Other(barrier=approvals.barrier)
    async with ParticipantServer(approvals, other, coordinator=address) as server, grpc.aio.insecure_channel(server.address) as channel:
        await participant_pb2_grpc.ParticipantServiceStub(channel).Execute(execute(action_name="other.ask"))
        for completing in (approvals.completing(TOKEN), approvals.completing(TOKEN, recipe.Approvals.ask)):
            with pytest.raises(ParticipantSetupError, match=r"found one of other\.ask"):
                async with completing:
                    raise AssertionError("no body may run")
        async with other.completing(TOKEN, Other.ask) as completion:
            assert (completion.saga_id, completion.step_id, completion.key) == (SAGA_ID, "ask", KEY)
            completion.succeed(StringValue(value="ann"))


async def test_participant_that_knows_no_coordinator_says_what_to_pass(approvals: Any, address: str) -> None:
    with pytest.raises(ParticipantSetupError, match=r"client=SagaClient"):
        approvals.completing(TOKEN)
    async with ParticipantServer(approvals, coordinator=address):
        approvals.completing(TOKEN)
    with pytest.raises(ParticipantSetupError, match=r"client=SagaClient"):
        approvals.completing(TOKEN)


async def test_server_that_stops_lets_a_completion_end_that_is_being_told(
    approvals: Any, coordinator: ScriptedCoordinator, address: str
) -> None:
    server = ParticipantServer(approvals, coordinator=address)
    await server.start()
    async with grpc.aio.insecure_channel(server.address) as channel:
        await participant_pb2_grpc.ParticipantServiceStub(channel).Execute(execute())
    coordinator.gate.clear()
    async with asyncio.timeout(10), asyncio.TaskGroup() as tasks:
        answering = tasks.create_task(recipe.answer(approvals, TOKEN, "ann", "approved"))
        await coordinator.is_asked.wait()
        stopping = tasks.create_task(server.stop())
        while approvals._completer is not None:
            await asyncio.sleep(0)
        for _ in range(TURNS_TO_CLOSE):
            await asyncio.sleep(0)
        assert not stopping.done()
        coordinator.gate.set()
    assert answering.result() == "thank you"
    assert TOKEN in coordinator.results


async def test_without_a_barrier_completing_says_what_to_use(address: str) -> None:  # R23
    async with SagaClient(address) as client:
        with pytest.raises(ParticipantSetupError, match=r"SagaClient\.complete_step"):
            async with recipe.Approvals(barrier=NoBarrier()).completing(TOKEN, client=client):
                raise AssertionError("no body may run")


class Careless(Participant, name="careless"):
    """Accepts what could not be completed."""

    @action
    async def ask(self, request: StringValue, step: StepContext) -> StringValue:
        return Accepted(timedelta(hours=1))  # type: ignore[return-value]

    @action
    async def wait_long(self, request: StringValue, step: StepContext) -> StringValue | Accepted:
        return Accepted(timedelta(days=40))

    @action
    async def wait_for_ever(self, request: StringValue, step: StepContext) -> StringValue | Accepted:
        return Accepted(timedelta(days=400))

    @action
    async def wait(self, request: StringValue, step: StepContext) -> StringValue | Accepted:
        return Accepted(timedelta(hours=1))


@pytest.mark.parametrize(
    ("action_name", "token", "reason", "message"),
    [
        ("ask", TOKEN, "REPLY_TYPE_MISMATCH", "found Accepted; annotate it as `-> … | Accepted`"),
        ("wait_long", TOKEN, "ACCEPTANCE_INVALID", "forgets keys after 30 days"),
        ("wait_for_ever", TOKEN, "", "1 s to 366 days"),
        ("wait", "", "ACCEPTANCE_INVALID", "without a completion token"),
        ("wait", "t" * 256, "REQUEST_INVALID", "completion_token"),
    ],
    ids=["not accepting", "longer than keys are kept", "too long", "without a token", "with a token that is too long"],
)
async def test_acceptance_that_could_never_be_completed_is_refused_before_anything_is_stored(
    action_name: str, token: str, reason: str, message: str
) -> None:
    barrier = MemoryBarrier()
    async with (
        ParticipantServer(Careless(barrier=barrier), coordinator=None) as server,
        grpc.aio.insecure_channel(server.address) as channel,
    ):
        stub = participant_pb2_grpc.ParticipantServiceStub(channel)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.Execute(execute(token, action_name=f"careless.{action_name}"))
    status = from_rpc_error(caught.value)
    assert error_reason(status) == reason
    assert message in status.message
    assert barrier.store.database.rows == {}


async def test_describe_says_which_actions_accept(stub: Stub) -> None:
    described = (await stub.Describe(participant_pb2.DescribeRequest())).description
    assert [(each.name, each.output_type, each.accepts) for each in described.actions] == [("ask", "google.protobuf.StringValue", True)]


async def test_job_that_takes_long_tells_how_far_it_is_and_completes(address: str, coordinator: ScriptedCoordinator) -> None:
    rendering = documented("rendering")

    async def pages() -> AsyncIterator[str]:
        await coordinator.wait_for_heartbeats(1)
        yield "one"
        yield "two"

    async with SagaClient(address) as client:
        await rendering.render(client, TOKEN, pages())
    assert StringValue.FromString(coordinator.results[TOKEN].succeeded.output.value).value == "2 pages"
    assert coordinator.heartbeats[0].time_limit.ToTimedelta() == timedelta(minutes=1)
