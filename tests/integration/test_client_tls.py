"""Clients and registrations of participants that talk TLS to a real TLS server."""

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta

import grpc
import pytest

from participant_sdk.client import CoordinatorUnavailable, SagaClient, SyncSagaClient
from participant_sdk.registration import Registration
from saga.v1 import coordinator_pb2, participant_pb2
from shop.v1.shop_pb2 import PlaceOrder
from tests.certificates import Certificate, self_signed
from tests.unit.client.fake_coordinator import FakeCoordinator, served

SHORT = timedelta(milliseconds=700)
NOBODY = "127.0.0.1:1"


@pytest.fixture(scope="module")
def certificate() -> Certificate:
    return self_signed()


@pytest.fixture
def trusting(certificate: Certificate) -> grpc.ChannelCredentials:
    return grpc.ssl_channel_credentials(root_certificates=certificate.chain)


@pytest.fixture
def coordinator() -> FakeCoordinator:
    return FakeCoordinator()


@pytest.fixture
async def address(coordinator: FakeCoordinator, certificate: Certificate) -> AsyncIterator[str]:
    credentials = grpc.ssl_server_credentials([(certificate.key, certificate.chain)])
    async with served(coordinator, credentials=credentials) as address:
        yield address


async def test_client_with_credentials_calls_one_or_several_addresses(
    coordinator: FakeCoordinator, address: str, trusting: grpc.ChannelCredentials
) -> None:
    for addresses in (address, [NOBODY, address]):
        async with SagaClient(addresses, channel_credentials=trusting) as client:
            await client.start("place-order", PlaceOrder())
    assert len(coordinator.sagas) == 2


async def test_sync_client_with_credentials_calls(address: str, trusting: grpc.ChannelCredentials) -> None:
    def start() -> str:
        with SyncSagaClient(address, channel_credentials=trusting) as client:
            return client.start("place-order", PlaceOrder()).get().id

    assert await asyncio.to_thread(start)


async def test_client_shows_its_own_certificate(coordinator: FakeCoordinator, certificate: Certificate) -> None:
    """Both sides prove who they are."""
    ours = self_signed("shop")
    both = grpc.ssl_server_credentials([(certificate.key, certificate.chain)], root_certificates=ours.chain, require_client_auth=True)
    known = grpc.ssl_channel_credentials(certificate.chain, private_key=ours.key, certificate_chain=ours.chain)
    stranger = grpc.ssl_channel_credentials(certificate.chain)
    async with served(coordinator, credentials=both) as address:
        async with SagaClient(address, channel_credentials=known) as client:
            await client.start("place-order", PlaceOrder())
        async with SagaClient(address, channel_credentials=stranger, timeout=SHORT) as client:
            with pytest.raises(CoordinatorUnavailable):
                await client.start("place-order", PlaceOrder())
    assert len(coordinator.sagas) == 1


@pytest.mark.parametrize("credentials", [None, grpc.ssl_channel_credentials(self_signed().chain)], ids=["none", "of others"])
async def test_client_that_does_not_trust_the_server_is_told_unavailable(
    coordinator: FakeCoordinator, address: str, credentials: grpc.ChannelCredentials | None
) -> None:
    async with SagaClient(address, channel_credentials=credentials, timeout=SHORT) as client:
        with pytest.raises(CoordinatorUnavailable):
            await client.start("place-order", PlaceOrder())
    assert coordinator.requests == []


async def test_channel_and_credentials_together_are_refused(trusting: grpc.ChannelCredentials) -> None:
    async with grpc.aio.insecure_channel(NOBODY) as channel:
        with pytest.raises(ValueError, match="found both"):
            SagaClient(channel=channel, channel_credentials=trusting)


async def test_participant_registers_through_tls(coordinator: FakeCoordinator, address: str, trusting: grpc.ChannelCredentials) -> None:
    registration = Registration(
        coordinator=address,
        target="127.0.0.1:9",
        descriptions=[participant_pb2.ParticipantDescription(name="inventory")],
        ttl=timedelta(seconds=30),
        channel_credentials=trusting,
    )
    running = asyncio.ensure_future(registration.run())
    async with asyncio.timeout(30):
        await registration.accepted.wait()
    running.cancel()
    await asyncio.wait((running,))
    assert coordinator.received(coordinator_pb2.RegisterParticipantRequest)[0].target == "127.0.0.1:9"
