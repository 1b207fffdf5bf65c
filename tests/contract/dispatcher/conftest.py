"""A stand for every implementation of the dispatcher."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager

import pytest

from coordinator.dispatcher import ParticipantRegistry
from coordinator.dispatcher.channels import Channels
from coordinator.dispatcher.services import Services
from coordinator.engine.clock import SystemClock
from coordinator.engine.ports import Clock
from coordinator.journal.memory_journal import MemoryJournal
from coordinator.limits import ParticipantLimits
from tests.contract.dispatcher.stand import CONCURRENCY, IMPLEMENTATIONS, PAYLOAD_BYTES_MAX, NewStand, Options, Replies, Stand


@pytest.fixture(params=list(IMPLEMENTATIONS))
def new_stand(request: pytest.FixtureRequest) -> NewStand:
    """Makes stands; the test says what is special."""
    make, kind = IMPLEMENTATIONS[request.param], request.param

    @asynccontextmanager
    async def stand(
        *,
        clock: Clock | None = None,
        concurrency: int = CONCURRENCY,
        limits: ParticipantLimits | None = None,
        configured: Mapping[str, str] | None = None,
        may_send: Callable[[], bool] = lambda: True,
    ) -> AsyncIterator[Stand]:
        clock = clock or SystemClock(asyncio.get_running_loop())
        async with AsyncExitStack() as stack:
            journal = await stack.enter_async_context(MemoryJournal(clock=clock))
            registry = ParticipantRegistry(clock=clock, journal=journal, configured=configured or {})
            limits = limits or ParticipantLimits(concurrency=concurrency)
            channels = Channels()
            services = Services(registry=registry, channels=channels, payload_bytes_max=PAYLOAD_BYTES_MAX)
            options = Options(clock=clock, registry=registry, limits=limits, channels=channels, services=services, may_send=may_send)
            dispatcher = make(options)
            stack.push_async_callback(dispatcher.aclose)
            replies = Replies()
            dispatcher.listen(replies)
            yield Stand(clock=clock, registry=registry, dispatcher=dispatcher, replies=replies, known_services=services, kind=kind)

    return stand


@pytest.fixture
async def stand(new_stand: NewStand) -> AsyncIterator[Stand]:
    """A dispatcher with the plain options and the real clock."""
    async with new_stand() as made:
        yield made
