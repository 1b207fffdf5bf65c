"""Idempotent gRPC over real sockets: a grpc.aio server with the interceptor, and real concurrent calls."""

import asyncio
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.struct_pb2 import Struct
from google.protobuf.wrappers_pb2 import StringValue
from google.rpc import error_details_pb2
from sqlalchemy.ext.asyncio import create_async_engine

from participant_sdk.idempotency import (
    IdempotencyInterceptor,
    IdempotencyPolicy,
    IdempotencyStore,
    KeyRule,
    MemoryIdempotencyStore,
    SqlIdempotencyStore,
    WhenUnknown,
    one_tenant,
)
from participant_sdk.idempotency.verdict import Claim, Verdict
from participant_sdk.rpc_errors import abort_with, error_details, error_reason, find_detail, from_rpc_error, status_with
from participant_sdk.servicer import ParticipantServicer
from saga.v1 import participant_pb2, participant_pb2_grpc
from tests.integration.participant.till import Scale, Till

CALLS = 200
WAIT_S = 30.0
SERVICE = "shop.v1.Shop"
Context = grpc.aio.ServicerContext[Any, Any]


@dataclass
class Shop:
    """What the handlers do: to the list of effects."""

    effects: list[str] = field(default_factory=list)
    gate: asyncio.Event = field(default_factory=asyncio.Event)
    held: asyncio.Event = field(default_factory=asyncio.Event)

    async def pay(self, request: StringValue, context: Context) -> StringValue:
        self.effects.append(f"pay {request.value}")
        if request.value == "hold":
            self.held.set()
            await self.gate.wait()
        context.set_trailing_metadata((("receipt", "r-1"), ("receipt-bin", b"\x00\xff")))
        return StringValue(value=str(uuid.uuid4()))

    async def refuse(self, request: StringValue, context: Context) -> StringValue:
        """Ends with the status that the request names."""
        self.effects.append(f"refuse {request.value}")
        name, _, how = request.value.partition(" ")
        code = grpc.StatusCode[name]
        if how == "retry":
            retry = error_details_pb2.RetryInfo()
            retry.retry_delay.FromMilliseconds(10)
            await abort_with(context, status_with(code, "come again", retry))
        if how == "details":
            await abort_with(context, status_with(code, "none left", error_details("OUT_OF_STOCK", sku="bicycle")))
        if how == "set":
            context.set_code(code)
            context.set_details("none left")
            return StringValue()
        return await context.abort(code, "none left", (("why", "sold"),))

    async def crash(self, request: StringValue, context: Context) -> StringValue:
        self.effects.append("crash")
        raise RuntimeError("a bug, as arranged")

    async def large(self, request: StringValue, context: Context) -> StringValue:
        self.effects.append("large")
        return StringValue(value="x" * 2**21)

    async def describe(self, request: Struct, context: Context) -> StringValue:
        self.effects.append("describe")
        return StringValue(value=str(uuid.uuid4()))

    async def watch(self, request: StringValue, context: Context) -> AsyncIterator[StringValue]:
        self.effects.append("watch")
        yield StringValue(value="one")

    async def chat(self, requests: AsyncIterator[StringValue], context: Context) -> AsyncIterator[StringValue]:
        async for request in requests:
            yield request

    async def gather(self, requests: AsyncIterator[StringValue], context: Context) -> StringValue:
        return StringValue(value=str(len([each async for each in requests])))

    def plain(self, request: StringValue, context: Any) -> StringValue:
        return StringValue(value="plain")

    def handlers(self) -> grpc.GenericRpcHandler:
        kinds: dict[str, Any] = {"request_deserializer": StringValue.FromString, "response_serializer": StringValue.SerializeToString}
        unary = grpc.unary_unary_rpc_method_handler
        methods: dict[str, Any] = {
            name: unary(behaviour, **kinds)
            for name, behaviour in (
                ("Pay", self.pay),
                ("Refuse", self.refuse),
                ("Crash", self.crash),
                ("Large", self.large),
                ("Plain", self.plain),
            )
        }
        methods["Describe"] = unary(
            self.describe, request_deserializer=Struct.FromString, response_serializer=StringValue.SerializeToString
        )
        methods["Watch"] = grpc.unary_stream_rpc_method_handler(self.watch, **kinds)
        methods["Chat"] = grpc.stream_stream_rpc_method_handler(self.chat, **kinds)
        methods["Gather"] = grpc.stream_unary_rpc_method_handler(self.gather, **kinds)
        return grpc.method_handlers_generic_handler(SERVICE, methods)


