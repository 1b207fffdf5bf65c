"""The sync face: every method of the async one, from any number of threads, across restarts, and its end."""

import asyncio
import gc
import inspect
import threading
import typing
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any, TypeVar

import pytest
from opentelemetry import trace

from participant_sdk.builder import Saga
from participant_sdk.client import (
    CoordinatorUnavailable,
    InvalidRequest,
    NotStarted,
    OperatorClient,
    SagaClient,
    SagaHandle,
    SagaNotCompleted,
    SagaNotFound,
    Start,
    Started,
    SyncOperatorClient,
    SyncSagaClient,
    SyncSagaHandle,
    WaitTimedOut,
)
from participant_sdk.client.blocking import Face
from participant_sdk.ids import new_saga_id
from saga.v1 import coordinator_pb2, saga_pb2
from shop.v1.shop_pb2 import PaymentCharged, PlaceOrder
from tests.unit.client.fake_coordinator import FakeCoordinator, served

ORDER = PlaceOrder(order_id="42", sku="widget", quantity=1)
PLACE_ORDER = Saga("place-order", input=PlaceOrder, output=PaymentCharged)
SHORT = timedelta(milliseconds=300)

ResultT = TypeVar("ResultT")


async def blocking(work: Callable[[], ResultT]) -> ResultT:
    """Does it in a thread, as code that blocks would."""
    return await asyncio.wait_for(asyncio.to_thread(work), 60)


@pytest.fixture
def sync(address: str) -> Iterator[SyncSagaClient]:
    with SyncSagaClient(address) as client:
        yield client


async def _complete(coordinator: FakeCoordinator, saga_id: str) -> None:
    coordinator.sagas[saga_id].output.Pack(PaymentCharged(payment_id="p1", amount_cents=5))
    await coordinator.move(saga_id, saga_pb2.SAGA_STATUS_COMPLETED, saga_completed=saga_pb2.SagaCompleted())


# ── One implementation ───────────────────────────────────────────────────────────────────────────────────────────────────────────────

FACES = [(SyncSagaClient, SagaClient), (SyncSagaHandle, SagaHandle), (SyncOperatorClient, OperatorClient)]


def _public(kind: type) -> set[str]:
    return {name for name, each in vars(kind).items() if not name.startswith("_") and (callable(each) or hasattr(each, "__get__"))}


@pytest.mark.parametrize(("face", "behind"), FACES, ids=lambda kind: kind.__name__)
def test_sync_face_has_every_method_with_the_same_parameters(face: type[Face], behind: type) -> None:
    assert _public(face) == _public(behind)
    for name in _public(behind):
        ours, theirs = inspect.signature(getattr(face, name)), inspect.signature(getattr(behind, name))
        assert [(each.name, each.kind, each.default) for each in ours.parameters.values()] == [
            (each.name, each.kind, each.default) for each in theirs.parameters.values()
        ], name
        assert not inspect.iscoroutinefunction(getattr(face, name)), name


@pytest.mark.parametrize("name", ["start", "run", "start_many", "attach"])
def test_overloads_are_those_of_the_async_face(name: str) -> None:
    ours, theirs = typing.get_overloads(getattr(SyncSagaClient, name)), typing.get_overloads(getattr(SagaClient, name))
    assert len(ours) == len(theirs) > 1
    for one, other in zip(ours, theirs, strict=True):
        written, expected = str(inspect.signature(one)), str(inspect.signature(other))
        written = written.replace("participant_sdk.client.sync_client.SyncSagaHandle", "SagaHandle").replace("Iterator", "Generator")
        expected = expected.replace("participant_sdk.client.saga_handle.SagaHandle", "SagaHandle").replace("AsyncGenerator", "Generator")
        expected = _without_async_iterables(expected)
        assert written == expected


def _without_async_iterables(signature: str) -> str:
    """Messages that come later have no place in code that blocks."""
    for each in ("~InputT", "participant_sdk.client.starting.Start[~InputT]", "object"):
        signature = signature.replace(f" | collections.abc.AsyncIterable[{each}]", "")
    return signature


# ── Calls ────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_start_and_result_have_the_type_that_the_saga_returns(sync: SyncSagaClient, coordinator: FakeCoordinator) -> None:
    handle = await blocking(lambda: sync.start(PLACE_ORDER, ORDER, key="42"))
    assert handle.is_new
    waiting = asyncio.ensure_future(blocking(handle.result))
    await coordinator.wait_for(coordinator_pb2.WatchSagaRequest)
    await _complete(coordinator, handle.id)
    assert (await waiting).payment_id == "p1"
    assert (await blocking(lambda: sync.attach(handle.id, PLACE_ORDER).result())).payment_id == "p1"
    assert (await blocking(lambda: sync.attach(handle.id).result(PaymentCharged))).payment_id == "p1"


