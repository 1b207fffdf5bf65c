"""A participant with plain stubs and no line of the SDK: careful, or careless in one way."""

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass
from typing import Final, cast
from uuid import uuid4

import grpc
from google.protobuf.any_pb2 import Any as PackedAny
from google.protobuf.message import DecodeError
from google.protobuf.wrappers_pb2 import StringValue

from saga.v1 import participant_pb2, participant_pb2_grpc
from shop.v1.shop_pb2 import DESCRIPTOR, StockReserved
from tests.integration.conformance.careless import Careless
from tests.integration.conformance.plain_stream import FramedContext, PlainStream
from tests.processes import free_port

WORK_S: Final = 0.005
OUTLIVING_S: Final = 1.0
"""Longer than the shortest deadline and what is waited afterwards, shorter than when it is looked for."""
SHORT_S: Final = 0.5
HASTE_S: Final = 0.2
"""How long a participant that drains in haste works on a step, and that it waits at most for one to be under way."""
LARGE_BYTES: Final = 4 << 20
WAIT_S: Final = 5.0
INPUT_TYPE: Final = StringValue.DESCRIPTOR.full_name
OUTPUT_TYPE: Final = StockReserved.DESCRIPTOR.full_name


@dataclass(slots=True)
class Row:
    """What it remembers of a key."""

    reply: participant_pb2.ExecuteResponse | None = None
    is_undone: bool = False
    handler_ran: bool = False


class PlainParticipant(participant_pb2_grpc.ParticipantServiceServicer):
    """Serves `plain.act`, which answers with a new number each time that it takes effect."""

    def __init__(self, careless: Careless, *, describes: bool, compensatable: bool, exchanges: bool, says_exchange: bool) -> None:
        self.careless: Final = careless
        self._careless = careless
        self._exchanges = exchanges
        self._says_exchange = says_exchange
        self.streams: list[PlainStream] = []
        self._describes = describes
        self._compensatable = compensatable
        self._rows: defaultdict[str, Row] = defaultdict(Row)
        self._locks: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._late: set[asyncio.Task[None]] = set()

    async def Describe(self, request: participant_pb2.DescribeRequest, context: "Context") -> participant_pb2.DescribeResponse:  # noqa: N802
        if not self._describes:
            await context.abort(grpc.StatusCode.UNIMPLEMENTED, "it does not")
        output = "google.protobuf.Int32Value" if self._careless is Careless.LIES else OUTPUT_TYPE
        action = participant_pb2.ActionDescription(name="act", input_type=INPUT_TYPE, output_type=output, compensatable=self._compensatable)
        description = participant_pb2.ParticipantDescription(
            name="plain", actions=[action], guarantee=participant_pb2.GUARANTEE_EFFECT_ONCE, exchange=self._says_exchange
        )
        if self._careless is not Careless.HIDES_TYPES:
            DESCRIPTOR.CopyToProto(description.descriptors.file.add())
        return participant_pb2.DescribeResponse(description=description)

    async def Exchange(  # noqa: N802
        self, request_iterator: AsyncIterator[participant_pb2.ExchangeRequest], context: "Context"
    ) -> AsyncIterator[participant_pb2.ExchangeResponse]:
        if not self._exchanges:
            await context.abort(grpc.StatusCode.UNIMPLEMENTED, "calls one by one, please")
        stream = PlainStream(self._careless, self._answer)
        self.streams.append(stream)
        try:
            async for frame in stream.run(request_iterator):
                yield frame
        finally:
            self.streams.remove(stream)

    async def _answer(self, call: participant_pb2.ExchangeCall, context: FramedContext) -> participant_pb2.ExchangeReply:
        asked = cast("Context", context)
        if call.HasField("execute"):
            return participant_pb2.ExchangeReply(executed=await self.Execute(call.execute, asked))
        return participant_pb2.ExchangeReply(compensated=await self.Compensate(call.compensate, asked))

    async def Execute(self, request: participant_pb2.ExecuteRequest, context: "Context") -> participant_pb2.ExecuteResponse:  # noqa: N802
        await self._refuse_garbage(request, context)
        if self._careless is Careless.NO_BARRIER:
            return _new_reply()
        if self._careless is Careless.RACES:
            return await self._act(request)
        lock = self._locks[request.key]
        await lock.acquire()
        try:
            reply = await self._act(request)
        except asyncio.CancelledError:
            if self._careless is not Careless.HANGS_AFTER_DEADLINE:
                lock.release()
            raise
        lock.release()
        return reply

    async def _act(self, request: participant_pb2.ExecuteRequest) -> participant_pb2.ExecuteResponse:
        row = self._rows[request.key]
        if row.is_undone and self._careless is not Careless.FORGETS_COMPENSATION:
            refused = participant_pb2.ExecuteResponse()
            refused.rejected.status.code = grpc.StatusCode.FAILED_PRECONDITION.value[0]
            refused.rejected.status.message = "it is undone"
            return refused
        if row.reply is not None:
            return row.reply
        is_short = request.time_left.ToTimedelta().total_seconds() < SHORT_S
        if is_short and self._careless is Careless.OUTLIVES_DEADLINE:
            late = asyncio.create_task(self._act_late(row))
            self._late.add(late)
            await asyncio.shield(late)
        work_s = HASTE_S if self._careless is Careless.DRAINS_IN_HASTE else WORK_S
        await asyncio.sleep(OUTLIVING_S if is_short else work_s)
        row.reply = _new_reply()
        return row.reply

    async def _act_late(self, row: Row) -> None:
        await asyncio.sleep(OUTLIVING_S)
        row.reply, row.is_undone = _new_reply(), False

    async def Compensate(  # noqa: N802
        self, request: participant_pb2.CompensateRequest, context: "Context"
    ) -> participant_pb2.CompensateResponse:
        response = participant_pb2.CompensateResponse()
        if self._careless is Careless.NO_BARRIER:
            response.compensated.handler_ran = True
            return response
        async with self._locks[request.execute_key]:
            row = self._rows[request.execute_key]
            if row.reply is None and not row.is_undone and self._careless is Careless.REFUSES_NULL_COMPENSATION:
                await context.abort(grpc.StatusCode.NOT_FOUND, "never heard of it")
            if row.is_undone and self._careless is Careless.REFUSES_SECOND_UNDO:
                await context.abort(grpc.StatusCode.FAILED_PRECONDITION, "it is undone already")
            row.handler_ran = row.handler_ran or (row.reply is not None and self._careless is not Careless.UNDOES_NOTHING)
            row.is_undone = True
            response.compensated.handler_ran = row.handler_ran
            return response

    async def _refuse_garbage(self, request: participant_pb2.ExecuteRequest, context: "Context") -> None:
        if request.action != "plain.act" and self._careless is not Careless.TAKES_ANY_ACTION:
            await context.abort(grpc.StatusCode.UNIMPLEMENTED, f"there is no {request.action}")
        if request.input.TypeName() != INPUT_TYPE and self._careless is not Careless.TAKES_OTHER_TYPES:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, f"expected a {INPUT_TYPE}, found {request.input.TypeName()}")
        if self._careless is Careless.CHOKES and len(request.input.value) > LARGE_BYTES:
            await asyncio.Event().wait()
        try:
            StringValue.FromString(request.input.value)
        except DecodeError:
            how = grpc.StatusCode.INTERNAL if self._careless is Careless.FAILS_ON_GARBAGE else grpc.StatusCode.INVALID_ARGUMENT
            await context.abort(how, "cannot be decoded")

    def forget(self) -> None:
        """As a restart does to what stands in memory only."""
        self._rows.clear()


