"""A participant with a ledger and an action for every kind of step, behind a wire that a test can cut, hold and listen to."""

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final, NoReturn, Unpack

import grpc
from google.protobuf.message import Message
from google.protobuf.wrappers_pb2 import StringValue
from sqlalchemy import insert, select
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from participant_sdk import (
    Accepted,
    Participant,
    ParticipantServer,
    Rejected,
    Saga,
    SagaClient,
    SagaHandle,
    SqlBarrier,
    StepContext,
    StepKind,
    action,
)
from participant_sdk.builder import StepOptions
from participant_sdk.client import StartOptions
from saga.v1 import coordinator_pb2, coordinator_pb2_grpc, participant_pb2, participant_pb2_grpc, saga_pb2
from tests.integration.definitions import QUICK, SHORT_ATTEMPTS
from tests.participants import books, ledger

TIME_LIMIT: Final = timedelta(seconds=60)
"""Of whatever a test waits for."""
LATER: Final = timedelta(seconds=30)
"""For which an accepted step waits, where it is not about that."""

OUTPUT_CHARS: Final = 100
"""Of an input, that its output repeats."""

Lines = list[tuple[str, str]]
Context = grpc.aio.ServicerContext[Message, Message]
Forward = Callable[[], Awaitable[participant_pb2.ExecuteResponse]]
Script = Callable[[Forward, participant_pb2.ExecuteRequest, Context], Awaitable[participant_pb2.ExecuteResponse]]


class Desk(Participant, name="desk"):
    """Writes a line for every effect, inside the database transaction of the barrier. A word in the input makes an action refuse."""

    def __init__(self, engine: AsyncEngine) -> None:
        self.engine = engine
        self.accepts_for = LATER
        super().__init__(barrier=SqlBarrier(engine))

    @action
    async def take(self, request: StringValue, step: StepContext) -> StringValue:
        return await self._do(request, step, refuses="nothing-to-take")

    @take.compensation
    async def give_back(self, request: StringValue, output: StringValue, step: StepContext) -> None:
        await self.write(step, "undo")

    @action
    async def pay(self, request: StringValue, step: StepContext) -> StringValue:
        return await self._do(request, step, refuses="broke")

    @action
    async def ship(self, request: StringValue, step: StepContext) -> StringValue:
        return await self._do(request, step, refuses="nowhere")

    @action
    async def note(self, request: StringValue, step: StepContext) -> StringValue:
        return await self._do(request, step, refuses="mute")

    @note.compensation
    async def strike(self, request: StringValue, output: StringValue, step: StepContext) -> None:
        await self.write(step, "undo")

    @action
    async def tell(self, request: StringValue, step: StepContext) -> StringValue:
        return await self._do(request, step, refuses="silent")

    @action
    async def ask(self, request: StringValue, step: StepContext) -> StringValue | Accepted:
        """What is asked for takes effect when it is completed."""
        await self.write(step, "ask")
        return Accepted(self.accepts_for)

    @ask.compensation
    async def withdraw(self, request: StringValue, output: StringValue | None, step: StepContext) -> None:
        await self.write(step, "withdraw" if output is None else "undo")

    @action
    async def deliver(self, request: StringValue, step: StepContext) -> StringValue | Accepted:
        """Like `ask`, past the point of no return."""
        await self.write(step, "ask")
        return Accepted(self.accepts_for)

    async def _do(self, request: StringValue, step: StepContext, *, refuses: str) -> StringValue:
        if refuses in request.value.split():
            raise Rejected("REFUSED", f"{refuses} was asked for")
        await self.write(step, "do")
        return StringValue(value=f"{step.step_id} of {request.value[:OUTPUT_CHARS]}")

    async def write(self, step: StepContext, what: str) -> None:
        await step.session.execute(insert(ledger).values(saga_id=step.saga_id, step_id=step.step_id, direction=what))

    async def complete(self, token: str, client: SagaClient, value: str = "yes") -> None:
        """Somebody finishes an accepted step, with a line in the ledger."""
        async with self.completing(token, client=client) as completion:
            await completion.session.execute(insert(ledger).values(saga_id=completion.saga_id, step_id=completion.step_id, direction="do"))
            completion.succeed(StringValue(value=value))

    async def deny(self, token: str, client: SagaClient) -> None:
        """Somebody refuses an accepted step, and takes back what was begun."""
        async with self.completing(token, client=client) as completion:
            completion.reject("DENIED", "not this year")

    async def lines(self, saga_id: str) -> Lines:
        """What was written for one saga, in order."""
        async with self.engine.connect() as connection:
            found = await connection.execute(select(ledger).where(ledger.c.saga_id == saga_id).order_by(ledger.c.position))
            return [(row.step_id, row.direction) for row in found]