async def test_run_waits_for_the_end(sync: SyncSagaClient, coordinator: FakeCoordinator) -> None:
    running = asyncio.ensure_future(blocking(lambda: sync.run(PLACE_ORDER, ORDER)))
    (request,) = await coordinator.wait_for(coordinator_pb2.StartSagaRequest)
    await _complete(coordinator, request.saga_id)
    assert (await running).payment_id == "p1"


async def test_errors_are_those_of_the_async_face(sync: SyncSagaClient, coordinator: FakeCoordinator) -> None:
    with pytest.raises(SagaNotFound):
        await blocking(lambda: sync.get(new_saga_id()))
    with pytest.raises(InvalidRequest):
        await blocking(lambda: sync.get("order-42"))
    with pytest.raises(WaitTimedOut):
        await blocking(lambda: sync.run("place-order", ORDER, timeout=SHORT))
    handle = await blocking(lambda: sync.start("place-order", ORDER))
    await coordinator.move(handle.id, saga_pb2.SAGA_STATUS_FAILED, saga_failed=saga_pb2.SagaFailed())
    with pytest.raises(SagaNotCompleted):
        await blocking(handle.result)


async def test_result_waits_across_a_restart(coordinator: FakeCoordinator) -> None:  # H2
    async with served(coordinator) as address:
        client = SyncSagaClient(address)
        handle = await blocking(lambda: client.start(PLACE_ORDER, ORDER))
        waiting = asyncio.ensure_future(blocking(handle.result))
        await coordinator.wait_for(coordinator_pb2.WatchSagaRequest)
    async with served(coordinator, address):
        await _complete(coordinator, handle.id)
        assert (await waiting).payment_id == "p1"
        await blocking(client.close)


async def test_nobody_listens_raises_unavailable() -> None:
    def start() -> None:
        with SyncSagaClient("127.0.0.1:1", timeout=SHORT) as client, pytest.raises(CoordinatorUnavailable):
            client.start("place-order", ORDER)

    await blocking(start)


async def test_eight_threads_share_one_client(sync: SyncSagaClient, coordinator: FakeCoordinator) -> None:
    gate = threading.Barrier(8)

    def work(number: int) -> list[str]:
        gate.wait()
        handles = [sync.start(PLACE_ORDER, PlaceOrder(order_id=f"{number}/{each}")) for each in range(25)]
        assert all(sync.get(handle.id).id == handle.id for handle in handles)
        return [handle.id for handle in handles]

    with ThreadPoolExecutor(8) as pool:
        ids = await asyncio.gather(*(asyncio.get_running_loop().run_in_executor(pool, work, number) for number in range(8)))
    assert len({each for some in ids for each in some}) == len(coordinator.sagas) == 200
    assert len([thread for thread in threading.enumerate() if thread.name == "SyncSagaClient"]) == 1


async def test_operator_is_there_too(sync: SyncSagaClient, coordinator: FakeCoordinator) -> None:
    handle = await blocking(lambda: sync.start("place-order", ORDER))
    assert (await blocking(lambda: sync.operator.pause(handle.id, reason="lunch"))).id == handle.id


async def test_span_of_the_caller_is_the_parent(sync: SyncSagaClient, coordinator: FakeCoordinator) -> None:
    context = trace.SpanContext(0x1234, 0x56, is_remote=False, trace_flags=trace.TraceFlags(trace.TraceFlags.SAMPLED))

    def start() -> None:
        with trace.use_span(trace.NonRecordingSpan(context)):
            sync.start("place-order", ORDER)

    await blocking(start)
    assert f"{0x1234:032x}" in str(coordinator.metadata[0]["traceparent"])


# ── What yields ──────────────────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_lists_read_every_page(sync: SyncSagaClient, coordinator: FakeCoordinator) -> None:
    coordinator.page_size = 2
    ids = await blocking(lambda: [sync.start("place-order", ORDER).id for _ in range(5)])
    assert await blocking(lambda: [saga.id for saga in sync.list()]) == ids
    assert await blocking(lambda: [event.sequence for event in sync.history(ids[0])]) == [1]


async def test_watch_is_left_in_the_middle(sync: SyncSagaClient, coordinator: FakeCoordinator) -> None:
    handle = await blocking(lambda: sync.start("place-order", ORDER))

    def look() -> list[int]:
        with handle.watch() as events:
            first = next(events).event.sequence
        events.close()
        return [first, *(response.event.sequence for response in events)]

    assert await blocking(look) == [1]
    # Left to the garbage collector, in whatever thread that runs.
    await blocking(lambda: next(handle.watch()))
    gc.collect()
    assert (await blocking(lambda: sync.get(handle.id))).id == handle.id


