"""Channels: kept while calls are under way, dropped when nobody is there any more."""

import asyncio

from coordinator.core.inputs import Unknown
from coordinator.dispatcher import GrpcDispatcher, ParticipantRegistry
from coordinator.dispatcher.channels import Channels
from coordinator.engine.clock import SystemClock
from coordinator.journal.memory_journal import MemoryJournal
from coordinator.limits import ParticipantLimits
from saga.v1 import participant_pb2
from tests.contract.dispatcher.stand import PAYLOAD_BYTES_MAX, TOKENS, WAIT_S, Replies, Stand, call
from tests.participants import Context, PlainParticipant, serving, succeeded


async def test_channel_to_a_target_that_is_gone_is_dropped_once() -> None:
    channels = Channels()
    with channels.used_for_call("127.0.0.1:1"), channels.used_for_call("127.0.0.1:2"):
        pass
    (dropped,) = channels.drop({"127.0.0.1:2"})
    await dropped.close()
    assert channels.drop({"127.0.0.1:2"}) == []
    await channels.aclose()


async def test_channel_with_a_call_under_way_is_kept_until_it_has_ended() -> None:
    channels = Channels()
    with channels.used_for_call("127.0.0.1:1"):
        assert channels.drop(frozenset()) == []
    (dropped,) = channels.drop(frozenset())
    await dropped.close()


async def test_call_whose_channel_is_closed_is_answered_unknown() -> None:  # R6
    participant = PlainParticipant()

    async def hang(request: participant_pb2.ExecuteRequest, context: Context) -> participant_pb2.ExecuteResponse:
        await asyncio.Event().wait()
        return succeeded("never")

    participant.on_execute["shop.act"] = hang
    clock = SystemClock(asyncio.get_running_loop())
    async with MemoryJournal(clock=clock) as journal, serving(participant) as target:
        registry = ParticipantRegistry(clock=clock, journal=journal, configured={})
        dispatcher = GrpcDispatcher(
            clock=clock, registry=registry, tokens=TOKENS, limits_of=lambda _: ParticipantLimits(), payload_bytes_max=PAYLOAD_BYTES_MAX
        )
        replies = Replies()
        dispatcher.listen(replies)
        stand = Stand(clock=clock, registry=registry, dispatcher=dispatcher, replies=replies)
        await stand.register(target)
        one = call()
        dispatcher.send([one])
        async with asyncio.timeout(WAIT_S):
            await participant.arrived["shop.act"].wait()
        await dispatcher._channels.aclose()
        reply = await replies.to(one)
        assert isinstance(reply.outcome, Unknown)
        await dispatcher.aclose()