class Wire(participant_pb2_grpc.ParticipantServiceServicer):
    """Stands between the coordinator and a participant: passes calls on, keeps them, and does to them what a script says."""

    def __init__(self, stub: "participant_pb2_grpc.ParticipantServiceAsyncStub") -> None:
        self._stub = stub
        self.executions: list[participant_pb2.ExecuteRequest] = []
        self.compensations: list[participant_pb2.CompensateRequest] = []
        self.on_execute: dict[str, Script] = {}
        self.arrived: dict[str, asyncio.Event] = defaultdict(asyncio.Event)
        """Set when an action is called."""
        self.is_cut = False
        """Whether nothing gets through, in either direction."""

    async def Describe(  # noqa: N802
        self, request: participant_pb2.DescribeRequest, context: Context
    ) -> participant_pb2.DescribeResponse:
        return await self._stub.Describe(request)

    async def Exchange(self, request_iterator: object, context: Context) -> None:  # type: ignore[override] # noqa: N802 - ends at once
        await context.abort(grpc.StatusCode.UNIMPLEMENTED, "calls are passed on one by one here")

    async def Execute(  # noqa: N802
        self, request: participant_pb2.ExecuteRequest, context: Context
    ) -> participant_pb2.ExecuteResponse:
        self.executions.append(request)
        self.arrived[request.action].set()

        async def forward() -> participant_pb2.ExecuteResponse:
            try:
                return await self._stub.Execute(request, timeout=context.time_remaining())
            except grpc.aio.AioRpcError as error:
                await context.abort(error.code(), error.details() or "", error.trailing_metadata() or ())

        if self.is_cut:
            await lose(context)
        script = self.on_execute.get(request.action)
        return await (script(forward, request, context) if script else forward())

    async def Compensate(  # noqa: N802
        self, request: participant_pb2.CompensateRequest, context: Context
    ) -> participant_pb2.CompensateResponse:
        self.compensations.append(request)
        self.arrived[f"undo {request.action}"].set()
        if self.is_cut:
            await lose(context)
        try:
            return await self._stub.Compensate(request, timeout=context.time_remaining())
        except grpc.aio.AioRpcError as error:
            await context.abort(error.code(), error.details() or "", error.trailing_metadata() or ())

    def executed(self, action_name: str) -> list[participant_pb2.ExecuteRequest]:
        return [request for request in self.executions if request.action == action_name]

    async def token(self, action_name: str) -> str:
        """The completion token of the last call of an action, when there was one."""
        async with asyncio.timeout(TIME_LIMIT.total_seconds()):
            await self.arrived[action_name].wait()
        return self.executed(action_name)[-1].completion_token


async def lose(context: Context) -> NoReturn:
    """The call is cut, and nobody knows what became of it."""
    await context.abort(grpc.StatusCode.UNAVAILABLE, "the line is dead")


def lose_replies(count: int) -> Script:
    """The first calls take effect, and their replies are lost."""
    left = count

    async def script(forward: Forward, request: participant_pb2.ExecuteRequest, context: Context) -> participant_pb2.ExecuteResponse:
        nonlocal left
        response = await forward()
        if left > 0:
            left -= 1
            await lose(context)
        return response

    return script


