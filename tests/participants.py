"""Participants for tests: one written without the SDK that does what a script says, and one with the SDK that keeps books."""

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import NoReturn

import grpc
from google.protobuf.any_pb2 import Any
from google.protobuf.message import Message
from google.protobuf.wrappers_pb2 import StringValue
from google.rpc import status_pb2
from sqlalchemy import Column, Integer, MetaData, String, Table, insert, select
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from participant_sdk import Participant, Rejected, SqlBarrier, StepContext, action, barrier_table
from participant_sdk.exchange import ExchangeSession
from saga.v1 import coordinator_pb2, coordinator_pb2_grpc, participant_pb2, participant_pb2_grpc
from tests.plain_service import PlainService

Context = grpc.aio.ServicerContext[Message, Message]
Execute = Callable[[participant_pb2.ExecuteRequest, Context], Awaitable[participant_pb2.ExecuteResponse]]
Compensate = Callable[[participant_pb2.CompensateRequest, Context], Awaitable[participant_pb2.CompensateResponse]]


def text(value: str) -> Any:
    packed = Any()
    packed.Pack(StringValue(value=value))
    return packed


def succeeded(value: str) -> participant_pb2.ExecuteResponse:
    return participant_pb2.ExecuteResponse(succeeded=participant_pb2.Succeeded(output=text(value)))


def compensated(*, handler_ran: bool = True) -> participant_pb2.CompensateResponse:
    return participant_pb2.CompensateResponse(compensated=participant_pb2.Compensated(handler_ran=handler_ran))


class Gate:
    """An action that waits until it is let go."""

    def __init__(self) -> None:
        self.open = asyncio.Event()

    async def __call__(self, request: participant_pb2.ExecuteRequest, context: Context) -> participant_pb2.ExecuteResponse:
        await self.open.wait()
        return succeeded("let go")


class FrameContext:
    """What scripts ask of the context of a call, for one of many on a stream."""

    def __init__(self, call: participant_pb2.ExchangeCall) -> None:
        self._call = call
        self._ends_at = asyncio.get_running_loop().time() + self._request.time_left.ToNanoseconds() / 1e9
        self.status = status_pb2.Status()

    @property
    def _request(self) -> participant_pb2.ExecuteRequest | participant_pb2.CompensateRequest:
        return self._call.execute if self._call.WhichOneof("call") == "execute" else self._call.compensate

    def time_remaining(self) -> float:
        return self._ends_at - asyncio.get_running_loop().time()

    def invocation_metadata(self) -> tuple[tuple[str, str], ...]:
        headers = (("traceparent", self._call.traceparent), ("tracestate", self._call.tracestate))
        return tuple((name, value) for name, value in headers if value)

    async def abort(self, code: grpc.StatusCode, details: str = "", trailing_metadata: object = ()) -> NoReturn:
        self.status = status_pb2.Status(code=code.value[0], message=details)
        for name, value in trailing_metadata or ():  # type: ignore[attr-defined]
            if name == "grpc-status-details-bin":
                self.status = status_pb2.Status.FromString(value)
        raise grpc.aio.AbortError(details)

    async def abort_with_status(self, status: grpc.Status) -> NoReturn:
        await self.abort(status.code, status.details, status.trailing_metadata)


class PlainParticipant(participant_pb2_grpc.ParticipantServiceServicer):
    """Written with plain grpcio stubs and no SDK: answers from scripts, by action; without one it succeeds."""

    def __init__(self) -> None:
        self.executions: list[participant_pb2.ExecuteRequest] = []
        self.compensations: list[participant_pb2.CompensateRequest] = []
        self.on_execute: dict[str, Execute] = {}
        self.on_compensate: dict[str, Compensate] = {}
        self.arrived: dict[str, asyncio.Event] = defaultdict(asyncio.Event)
        """Set when an action is called, in either direction."""
        self.sessions: list[ExchangeSession] = []

    async def Describe(  # noqa: N802
        self, request: participant_pb2.DescribeRequest, context: Context
    ) -> participant_pb2.DescribeResponse:
        await context.abort(grpc.StatusCode.UNIMPLEMENTED, "a participant needs Execute and Compensate only")
        raise AssertionError("abort raises")

    async def Execute(  # noqa: N802
        self, request: participant_pb2.ExecuteRequest, context: Context
    ) -> participant_pb2.ExecuteResponse:
        self.executions.append(request)
        self.arrived[request.action].set()
        script = self.on_execute.get(request.action)
        return await script(request, context) if script else succeeded(f"{request.step_id} done")

    async def Compensate(  # noqa: N802
        self, request: participant_pb2.CompensateRequest, context: Context
    ) -> participant_pb2.CompensateResponse:
        self.compensations.append(request)
        self.arrived[f"undo {request.action}"].set()
        script = self.on_compensate.get(request.action)
        return await script(request, context) if script else compensated()

    async def Exchange(  # noqa: N802
        self, request_iterator: AsyncIterator[participant_pb2.ExchangeRequest], context: Context
    ) -> AsyncIterator[participant_pb2.ExchangeResponse]:
        session = ExchangeSession(self._reply_to)
        self.sessions.append(session)
        try:
            async for frame in session.run(request_iterator):
                yield frame
        finally:
            self.sessions.remove(session)

    async def _reply_to(self, call: participant_pb2.ExchangeCall) -> participant_pb2.ExchangeReply:
        """As the same script answers a call by itself."""
        context = FrameContext(call)
        try:
            if call.WhichOneof("call") == "execute":
                return participant_pb2.ExchangeReply(id=call.id, executed=await self.Execute(call.execute, context))  # type: ignore[arg-type]
            return participant_pb2.ExchangeReply(id=call.id, compensated=await self.Compensate(call.compensate, context))  # type: ignore[arg-type]
        except grpc.aio.AbortError:
            return participant_pb2.ExchangeReply(id=call.id, status=context.status)
        except Exception as error:
            return participant_pb2.ExchangeReply(id=call.id, status=status_pb2.Status(code=2, message=f"Unexpected {type(error)}: {error}"))

    def executed(self, action_name: str) -> list[participant_pb2.ExecuteRequest]:
        return [request for request in self.executions if request.action == action_name]

    def undone(self, action_name: str) -> list[participant_pb2.CompensateRequest]:
        return [request for request in self.compensations if request.action == action_name]


