"""A call that waits for room on its stream has only what is left of its time when it leaves (R12)."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from coordinator.dispatcher import exchange
from coordinator.dispatcher.caller import ParticipantCaller
from coordinator.dispatcher.channels import Channels
from participant_sdk.testing.in_process import Network
from participant_sdk.testing.virtual_time import run_in_virtual_time
from participant_sdk.testing.weather import SMOOTH, CallOnItsWay, Fate, MessageOnItsWay
from saga.v1 import participant_pb2, participant_pb2_grpc
from tests.builders import seconds
from tests.contract.dispatcher.stand import TOKENS, call

LATE_S = 6.0
TIME_S = 10.0


class FirstFrameIsLate:
    """The frames behind it wait, and then their writer."""

    def fate_of(self, call: CallOnItsWay, /) -> Fate:
        return SMOOTH

    def fate_of_message(self, message: MessageOnItsWay, /) -> Fate:
        return Fate(request_delay_s=LATE_S) if message.number == 0 and not message.is_reply else SMOOTH

    def is_parted(self, source: str, target: str, /) -> bool:
        return False


class Reader(participant_pb2_grpc.ParticipantServiceServicer):
    """Reads how much time calls have."""

    def __init__(self) -> None:
        self.time_left_s: list[float] = []

    async def Exchange(  # noqa: N802
        self, request_iterator: AsyncIterator[participant_pb2.ExchangeRequest], context: Any
    ) -> AsyncIterator[participant_pb2.ExchangeResponse]:
        async for frame in request_iterator:
            for each in frame.calls:
                self.time_left_s.append(each.execute.time_left.ToNanoseconds() / 1e9)
                yield participant_pb2.ExchangeResponse(replies=[participant_pb2.ExchangeReply(id=each.id)])


async def times_left() -> list[float]:
    network, reader = Network(FirstFrameIsLate()), Reader()  # type: ignore[abstract]
    server: Any = network.server()
    participant_pb2_grpc.add_ParticipantServiceServicer_to_server(reader, server)
    server.add_insecure_port("reader:1")
    await server.start()
    channels = Channels(network.channel)
    caller = ParticipantCaller(channels=channels, tokens=TOKENS, payload_bytes_max=1024)
    answered: asyncio.Queue[object] = asyncio.Queue()
    for _ in range(4):
        assert caller.call_among_others("reader:1", call(), seconds(TIME_S), answered.put_nowait)
        await asyncio.sleep(1)
    for _ in range(4):
        await answered.get()
    await channels.aclose()
    return reader.time_left_s


def test_time_that_a_call_has_waited_for_room_is_not_given_to_it_again(monkeypatch: pytest.MonkeyPatch) -> None:  # R12
    monkeypatch.setattr(exchange, "STREAMS_MAX", 1)
    # Two frames are on their way, and the writer of a third waits: the fourth call, made after 3 s, leaves when the first one arrives.
    assert run_in_virtual_time(times_left()) == pytest.approx([TIME_S, TIME_S, TIME_S, TIME_S - (LATE_S - 3)], abs=0.01)