Context = grpc.aio.ServicerContext[object, object]


class PlainServer:
    """The participant at an address of its own, started again and again."""

    def __init__(self, participant: PlainParticipant, *, forgets: bool = False, takes_large: bool = False) -> None:
        self.address = f"127.0.0.1:{free_port()}"
        self._participant = participant
        self._forgets = forgets
        self._options = [("grpc.max_receive_message_length", -1 if takes_large else LARGE_BYTES)]
        self._stack = AsyncExitStack()

    async def start(self) -> None:
        server = grpc.aio.server(options=self._options)
        participant_pb2_grpc.add_ParticipantServiceServicer_to_server(self._participant, server)
        server.add_insecure_port(self.address)
        await server.start()
        self._stack.push_async_callback(server.stop, None)

    async def stop(self) -> None:
        await self._stack.aclose()

    async def restart(self) -> None:
        """Drains its streams before."""
        participant = self._participant
        if participant.careless is Careless.DRAINS_IN_HASTE:
            await until(lambda: any(stream.open_calls for stream in participant.streams), HASTE_S)
        for stream in participant.streams:
            stream.drain()
        await until(lambda: not participant.streams, WAIT_S)
        await self.stop()
        if self._forgets:
            self._participant.forget()
        await self.start()


async def until(is_so: Callable[[], bool], within_s: float) -> None:
    """Waits for it, and no longer than that."""
    with suppress(TimeoutError):
        async with asyncio.timeout(within_s):
            while not is_so():
                await asyncio.sleep(0.005)


def _new_reply() -> participant_pb2.ExecuteResponse:
    response = participant_pb2.ExecuteResponse()
    packed: PackedAny = response.succeeded.output
    packed.Pack(StockReserved(reservation_id=str(uuid4())))
    return response