@asynccontextmanager
async def serving(servicer: participant_pb2_grpc.ParticipantServiceServicer, port: int = 0) -> AsyncIterator[str]:
    """Serves it on loopback; gives the address."""
    server = grpc.aio.server()
    participant_pb2_grpc.add_ParticipantServiceServicer_to_server(servicer, server)
    server.add_generic_rpc_handlers((PlainService(servicer),))
    bound = server.add_insecure_port(f"127.0.0.1:{port}")
    await server.start()
    try:
        yield f"127.0.0.1:{bound}"
    finally:
        await server.stop(None)


async def register(coordinator: str, target: str, name: str, *actions: str, compensatable: bool = True, ttl_s: int = 3600) -> None:
    """Registers a participant by hand, as one without the SDK would."""
    described = [
        participant_pb2.ActionDescription(
            name=action_name,
            input_type="google.protobuf.StringValue",
            output_type="google.protobuf.StringValue",
            compensatable=compensatable,
        )
        for action_name in actions
    ]
    request = coordinator_pb2.RegisterParticipantRequest(
        target=target, description=participant_pb2.ParticipantDescription(name=name, actions=described)
    )
    request.ttl.FromSeconds(ttl_s)
    async with grpc.aio.insecure_channel(coordinator) as channel:
        await coordinator_pb2_grpc.SagaServiceStub(channel).RegisterParticipant(request, wait_for_ready=True, timeout=10)


books = MetaData()
ledger = Table(
    "ledger",
    books,
    Column("position", Integer, primary_key=True, autoincrement=True),
    Column("saga_id", String(36), nullable=False),
    Column("step_id", String(64), nullable=False),
    Column("direction", String(16), nullable=False),
)
barrier_table(books)


class Bookkeeper(Participant, name="books"):
    """Writes a line for every effect, inside the database transaction of the barrier."""

    def __init__(self, engine: AsyncEngine) -> None:
        self.engine = engine
        super().__init__(barrier=SqlBarrier(engine))

    @action
    async def first(self, request: StringValue, step: StepContext) -> StringValue:
        return await self._write(request, step, "do")

    @first.compensation
    async def undo_first(self, request: StringValue, output: StringValue, step: StepContext) -> None:
        await self._write(request, step, "undo")

    @action
    async def second(self, request: StringValue, step: StepContext) -> StringValue:
        return await self._write(request, step, "do")

    @second.compensation
    async def undo_second(self, request: StringValue, output: StringValue, step: StepContext) -> None:
        await self._write(request, step, "undo")

    @action
    async def third(self, request: StringValue, step: StepContext) -> StringValue:
        if request.value.startswith("refuse"):
            raise Rejected("REFUSED", "asked to be refused")
        return await self._write(request, step, "do")

    @third.compensation
    async def undo_third(self, request: StringValue, output: StringValue, step: StepContext) -> None:
        await self._write(request, step, "undo")

    async def _write(self, request: StringValue, step: StepContext, direction: str) -> StringValue:
        await step.session.execute(insert(ledger).values(saga_id=step.saga_id, step_id=step.step_id, direction=direction))
        return StringValue(value=request.value)

    async def lines(self) -> dict[str, list[tuple[str, str]]]:
        """What was written, per saga, in order."""
        found: dict[str, list[tuple[str, str]]] = defaultdict(list)
        async with self.engine.connect() as connection:
            for row in await connection.execute(select(ledger).order_by(ledger.c.position)):
                found[row.saga_id].append((row.step_id, row.direction))
        return dict(found)


@asynccontextmanager
async def bookkeeper(directory: Path) -> AsyncIterator[Bookkeeper]:
    """A participant with its own SQLite database."""
    engine = create_async_engine(f"sqlite+aiosqlite:///{directory / 'books.db'}", connect_args={"timeout": 30})
    async with engine.begin() as connection:
        await connection.exec_driver_sql("PRAGMA journal_mode=WAL")
        await connection.run_sync(books.create_all)
    keeper = Bookkeeper(engine)
    try:
        yield keeper
    finally:
        await engine.dispose()
