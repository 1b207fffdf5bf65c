"""Calls to participants that travel in frames, as the network sees them."""

from collections.abc import Callable, Iterator
from typing import TypeAlias

from participant_sdk.testing.weather import SMOOTH, CallOnItsWay, Fate, MessageOnItsWay, shared_fate
from saga.v1 import participant_pb2

CallRequest: TypeAlias = participant_pb2.ExecuteRequest | participant_pb2.CompensateRequest


def requests_in(frame: participant_pb2.ExchangeRequest) -> Iterator[tuple[int, CallRequest]]:
    """The calls that begin with a frame, with their ids."""
    for call in frame.calls:
        yield call.id, call.execute if call.WhichOneof("call") == "execute" else call.compensate


class FramedFates:
    """Decides what becomes of frames: for each call by itself when it leaves, as for one that goes alone. What one of a frame meets, all
    of that frame meet.
    """

    def __init__(self, fate_of: Callable[[CallOnItsWay, CallRequest], Fate]) -> None:
        """`fate_of`: asked once for each call; the stream that carries it, and what is asked for."""
        self._fate_of = fate_of
        self._decided: dict[tuple[int, int], Fate] = {}
        """Of calls that have no reply yet, by the number of their stream and their id."""

    def fate_of(self, message: MessageOnItsWay) -> Fate:
        """What becomes of a frame, in either direction."""
        stream = message.call.number
        if message.is_reply:
            replies = participant_pb2.ExchangeResponse.FromString(message.content).replies
            return shared_fate([self._decided.pop((stream, reply.id), SMOOTH) for reply in replies])
        frame = participant_pb2.ExchangeRequest.FromString(message.content)
        fates = {number: self._fate_of(message.call, request) for number, request in requests_in(frame)}
        self._decided.update({(stream, number): fate for number, fate in fates.items()})
        return shared_fate(list(fates.values()))
