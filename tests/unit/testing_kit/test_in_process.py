"""gRPC without sockets does with streams what gRPC does."""

import asyncio
from collections.abc import AsyncIterator

import grpc
import pytest

from participant_sdk.testing.in_process import Network
from participant_sdk.testing.virtual_time import run_in_virtual_time
from saga.v1 import coordinator_pb2, coordinator_pb2_grpc

EVENTS = 40
AHEAD_MAX = 16


class Teller(coordinator_pb2_grpc.SagaServiceServicer):
    """Sends as fast as it is let."""

    def __init__(self) -> None:
        self.sent = 0

    async def WatchSaga(  # noqa: N802
        self, request: coordinator_pb2.WatchSagaRequest, context: object
    ) -> AsyncIterator[coordinator_pb2.WatchSagaResponse]:
        for sequence in range(1, EVENTS + 1):
            response = coordinator_pb2.WatchSagaResponse()
            response.event.sequence = self.sent = sequence
            yield response


async def read_slowly(*, crash_after: int | None) -> tuple[list[int], grpc.StatusCode | None, int]:
    """What a reader gets that takes a second for each message; how it ends; and how far the server was when the first was read."""
    network, teller = Network(), Teller()  # type: ignore[abstract]
    server = network.server()
    coordinator_pb2_grpc.add_SagaServiceServicer_to_server(teller, server)  # type: ignore[arg-type]
    server.add_insecure_port("teller:1")
    await server.start()
    stub = coordinator_pb2_grpc.SagaServiceStub(network.channel("teller:1"))
    read: list[int] = []
    ahead = 0
    try:
        async for response in stub.WatchSaga(coordinator_pb2.WatchSagaRequest()):
            read.append(response.event.sequence)
            if len(read) == crash_after:
                server.crash()
            await asyncio.sleep(1)
            ahead = max(ahead, teller.sent - len(read))
    except grpc.aio.AioRpcError as error:
        return read, error.code(), ahead
    return read, None, ahead


def test_slow_reader_of_a_stream_gets_all_of_it_and_the_server_waits() -> None:
    read, code, ahead = run_in_virtual_time(read_slowly(crash_after=None))
    assert (read, code) == (list(range(1, EVENTS + 1)), None)
    assert AHEAD_MAX / 2 < ahead <= AHEAD_MAX + 1


@pytest.mark.parametrize("crash_after", [1, 5, EVENTS - AHEAD_MAX - 2])
def test_stream_that_is_cut_has_no_gap(crash_after: int) -> None:
    read, code, _ = run_in_virtual_time(read_slowly(crash_after=crash_after))
    assert read == list(range(1, len(read) + 1))
    assert crash_after <= len(read) < EVENTS
    assert code is grpc.StatusCode.UNAVAILABLE
