"""Many calls to one participant on few streams: the coordinator's end of `Exchange`.

A call on a stream that breaks is made again with the same key (R6). One that was not carried out goes by itself.
"""

from collections.abc import Callable
from typing import Final, TypeAlias

from participant_sdk.framed_calls import FramedCalls
from saga.v1 import participant_pb2, participant_pb2_grpc

STREAMS_MAX: Final = 4
"""To one target, so that several replicas behind it all get work."""

Exchange: TypeAlias = FramedCalls[participant_pb2.ExchangeCall, participant_pb2.ExchangeReply]
"""The streams on one connection."""


def exchange_on(stub: "participant_pb2_grpc.ParticipantServiceAsyncStub", may_send: Callable[[], bool] = lambda: True) -> Exchange:
    """Opens its first stream with its first call. `may_send`: asked when calls leave, which is later than they were made where a stream
    takes no more for a while."""
    return FramedCalls(stub.Exchange, participant_pb2.ExchangeRequest, streams_max=STREAMS_MAX, may_leave=may_send)