async def test_start_many_takes_messages_in_the_thread_of_the_caller(sync: SyncSagaClient, coordinator: FakeCoordinator) -> None:
    threads = set()

    def orders() -> Iterator[PlaceOrder | Start[PlaceOrder]]:
        for number in range(40):
            threads.add(threading.get_ident())
            yield PlaceOrder(order_id=str(number))

    def work() -> list[Any]:
        threads.add(threading.get_ident())
        return list(sync.start_many("place-order", orders(), window=8))

    answers = await blocking(work)
    assert [each.position for each in answers if isinstance(each, Started)] == list(range(40))
    assert all(coordinator.sagas[each.handle.id].id for each in answers)
    assert len(threads) == 1


async def test_start_many_has_wrong_messages_fail_alone_and_trouble_at_the_end(sync: SyncSagaClient, coordinator: FakeCoordinator) -> None:
    def orders() -> Iterator[Any]:
        yield ORDER
        yield PaymentCharged()
        yield ORDER
        raise OSError("the file ends here")

    def work() -> list[type]:
        answers = sync.start_many(PLACE_ORDER, orders())
        kinds: list[type] = [type(next(answers)) for _ in range(3)]
        with pytest.raises(OSError, match="the file ends here"):
            next(answers)
        return kinds

    assert await blocking(work) == [Started, NotStarted, Started]
    assert len(coordinator.sagas) == 2


async def test_start_many_is_left_in_the_middle(sync: SyncSagaClient, coordinator: FakeCoordinator) -> None:
    def endless() -> Iterator[PlaceOrder]:
        while True:
            yield ORDER

    def work() -> None:
        answers = sync.start_many("place-order", endless(), window=4)
        assert isinstance(next(answers), Started)
        del answers

    await blocking(work)
    assert len(coordinator.sagas) <= 6


# ── Its end ──────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_call_in_a_thread_with_a_running_loop_is_refused(sync: SyncSagaClient) -> None:
    with pytest.raises(RuntimeError, match="await a SagaClient here"):
        sync.get(new_saga_id())


async def test_closed_client_refuses_calls_and_closes_twice(address: str) -> None:
    client = SyncSagaClient(address)
    await blocking(client.close)
    await blocking(client.close)
    with pytest.raises(RuntimeError, match="closed"):
        await blocking(lambda: client.get(new_saga_id()))


async def test_close_ends_the_calls_of_other_threads(address: str, coordinator: FakeCoordinator) -> None:
    client = SyncSagaClient(address)
    handle = await blocking(lambda: client.start(PLACE_ORDER, ORDER))
    waiting = asyncio.ensure_future(blocking(handle.result))
    await coordinator.wait_for(coordinator_pb2.WatchSagaRequest)
    await blocking(client.close)
    with pytest.raises(RuntimeError, match="closed while a call of it was under way"):
        await waiting
    assert [thread for thread in threading.enumerate() if thread.name == "SyncSagaClient"] == []


def _call_for_ever(client: SyncSagaClient) -> None:
    while True:
        client.start("place-order", ORDER)


async def test_close_while_many_threads_call_gives_each_an_answer_or_closed(address: str) -> None:
    for _ in range(10):
        client = SyncSagaClient(address)
        gate = threading.Barrier(9)

        def work(client: SyncSagaClient = client, gate: threading.Barrier = gate) -> None:
            gate.wait()
            with pytest.raises(RuntimeError, match="closed"):
                _call_for_ever(client)

        def close(client: SyncSagaClient = client, gate: threading.Barrier = gate) -> None:
            gate.wait()
            client.start("place-order", ORDER)
            client.close()

        with ThreadPoolExecutor(9) as pool:
            loop = asyncio.get_running_loop()
            await asyncio.wait_for(asyncio.gather(*(loop.run_in_executor(pool, each) for each in [work] * 8 + [close])), 60)


async def test_forgotten_client_warns_and_ends_its_thread(address: str) -> None:
    def forget() -> None:
        SyncSagaClient(address).start("place-order", ORDER)
        gc.collect()

    with pytest.warns(ResourceWarning, match="unclosed SyncSagaClient"):
        await blocking(forget)
    assert [thread for thread in threading.enumerate() if thread.name == "SyncSagaClient"] == []


async def test_handle_keeps_its_client_alive(address: str) -> None:
    handles = await blocking(lambda: [SyncSagaClient(address).start("place-order", ORDER)])
    gc.collect()
    assert (await blocking(lambda: handles[0].get().id == handles[0].id)) is True
    with pytest.warns(ResourceWarning, match="unclosed"):
        await blocking(handles.clear)


def test_client_that_was_never_used_has_no_thread() -> None:
    SyncSagaClient("127.0.0.1:1")
    gc.collect()
    assert [thread for thread in threading.enumerate() if thread.name == "SyncSagaClient"] == []
