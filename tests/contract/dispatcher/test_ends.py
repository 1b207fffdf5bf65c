"""Replies come in batches, one for each call; a dispatcher that is closed replies nothing."""

import asyncio
import gc

import grpc
from google.protobuf.message import Message

from coordinator.core.inputs import (
    Misconfigured,
    NotSent,
    Succeeded,
    Unknown,
)
from saga.v1 import participant_pb2
from tests.contract.dispatcher.stand import CONCURRENCY, PARTICIPANTS, WAIT_S, NewStand, Stand, call, hang
from tests.fakes import one_turn
from tests.participants import Gate, PlainParticipant, serving

Context = grpc.aio.ServicerContext[Message, Message]


async def test_replies_of_one_turn_come_as_one_batch(stand: Stand) -> None:
    calls = [call() for _ in range(50)]
    stand.dispatcher.send(calls)
    for one in calls:
        stand.dispatcher.withdraw(one.saga_id, [one.attempt])
    await stand.replies.wait_for(50)
    assert [len(batch) for batch in stand.replies.batches] == [50]


async def test_sending_never_replies_before_it_returns(stand: Stand) -> None:
    one = call()
    stand.dispatcher.send([one])
    stand.dispatcher.withdraw(one.saga_id, [one.attempt])
    assert stand.replies.all == []
    await stand.replies.to(one)


async def test_closing_replies_nothing_and_leaves_nothing_behind(new_stand: NewStand) -> None:
    participant = PlainParticipant()
    participant.on_execute["shop.act"] = hang
    before = asyncio.all_tasks()
    async with serving(participant) as target:
        serving_ones = asyncio.all_tasks()
        async with new_stand() as stand:
            await stand.register(target)
            stand.dispatcher.send([call() for _ in range(CONCURRENCY * 3)] + [call("nobody.act")])
            async with asyncio.timeout(WAIT_S):
                await participant.arrived["shop.act"].wait()
            await stand.dispatcher.aclose()
            await stand.dispatcher.aclose()  # safe to call twice
            stand.dispatcher.send([call(), call("nobody.act")])
            await one_turn()
            assert stand.replies.all == []
        left = {task for task in asyncio.all_tasks() - serving_ones if "_call" in repr(task.get_coro())}
        assert left == set()
    gc.collect()  # a future whose exception nobody read would be told here, and fail the test
    assert {task for task in asyncio.all_tasks() - before if "_call" in repr(task.get_coro())} == set()


async def test_registration_after_the_end_sends_nothing(new_stand: NewStand) -> None:
    participant = PlainParticipant()
    async with serving(participant) as target, new_stand() as stand:
        stand.dispatcher.send([call()])
        await stand.dispatcher.aclose()
        await stand.register(target)
        await one_turn()
        assert participant.executions == []


async def test_abandoned_calls_are_neither_sent_nor_replied(new_stand: NewStand) -> None:
    """What waits when the coordinator closes stays owed for recovery; what is under way comes back."""
    participant = PlainParticipant()
    let_go = participant.on_execute["shop.act"] = Gate()
    async with serving(participant) as target, new_stand(concurrency=1) as stand:
        await stand.register(target)
        under_way, waiting = call(), call()
        stand.dispatcher.send([under_way, waiting])
        async with asyncio.timeout(WAIT_S):
            await participant.arrived["shop.act"].wait()
        assert stand.dispatcher.abandon_waiting() == 1
        let_go.open.set()
        assert isinstance(await stand.replies.outcome_of(under_way), Succeeded)
        await one_turn()
        assert stand.replies.of(waiting) == []
        assert [request.saga_id for request in participant.executions] == [under_way.saga_id]


async def test_waiting_call_is_not_sent_once_the_saga_may_be_of_another(new_stand: NewStand) -> None:  # R31
    """A place becomes free in the very turn in which a node that was stopped goes on, before its leases are seen to have ended."""
    participant, let_go, leases = PlainParticipant(), Gate(), ["held"]
    participant.on_execute["shop.act"] = let_go
    async with serving(participant) as target, new_stand(concurrency=1, may_send=lambda: bool(leases)) as stand:
        await stand.register(target)
        under_way, waiting = call(), call()
        stand.dispatcher.send([under_way, waiting])
        async with asyncio.timeout(WAIT_S):
            await participant.arrived["shop.act"].wait()
        leases.clear()
        let_go.open.set()
        assert isinstance(await stand.replies.outcome_of(under_way), Succeeded)
        await one_turn()
        assert stand.replies.of(waiting) == []
        stand.dispatcher.withdraw(waiting.saga_id, [waiting.attempt])
        assert isinstance(await stand.replies.outcome_of(waiting), NotSent)
        assert [request.saga_id for request in participant.executions] == [under_way.saga_id]


@PARTICIPANTS
async def test_bytes_that_are_no_message_are_unknown(stand: Stand) -> None:  # R6
    async def execute(request: bytes, context: Context) -> bytes:
        return b"\xff\xff\xff"

    handlers: dict[str, grpc.RpcMethodHandler[bytes, bytes]] = {"Execute": grpc.unary_unary_rpc_method_handler(execute)}
    server = grpc.aio.server()
    service = participant_pb2.DESCRIPTOR.services_by_name["ParticipantService"].full_name
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, handlers),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    await stand.register(f"127.0.0.1:{port}")
    one = call()
    stand.dispatcher.send([one])
    assert isinstance(await stand.replies.outcome_of(one), Unknown)
    await server.stop(None)


async def test_server_without_the_service_is_set_up_wrongly(stand: Stand) -> None:  # R6
    server = grpc.aio.server()
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    await stand.register(f"127.0.0.1:{port}")
    one = call()
    stand.dispatcher.send([one])
    assert isinstance(await stand.replies.outcome_of(one), Misconfigured)
    await server.stop(None)