@asynccontextmanager
async def served(
    shop: Shop, store: IdempotencyStore, add: Callable[[grpc.aio.Server], object] = lambda _: None, **options: Any
) -> AsyncIterator[grpc.aio.Channel]:
    """A channel to a server of its own."""
    interceptor = IdempotencyInterceptor(store, **{"tenant_of": one_tenant, **options})
    server = grpc.aio.server(interceptors=[interceptor])
    server.add_generic_rpc_handlers((shop.handlers(),))
    add(server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        yield channel
    await server.stop(None)


@dataclass
class Answer:
    """How a call ended."""

    code: grpc.StatusCode
    value: str
    reason: str
    trailing: dict[str, str | bytes]
    retry_s: float | None

    @property
    def is_replay(self) -> bool:
        return self.trailing.get("idempotent-replayed") == "true"


async def ask(
    channel: grpc.aio.Channel, method: str, value: str = "5", *, key: str | None = "k", name: str = "idempotency-key", **more: Any
) -> Answer:
    call: Any = channel.unary_unary(
        f"/{SERVICE}/{method}", request_serializer=StringValue.SerializeToString, response_deserializer=StringValue.FromString
    )
    metadata = () if key is None else ((name, key),)
    running = call(StringValue(value=value), metadata=(*metadata, *more.pop("metadata", ())), timeout=WAIT_S, **more)
    try:
        response = await running
    except grpc.aio.AioRpcError as error:
        status = from_rpc_error(error)
        retry = find_detail(status, error_details_pb2.RetryInfo)
        retry_s = None if retry is None else retry.retry_delay.ToMilliseconds() / 1_000
        return Answer(error.code(), error.details() or "", error_reason(status), dict(error.trailing_metadata() or ()), retry_s)
    return Answer(grpc.StatusCode.OK, response.value, "", dict(await running.trailing_metadata() or ()), None)


@pytest.fixture
async def shop() -> Shop:
    return Shop()


@pytest.fixture
async def channel(shop: Shop) -> AsyncIterator[grpc.aio.Channel]:
    async with served(shop, MemoryIdempotencyStore()) as channel:
        yield channel


async def test_200_calls_with_one_key_on_two_servers_get_equal_answers_of_one_execution(shop: Shop, tmp_path: Path) -> None:
    engines = [create_async_engine(f"sqlite+aiosqlite:///{tmp_path / 'keys.db'}") for _ in range(2)]
    stores = [SqlIdempotencyStore(engine) for engine in engines]
    await stores[0].create_table()
    async with served(shop, stores[0]) as one, served(shop, stores[1]) as other:
        answers = await asyncio.gather(*(ask(each, "Pay") for _ in range(CALLS // 2) for each in (one, other)))
    assert shop.effects == ["pay 5"]
    assert {(each.code, each.value, each.trailing["receipt"], each.trailing["receipt-bin"]) for each in answers} == {
        (grpc.StatusCode.OK, answers[0].value, "r-1", b"\x00\xff")
    }
    assert Counter(each.is_replay for each in answers) == {False: 1, True: CALLS - 1}
    for engine in engines:
        await engine.dispose()


async def test_calls_without_a_key_run_each_time(shop: Shop, channel: grpc.aio.Channel) -> None:
    assert (await ask(channel, "Pay", key=None)).value != (await ask(channel, "Pay", key=None)).value
    assert (await ask(channel, "Plain", key=None)).value == "plain"


async def test_key_of_another_method_is_another_key(shop: Shop, channel: grpc.aio.Channel) -> None:
    assert (await ask(channel, "Pay")).code is grpc.StatusCode.OK
    assert (await ask(channel, "Large")).code is grpc.StatusCode.OK
    assert shop.effects == ["pay 5", "large"]


async def test_key_of_another_tenant_is_another_key(shop: Shop) -> None:
    def caller(context: Context) -> str:
        return str(dict(context.invocation_metadata() or ())["caller"])

    async with served(shop, MemoryIdempotencyStore(), tenant_of=caller) as channel:
        answers = [await ask(channel, "Pay", metadata=(("caller", name),)) for name in ("ana", "bo", "ana")]
    assert answers[0].value == answers[2].value != answers[1].value
    assert answers[2].is_replay


async def test_key_with_another_request_is_refused(shop: Shop, channel: grpc.aio.Channel) -> None:  # R22
    await ask(channel, "Pay")
    answer = await ask(channel, "Pay", "6")
    assert (answer.code, answer.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "IDEMPOTENCY_KEY_REUSED")
    assert shop.effects == ["pay 5"]


async def test_two_encodings_of_one_request_are_the_same_request(shop: Shop, channel: grpc.aio.Channel) -> None:  # R3
    call: Any = channel.unary_unary(f"/{SERVICE}/Describe", response_deserializer=StringValue.FromString)
    parts = [Struct(), Struct()]
    parts[0].update({"a": 1})
    parts[1].update({"b": 2})
    one = parts[0].SerializeToString() + parts[1].SerializeToString()
    other = parts[1].SerializeToString() + parts[0].SerializeToString()
    assert one != other
    answers = [await call(encoded, metadata=(("idempotency-key", "k"),), timeout=WAIT_S) for encoded in (one, other)]
    assert answers[0] == answers[1]
    assert shop.effects == ["describe"]


@pytest.mark.parametrize("key", ["", "two words", "a,b", "k" * 256, '"open'])
async def test_rubbish_for_a_key_is_refused(shop: Shop, channel: grpc.aio.Channel, key: str) -> None:
    answer = await ask(channel, "Pay", key=key)
    assert (answer.code, answer.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "IDEMPOTENCY_KEY_INVALID")
    assert shop.effects == []


async def test_method_that_needs_a_key_refuses_without_one(shop: Shop) -> None:
    async with served(shop, MemoryIdempotencyStore(), methods={f"/{SERVICE}/Pay": KeyRule.REQUIRED}) as channel:
        answer = await ask(channel, "Pay", key=None)
        assert (answer.code, answer.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "IDEMPOTENCY_KEY_MISSING")
        assert (await ask(channel, "Pay", name="x-idempotency-key")).code is grpc.StatusCode.OK
        for _ in range(2):
            await ask(channel, "Large")  # Not named, so its key means nothing.
    assert shop.effects == ["pay 5", "large", "large"]


@pytest.mark.parametrize("code", ["INVALID_ARGUMENT", "NOT_FOUND", "ALREADY_EXISTS", "FAILED_PRECONDITION", "OUT_OF_RANGE"])
@pytest.mark.parametrize("how", ["abort", "details", "set"])
async def test_rejection_is_stored_with_all_it_says(shop: Shop, channel: grpc.aio.Channel, code: str, how: str) -> None:  # R6
    first, again = await ask(channel, "Refuse", f"{code} {how}"), await ask(channel, "Refuse", f"{code} {how}")
    assert (again.code, again.value, again.reason) == (first.code, first.value, first.reason) != (grpc.StatusCode.OK, "", "")
    assert (first.code, first.value) == (grpc.StatusCode[code], "none left")
    assert again.trailing == {**first.trailing, "idempotent-replayed": "true"}
    assert shop.effects == [f"refuse {code} {how}"]


@pytest.mark.parametrize("ending", ["UNAVAILABLE", "ABORTED", "INTERNAL", "UNAUTHENTICATED", "DATA_LOSS", "FAILED_PRECONDITION retry"])
async def test_other_endings_give_the_key_back(shop: Shop, channel: grpc.aio.Channel, ending: str) -> None:  # R6
    for _ in range(2):
        assert (await ask(channel, "Refuse", ending)).code is grpc.StatusCode[ending.partition(" ")[0]]
    assert shop.effects == [f"refuse {ending}"] * 2


async def test_handler_that_raises_gives_the_key_back(shop: Shop, channel: grpc.aio.Channel) -> None:
    for _ in range(2):
        assert (await ask(channel, "Crash")).code is grpc.StatusCode.UNKNOWN
    assert shop.effects == ["crash"] * 2


async def test_handler_that_raises_is_not_run_again_where_unknown_is_refused(shop: Shop) -> None:
    policy = IdempotencyPolicy(when_unknown=WhenUnknown.REFUSE)
    async with served(shop, MemoryIdempotencyStore(), policy=policy) as channel:
        await ask(channel, "Crash")
        answer = await ask(channel, "Crash")
    assert (answer.code, answer.reason) == (grpc.StatusCode.UNKNOWN, "IDEMPOTENCY_OUTCOME_UNKNOWN")
    assert shop.effects == ["crash"]


async def test_answer_too_large_to_keep_is_given_once_and_never_runs_again(shop: Shop, channel: grpc.aio.Channel) -> None:
    assert len((await ask(channel, "Large")).value) == 2**21
    answer = await ask(channel, "Large")
    assert (answer.code, answer.reason) == (grpc.StatusCode.DATA_LOSS, "IDEMPOTENCY_ANSWER_NOT_KEPT")
    assert shop.effects == ["large"]


async def test_stream_with_a_key_is_refused_and_without_one_it_flows(shop: Shop, channel: grpc.aio.Channel) -> None:
    watch: Any = channel.unary_stream(
        f"/{SERVICE}/Watch", request_serializer=StringValue.SerializeToString, response_deserializer=StringValue.FromString
    )
    assert [each.value async for each in watch(StringValue(), timeout=WAIT_S)] == ["one"]
    chat: Any = channel.stream_stream(f"/{SERVICE}/Chat")
    count: Any = channel.stream_unary(f"/{SERVICE}/Gather")
    refused: list[Callable[[Any], Awaitable[object]]] = [
        lambda metadata: watch(StringValue(), metadata=metadata, timeout=WAIT_S).read(),
        lambda metadata: chat(iter([b""]), metadata=metadata, timeout=WAIT_S).read(),
        lambda metadata: count(iter([b""]), metadata=metadata, timeout=WAIT_S),
    ]
    for call in refused:
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await call((("idempotency-key", "k"),))
        assert error.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert error_reason(from_rpc_error(error.value)) == "IDEMPOTENCY_STREAM"
    assert shop.effects == ["watch"]


async def test_plain_function_with_a_key_is_a_mistake(shop: Shop, channel: grpc.aio.Channel) -> None:
    answer = await ask(channel, "Plain")
    assert answer.code is grpc.StatusCode.UNKNOWN
    assert "write `async def`" in answer.value


async def test_call_whose_caller_cancelled_goes_on_and_its_answer_is_kept(shop: Shop, channel: grpc.aio.Channel) -> None:
    first = asyncio.create_task(ask(channel, "Pay", "hold"))
    await shop.held.wait()
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    again = asyncio.create_task(ask(channel, "Pay", "hold"))
    shop.gate.set()
    assert (await again).code is grpc.StatusCode.OK
    assert (await ask(channel, "Pay", "hold")).value == (await again).value
    assert shop.effects == ["pay hold"]


async def test_waiting_call_that_is_cancelled_disturbs_nobody(shop: Shop, channel: grpc.aio.Channel) -> None:
    first = asyncio.create_task(ask(channel, "Pay", "hold"))
    await shop.held.wait()
    waiting = [asyncio.create_task(ask(channel, "Pay", "hold")) for _ in range(10)]
    for each in waiting[::2]:
        each.cancel()
    shop.gate.set()
    answers = await asyncio.gather(first, *waiting[1::2])
    assert {each.value for each in answers} == {answers[0].value}
    assert shop.effects == ["pay hold"]


async def test_duplicate_that_waited_long_enough_is_told_to_come_again(shop: Shop) -> None:
    policy = IdempotencyPolicy(wait=timedelta(seconds=0.05))
    async with served(shop, MemoryIdempotencyStore(), policy=policy) as channel:
        first = asyncio.create_task(ask(channel, "Pay", "hold"))
        await shop.held.wait()
        answer = await ask(channel, "Pay", "hold")
        assert (answer.code, answer.reason) == (grpc.StatusCode.ABORTED, "IDEMPOTENCY_IN_PROGRESS")
        assert answer.retry_s is not None
        assert answer.retry_s > 0
        shop.gate.set()
        assert (await ask(channel, "Pay", "hold")).value == (await first).value


class SlowStore(MemoryIdempotencyStore):
    """Lets nobody begin before it is told."""

    def __init__(self) -> None:
        super().__init__()
        self.asked = asyncio.Event()
        self.may_answer = asyncio.Event()

    async def begin(self, claim: Claim) -> Verdict:
        verdict = await super().begin(claim)
        self.asked.set()
        await self.may_answer.wait()
        return verdict


async def test_call_that_is_cancelled_while_its_key_is_claimed_leaves_no_lock(shop: Shop) -> None:
    store = SlowStore()
    async with served(shop, store) as channel:
        first = asyncio.create_task(ask(channel, "Pay"))
        await store.asked.wait()
        first.cancel()
        store.may_answer.set()
        assert (await ask(channel, "Pay")).code is grpc.StatusCode.OK
    assert shop.effects == ["pay 5"]


async def test_store_that_is_away_refuses_before_anything_runs(shop: Shop, tmp_path: Path) -> None:
    engine = create_async_engine(f"sqlite+aiosqlite:///{tmp_path / 'keys.db'}")  # Without its table.
    async with served(shop, SqlIdempotencyStore(engine)) as channel:
        answer = await ask(channel, "Pay")
    await engine.dispose()
    assert (answer.code, answer.reason) == (grpc.StatusCode.UNAVAILABLE, "IDEMPOTENCY_STORE_UNAVAILABLE")
    assert answer.retry_s == 1.0
    assert shop.effects == []


async def test_participants_are_served_beside_it(shop: Shop) -> None:
    servicer = ParticipantServicer(Till(), Scale())

    def add(server: grpc.aio.Server) -> None:
        participant_pb2_grpc.add_ParticipantServiceServicer_to_server(servicer, server)

    async with served(shop, MemoryIdempotencyStore(), add) as channel:
        stub: Any = participant_pb2_grpc.ParticipantServiceStub(channel)
        answer = await stub.Describe(participant_pb2.DescribeRequest(participant="till"), timeout=WAIT_S)
        assert answer.description.name == "till"
        assert (await ask(channel, "Pay")).code is grpc.StatusCode.OK
    servicer.close()
