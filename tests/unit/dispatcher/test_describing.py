"""What participants say of themselves: as they registered, or as they answer when they only stand in the configuration."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

import grpc
import pytest
from google.protobuf.message import Message

from coordinator.dispatcher import GrpcDispatcher, ParticipantDirectory, ParticipantRegistry
from coordinator.engine.clock import SystemClock
from coordinator.journal.memory_journal import MemoryJournal
from coordinator.limits import ParticipantLimits
from saga.v1 import participant_pb2
from tests.builders import seconds
from tests.contract.dispatcher.stand import TOKENS
from tests.participants import PlainParticipant, serving
from tests.processes import free_port

DESCRIPTION = participant_pb2.ParticipantDescription(name="shop", actions=[participant_pb2.ActionDescription(name="act")])


class Talkative(PlainParticipant):
    """Describes itself."""

    async def Describe(  # noqa: N802
        self,
        request: participant_pb2.DescribeRequest,
        context: grpc.aio.ServicerContext[Message, Message],
    ) -> participant_pb2.DescribeResponse:
        assert request.participant == "shop"
        return participant_pb2.DescribeResponse(description=DESCRIPTION)


@asynccontextmanager
async def directory(configured: Mapping[str, str]) -> AsyncIterator[ParticipantDirectory]:
    clock = SystemClock(asyncio.get_running_loop())
    async with MemoryJournal(clock=clock) as journal:
        registry = ParticipantRegistry(clock=clock, journal=journal, configured=configured)
        dispatcher = GrpcDispatcher(
            clock=clock, registry=registry, tokens=TOKENS, limits_of=lambda _: ParticipantLimits(), payload_bytes_max=1_024
        )
        try:
            yield ParticipantDirectory(registry, dispatcher)
        finally:
            await dispatcher.aclose()


async def test_registered_participant_is_not_asked() -> None:
    async with directory({}) as participants:
        await participants.register(f"127.0.0.1:{free_port()}", DESCRIPTION, seconds(30))
        assert await participants.describe("shop") == DESCRIPTION


async def test_configured_participant_is_asked() -> None:
    async with serving(Talkative()) as target, directory({"shop": target}) as participants:
        assert await participants.describe("shop") == DESCRIPTION


async def test_participant_without_describe_is_not_known_yet() -> None:
    async with serving(PlainParticipant()) as target, directory({"shop": target}) as participants:
        assert await participants.describe("shop") is None


@pytest.mark.parametrize("name", ["shop", "nobody"])
async def test_participant_that_is_away_is_not_known_yet(name: str) -> None:
    async with directory({"shop": f"127.0.0.1:{free_port()}"}) as participants:
        assert await participants.describe(name) is None
