"""Keeping participants known to a coordinator: registered at the start, again before it lapses, and after a restart of either."""

import asyncio
import logging
import random
from collections.abc import Iterable, Sequence
from datetime import timedelta
from typing import Final

import grpc
from google.protobuf.duration_pb2 import Duration

from participant_sdk.client.addresses import parse_addresses
from participant_sdk.client.channel import Patience, open_channel
from participant_sdk.rpc_errors import error_reason, from_rpc_error
from saga.v1 import coordinator_pb2, coordinator_pb2_grpc, participant_pb2

logger = logging.getLogger(__name__)

TTL_DEFAULT: Final = timedelta(seconds=30)
"""How long a registration holds unless it is repeated."""
_REPEATS_PER_TTL: Final = 3
"""Two repetitions may be lost before a registration lapses."""
_CALL_TIME_LIMIT_S: Final = 5.0
_BACKOFF_FIRST_S: Final = 0.2
_BACKOFF_MAX_S: Final = 5.0
_DOUBLINGS_MAX: Final = 10
"""Beyond this the backoff has long reached its maximum."""


class Registration:
    """Registers participants with one coordinator for as long as `run` is running.

    Of several nodes any one will do, since they share their database: the next one is asked when one does not answer or refuses.
    """

    def __init__(
        self,
        *,
        coordinator: str | Sequence[str],
        target: str,
        descriptions: Iterable[participant_pb2.ParticipantDescription],
        ttl: timedelta,
        channel_credentials: grpc.ChannelCredentials | None = None,
    ) -> None:
        """`coordinator` is where to tell, as a SagaClient takes it; `target` what is to be dialled; `ttl` 1 s to 1 h.

        `channel_credentials`: for TLS to the coordinator; None: none. Raises ValueError for what is no address.
        """
        lasting = Duration()
        lasting.FromTimedelta(ttl)
        self._nodes = parse_addresses(coordinator)
        self._node = random.randrange(len(self._nodes))  # noqa: S311 - spreads load, guards nothing
        self._channel_credentials = channel_credentials
        self._requests = [
            coordinator_pb2.RegisterParticipantRequest(target=target, description=description, ttl=lasting) for description in descriptions
        ]
        self._repeat_after_s = ttl.total_seconds() / _REPEATS_PER_TTL
        self._call_time_limit_s = min(_CALL_TIME_LIMIT_S, self._repeat_after_s)
        self._is_told = False
        self.accepted: asyncio.Event = asyncio.Event()
        """Set when the coordinator has accepted all of them for the first time."""

    async def run(self) -> None:
        """Registers for ever, until cancelled. Never raises: a coordinator that is away or refuses is asked again."""
        failures = 0
        while True:
            # A new connection after each failure: the old one may be dead without a word, and a registration lapses sooner than that is
            # noticed.
            async with self._open_channel() as channel:
                stub = coordinator_pb2_grpc.SagaServiceStub(channel)
                while await self._register(stub):
                    failures = 0
                    await self._until_due(channel)
            failures += 1
            self._node = (self._node + 1) % len(self._nodes)
            await asyncio.sleep(_backoff_s(failures))

    @property
    def _coordinator(self) -> str:
        """The node that is told now."""
        return self._nodes[self._node]

    def _open_channel(self) -> grpc.aio.Channel:
        patience = Patience.ALONE if len(self._nodes) == 1 else Patience.AMONG_MANY
        return open_channel(self._coordinator, self._channel_credentials, patience)

    async def _register(self, stub: "coordinator_pb2_grpc.SagaServiceAsyncStub") -> bool:
        for request in self._requests:
            try:
                await stub.RegisterParticipant(request, timeout=self._call_time_limit_s)
            except grpc.aio.AioRpcError as error:
                self._tell_failure(request.description.name, error)
                return False
        if not self._is_told:
            names = ", ".join(request.description.name for request in self._requests)
            logger.info("registered %s with the coordinator at %s", names, self._coordinator)
        self._is_told = True
        self.accepted.set()
        return True

    def _tell_failure(self, name: str, error: grpc.aio.AioRpcError) -> None:
        if error.code() in {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED}:
            if self._is_told:
                logger.warning("the coordinator at %s is away; trying to register again", self._coordinator)
            else:
                logger.debug("the coordinator at %s is not there yet", self._coordinator)
        else:
            status = from_rpc_error(error)
            reason = error_reason(status) or error.code().name
            logger.error("the coordinator at %s refuses %s: %s (%s)", self._coordinator, name, status.message, reason)
        self._is_told = False

    async def _until_due(self, channel: grpc.aio.Channel) -> None:
        """Until the next repetition, or until the coordinator goes away: it may come back without remembering."""
        try:
            async with asyncio.timeout(self._repeat_after_s):
                state = channel.get_state()
                while state is grpc.ChannelConnectivity.READY:
                    await channel.wait_for_state_change(state)
                    state = channel.get_state()
                await asyncio.sleep(_backoff_s(1))
        except TimeoutError:
            return


def _backoff_s(failures: int) -> float:
    """Doubles from `_BACKOFF_FIRST_S` to `_BACKOFF_MAX_S`, drawn from its upper half: 0.1-0.2, 0.2-0.4, … 2.5-5 s."""
    whole = min(_BACKOFF_FIRST_S * 2.0 ** min(failures - 1, _DOUBLINGS_MAX), _BACKOFF_MAX_S)
    return random.uniform(whole / 2, whole)  # noqa: S311 - spreads load, hides nothing