def lose_until(there: asyncio.Event) -> Script:
    """Nothing reaches the participant until it is there."""

    async def script(forward: Forward, request: participant_pb2.ExecuteRequest, context: Context) -> participant_pb2.ExecuteResponse:
        if not there.is_set():
            await lose(context)
        return await forward()

    return script


class Held:
    """Calls arrive and are kept; what arrived is passed on when the test says so, or lost after it took effect."""

    def __init__(self, *, loses_reply: bool = False, before: bool = False) -> None:
        self.open = asyncio.Event()
        self.held = asyncio.Event()
        """Set when a call has been passed on, and its reply is held; with `before` when it has arrived."""
        self._loses_reply = loses_reply
        self._before = before

    async def __call__(
        self, forward: Forward, request: participant_pb2.ExecuteRequest, context: Context
    ) -> participant_pb2.ExecuteResponse:
        if self._before:
            self.held.set()
            await self.open.wait()
            return await forward()
        response = await forward()
        self.held.set()
        await self.open.wait()
        if self._loses_reply:
            self._loses_reply = False
            await lose(context)
        return response


class Stand:
    """The participant, its wire, and a client: all that a test needs beside a coordinator."""

    def __init__(self, desk: Desk, wire: Wire, target: str, client: SagaClient) -> None:
        self.desk = desk
        self.wire = wire
        self.target = target
        self.client = client

    async def register(self, coordinator: str) -> None:
        """Tells a coordinator where the wire is; holds for an hour, restarts included."""
        described = await self.wire.Describe(participant_pb2.DescribeRequest(), None)  # type: ignore[arg-type] # it is not looked at
        request = coordinator_pb2.RegisterParticipantRequest(target=self.target, description=described.description)
        request.ttl.FromSeconds(3600)
        async with grpc.aio.insecure_channel(coordinator) as channel:
            await coordinator_pb2_grpc.SagaServiceStub(channel).RegisterParticipant(request, wait_for_ready=True, timeout=10)

    async def start(self, saga: Saga[StringValue], value: str = "x", **options: Unpack[StartOptions]) -> SagaHandle:
        """Registers it and starts one."""
        await self.client.register(saga)
        return await self.client.start(saga, StringValue(value=value), **options)

    async def lines(self, handle: SagaHandle) -> Lines:
        return await self.desk.lines(handle.id)


@asynccontextmanager
async def open_stand(directory: Path, coordinator: str) -> AsyncIterator[Stand]:
    """Serves the desk and its wire, with a database of its own, and registers it."""
    engine = create_async_engine(f"sqlite+aiosqlite:///{directory / 'desk.db'}", connect_args={"timeout": 30})
    async with engine.begin() as connection:
        await connection.exec_driver_sql("PRAGMA journal_mode=WAL")
        await connection.run_sync(books.create_all)
    desk = Desk(engine)
    try:
        async with (
            ParticipantServer(desk, coordinator=None) as server,
            grpc.aio.insecure_channel(server.address) as channel,
            SagaClient(coordinator) as client,
        ):
            wire = Wire(participant_pb2_grpc.ParticipantServiceStub(channel))
            listening = grpc.aio.server()
            participant_pb2_grpc.add_ParticipantServiceServicer_to_server(wire, listening)
            target = f"127.0.0.1:{listening.add_insecure_port('127.0.0.1:0')}"
            await listening.start()
            try:
                stand = Stand(desk, wire, target, client)
                await stand.register(coordinator)
                yield stand
            finally:
                await listening.stop(None)
    finally:
        await engine.dispose()


def saga_of(name: str) -> Saga[StringValue]:
    return Saga(name, input=StringValue)


def with_question(name: str = "with-question") -> Saga[StringValue]:
    """take, ask, then another take: everything can be undone."""
    saga = saga_of(name)
    saga.step(Desk.take, id="first", execute_retry=QUICK, compensate_retry=QUICK)
    # Short, because whoever turns back after a crash waits for the end of the call that nobody has heard of since (R12).
    saga.step(Desk.ask, saga.input, attempt_timeout=timedelta(seconds=3), execute_retry=QUICK, compensate_retry=QUICK)
    saga.step(Desk.take, saga.input, id="last", execute_retry=QUICK, compensate_retry=QUICK)
    return saga


