"""Asks participants that only stand in the configuration what they are: what they wish for, and what their actions take and return."""

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Final

import grpc

from coordinator.core.values import MICROS_PER_SECOND, Instant
from coordinator.dispatcher.channels import Channels
from coordinator.dispatcher.registry import ParticipantRegistry
from coordinator.dispatcher.targets import Target
from coordinator.engine.ports import Clock
from saga.v1 import participant_pb2

DESCRIBE_TIMEOUT_S: Final = 2.0
ASK_EVERY_US: Final = 300 * MICROS_PER_SECOND
"""How old an answer may become while calls go there."""
ASK_AGAIN_US: Final = 30 * MICROS_PER_SECOND
"""How long one that did not answer is not asked again."""

Spawn = Callable[[Coroutine[object, object, None]], "asyncio.Task[None]"]
"""Runs something in the background until the dispatcher is closed."""

_logger = logging.getLogger(__name__)


class Descriptions:
    """Asks, one question at a time per place. What is answered goes to the registry."""

    def __init__(self, *, clock: Clock, registry: ParticipantRegistry, channels: Channels, spawn: Spawn) -> None:
        self._clock = clock
        self._registry = registry
        self._channels = channels
        self._spawn = spawn
        self._asking: dict[tuple[str, str], asyncio.Task[None]] = {}
        self._ask_again_at: dict[tuple[str, str], Instant] = {}

    def refresh(self, participant: str, target: Target) -> None:
        """Asks in the background if what is known of a place is too old. Costs a look-up otherwise: it is called with every call."""
        if self._clock.now() >= self._ask_again_at.get((participant, target.address), 0):
            self._begin(participant, target.address)

    async def ask(self, participant: str, address: str) -> None:
        """Asks now; returns when there is an answer, or none has come in time."""
        # Shielded, because others may wait for the same answer.
        await asyncio.shield(self._begin(participant, address))

    def _begin(self, participant: str, address: str) -> "asyncio.Task[None]":
        place = (participant, address)
        asking = self._asking.get(place)
        if asking is None:
            asking = self._asking[place] = self._spawn(self._ask(participant, address))
            asking.add_done_callback(lambda _: self._asking.pop(place, None))
        return asking

    async def _ask(self, participant: str, address: str) -> None:
        place = (participant, address)
        self._ask_again_at[place] = Instant(self._clock.now() + ASK_AGAIN_US)
        request = participant_pb2.DescribeRequest(participant=participant)
        try:
            with self._channels.use(address) as connection:
                response = await connection.stub.Describe(request, timeout=DESCRIBE_TIMEOUT_S)
        except grpc.aio.AioRpcError as error:
            _logger.info("participant does not describe itself", extra={"participant": participant, "code": error.code().name})
            return
        except Exception:  # nobody waits for what happens in the background: it must be seen in the log
            _logger.exception("description cannot be read", extra={"participant": participant})
            return
        self._ask_again_at[place] = Instant(self._clock.now() + ASK_EVERY_US)
        self._registry.learn(participant, address, response.description)
