"""Channels: kept while calls are under way, dropped when nobody is there any more."""

import asyncio

import grpc
import pytest

from coordinator.core.inputs import Succeeded, Unknown
from coordinator.dispatcher import GrpcDispatcher, ParticipantRegistry
from coordinator.dispatcher.channels import Channels
from coordinator.engine.clock import SystemClock
from coordinator.journal.memory_journal import MemoryJournal
from coordinator.limits import ParticipantLimits
from participant_sdk.framed_calls import NotCarriedOutError, WithdrawnError
from saga.v1 import participant_pb2
from tests.contract.dispatcher.stand import PAYLOAD_BYTES_MAX, TOKENS, WAIT_S, Replies, Stand, call
from tests.integration.crashes.fault_proxy import FaultProxy, Harm
from tests.participants import Context, PlainParticipant, serving, succeeded
from tests.simulation.chance import Chance


async def test_channel_to_a_target_that_is_gone_is_dropped_once() -> None:
    channels = Channels()
    with channels.use("127.0.0.1:1"), channels.use("127.0.0.1:2"):
        pass
    (dropped,) = channels.drop({"127.0.0.1:2"})
    await dropped.close()
    assert channels.drop({"127.0.0.1:2"}) == []
    await channels.aclose()


async def test_channel_with_a_call_under_way_is_kept_until_it_has_ended() -> None:
    channels = Channels()
    with channels.use("127.0.0.1:1"):
        assert channels.drop(frozenset()) == []
    (dropped,) = channels.drop(frozenset())
    await dropped.close()


async def test_call_that_was_not_carried_out_is_no_answer() -> None:
    channels = Channels()
    slow = channels.use("127.0.0.1:1")
    old = slow.__enter__()
    for nothing_heard in (NotCarriedOutError(), WithdrawnError()):
        other = channels.use("127.0.0.1:1")
        other.begin()
        other.end(nothing_heard)
    slow.end(out_of_time())
    with channels.use("127.0.0.1:1") as new:
        assert new is not old
    for idle in channels.take_idle():
        await idle.close()
    await channels.aclose()


def out_of_time() -> grpc.aio.AioRpcError:
    return grpc.aio.AioRpcError(grpc.StatusCode.DEADLINE_EXCEEDED, grpc.aio.Metadata(), grpc.aio.Metadata())


async def test_connection_on_which_nobody_answered_is_given_up_and_closed_when_its_calls_have_ended() -> None:
    channels = Channels()
    other = channels.use("127.0.0.1:1")
    old = other.__enter__()
    with pytest.raises(grpc.aio.AioRpcError), channels.use("127.0.0.1:1"):
        raise out_of_time()
    with channels.use("127.0.0.1:1") as stub:
        assert stub is not old
    assert channels.take_idle() == [], "a call is under way on the old one"
    other.__exit__(None, None, None)
    (idle,) = channels.take_idle()
    await idle.close()
    assert channels.take_idle() == []
    await channels.aclose()


async def test_connection_is_kept_if_another_call_was_answered_meanwhile() -> None:
    """The participant is there; that one call took long says nothing about the connection."""
    channels = Channels()
    slow = channels.use("127.0.0.1:1")
    stub = slow.__enter__()
    with channels.use("127.0.0.1:1"):
        pass
    slow.__exit__(grpc.aio.AioRpcError, out_of_time(), None)
    with channels.use("127.0.0.1:1") as again:
        assert again is stub
    await channels.aclose()


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


@pytest.mark.parametrize("harm", [Harm.DEAF, Harm.MUTE])
async def test_connection_that_has_died_without_a_word_costs_one_attempt(harm: Harm) -> None:
    """Something between takes the bytes of the coordinator, or those of the participant, and passes nothing on. TCP does not notice."""
    clock = SystemClock(asyncio.get_running_loop())
    async with (
        MemoryJournal(clock=clock) as journal,
        serving(PlainParticipant()) as target,
        FaultProxy("way", target, chance=Chance(1)) as proxy,
    ):
        registry = ParticipantRegistry(clock=clock, journal=journal, configured={})
        dispatcher = GrpcDispatcher(
            clock=clock, registry=registry, tokens=TOKENS, limits_of=lambda _: ParticipantLimits(), payload_bytes_max=PAYLOAD_BYTES_MAX
        )
        replies = Replies()
        dispatcher.listen(replies)
        stand = Stand(clock=clock, registry=registry, dispatcher=dispatcher, replies=replies)
        await stand.register(proxy.address)
        calls = [call(timeout_s=1.0) for _ in range(3)]
        outcomes = []
        for number, each in enumerate(calls):
            if number == 1:
                proxy.harm_all(harm)
            dispatcher.send([each])
            outcomes.append(type(await replies.outcome_of(each)))
        assert outcomes == [Succeeded, Unknown, Succeeded]
        await dispatcher.aclose()
