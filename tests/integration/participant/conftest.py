"""A participant server on a real socket."""

from collections.abc import AsyncIterator

import grpc
import pytest

from participant_sdk import ParticipantServer
from saga.v1 import participant_pb2_grpc
from tests.integration.participant.till import Scale, Till


@pytest.fixture
async def till() -> Till:
    return Till()


@pytest.fixture
async def scale() -> Scale:
    return Scale()


@pytest.fixture
async def stub(till: Till, scale: Scale) -> AsyncIterator["participant_pb2_grpc.ParticipantServiceAsyncStub"]:
    async with ParticipantServer(till, scale, coordinator=None) as server, grpc.aio.insecure_channel(server.address) as channel:
        yield participant_pb2_grpc.ParticipantServiceStub(channel)