def of_every_kind(name: str = "every-kind", **pivot: Unpack[StepOptions]) -> Saga[StringValue]:
    """A compensatable step, one that is left out unless "gift" is said, the pivot, a retriable, a best-effort one and both hooks."""
    saga = Saga(name, input=StringValue, defaults=SHORT_ATTEMPTS)
    taken = saga.step(Desk.take, execute_retry=QUICK, compensate_retry=QUICK)
    wrapped = saga.step(Desk.take, saga.input, id="wrap", when='input.contains("gift")', execute_retry=QUICK, compensate_retry=QUICK)
    noted = saga.step(Desk.note, saga.input, after=[taken], kind=StepKind.BEST_EFFORT, execute_retry=QUICK, compensate_retry=QUICK)
    options: StepOptions = {"after": [taken, wrapped], "kind": StepKind.PIVOT, "execute_retry": QUICK}
    options.update(pivot)
    paid = saga.step(Desk.pay, saga.input, **options)
    saga.step(Desk.ship, saga.input, after=[paid, noted], kind=StepKind.RETRIABLE, execute_retry=QUICK)
    saga.on_success(Desk.tell, execute_retry=QUICK)
    saga.on_failure(Desk.tell, execute_retry=QUICK)
    return saga


async def passed(instant: datetime) -> None:
    """Waits until an instant is over; a protobuf timestamp as a naive one, in UTC."""
    over = asyncio.Event()
    left_s = (instant.replace(tzinfo=UTC) - datetime.now(UTC)).total_seconds()
    asyncio.get_running_loop().call_later(max(0.0, left_s) + 0.01, over.set)
    await over.wait()


async def until_over(handle: SagaHandle) -> saga_pb2.Saga:
    """Waits for the end of a saga and of its hook."""
    async with aclosing(handle.watch(timeout=TIME_LIMIT)) as events:
        async for _ in events:
            pass
    return await handle.get()


async def facts(client: SagaClient, handle: SagaHandle) -> list[str]:
    """The kinds of everything that has happened, in order."""
    return [event.WhichOneof("fact") or "" async for event in client.history(handle.id)]


def step_of(saga: saga_pb2.Saga, step_id: str) -> saga_pb2.StepResult:
    (found,) = [step for step in saga.steps if step.id == step_id]
    return found


def open_incidents(saga: saga_pb2.Saga) -> list[tuple[str, str]]:
    """Kind, without the prefix, and step of every incident that is open."""
    return [
        (saga_pb2.IncidentKind.Name(one.kind).removeprefix("INCIDENT_KIND_"), one.step_id)
        for one in saga.incidents
        if not one.HasField("closed_at")
    ]


def check_books(saga: saga_pb2.Saga, lines: Lines) -> None:
    """What must hold of any saga that has ended by itself: every effect once, and kept or undone as the outcome says."""
    assert len(lines) == len(set(lines)), f"an effect took place twice: {lines}"
    done = [step for step, what in lines if what == "do"]
    undone = [step for step, what in lines if what == "undo"]
    hook = {"on_success", "on_failure"} & set(done)
    kept = set(done) - set(undone) - hook
    assert set(undone) <= set(done), f"undone what was not done: {lines}"
    if saga.status == saga_pb2.SAGA_STATUS_COMPLETED:
        assert undone == [], lines
        assert kept == {step.id for step in saga.steps if step.status == saga_pb2.STEP_STATUS_SUCCEEDED}
    else:
        assert saga.status == saga_pb2.SAGA_STATUS_COMPENSATED, saga_pb2.SagaStatus.Name(saga.status)
        assert kept == set(), f"kept though it turned back: {lines}"
    if saga.hook.id:
        assert hook == {saga.hook.id}
        assert lines[-1] == (saga.hook.id, "do"), "the hook comes when all is over"
