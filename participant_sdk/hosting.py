"""What participants need while they are served, whoever owns the gRPC server: registration, retention, a way to the coordinator."""

import asyncio
import logging
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

import grpc

from participant_sdk.barrier.barrier import Barrier
from participant_sdk.barrier.store import StoreBusyError, StoreUnavailableError
from participant_sdk.client.saga_client import SagaClient
from participant_sdk.closings import wait_for_closings
from participant_sdk.completing import LentClient
from participant_sdk.errors import ParticipantSetupError
from participant_sdk.registration import TTL_DEFAULT, Registration
from participant_sdk.retention import forget_expired_keys
from participant_sdk.servicer import ParticipantServicer

logger = logging.getLogger(__name__)

COORDINATOR_DEFAULT: Final = "127.0.0.1:7700"
DRAIN_TIME_LIMIT_DEFAULT: Final = timedelta(seconds=10)
"""How long calls under way may take to end when the server stops."""
CUT_SHORT_TIME_LIMIT_S: Final = 15.0
"""How long calls that were cut short may take to roll back, or to end a COMMIT under way."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HostingOptions:
    """How participants are made known. Raises ParticipantSetupError for what cannot be."""

    coordinator: str | Sequence[str] | None = COORDINATOR_DEFAULT
    """Where to register, one address or those of several nodes; None if it knows the participants by its configuration."""
    channel_credentials: grpc.ChannelCredentials | None = None
    """For TLS to the coordinator; None: none."""
    ttl: timedelta = TTL_DEFAULT
    """How long a registration holds, 1 s to 1 h; it is repeated three times as often."""
    drain_time_limit: timedelta = DRAIN_TIME_LIMIT_DEFAULT
    """How long calls under way may take to end."""

    def __post_init__(self) -> None:
        if not timedelta(seconds=1) <= self.ttl <= timedelta(hours=1):
            raise ParticipantSetupError(f"ttl must be from 1 s to 1 h, found {self.ttl}")


class Hosting:
    """Keeps the participants of one servicer known, their barriers tidy, and their way to the coordinator open, from `begin` to `end`."""

    def __init__(self, servicer: ParticipantServicer, options: HostingOptions) -> None:
        self._servicer: Final = servicer
        self._options: Final = options
        self._barriers: Final = list({id(each.barrier): each.barrier for each in servicer.participants}.values())
        self._registration: Registration | None = None
        self._client: LentClient | None = None
        """What the participants' `completing` tells the coordinator through. Dialled when it is first used."""
        self._background: list[asyncio.Task[None]] = []

    async def prove(self) -> None:
        """Proves the barriers. Raises ParticipantSetupError if one could never serve; a database that is away for now is no reason."""
        for barrier in self._barriers:
            await _prove(barrier)

    def begin(self, target: str) -> None:
        """Begins to register, as what the coordinator reaches at `target`."""
        options = self._options
        for barrier in self._barriers:
            if barrier.retention is not None:
                self._run_in_background(forget_expired_keys(barrier), "retention")
        if options.coordinator is None:
            return
        self._client = LentClient(SagaClient(options.coordinator, channel_credentials=options.channel_credentials))
        self._lend(self._client)
        self._registration = Registration(
            coordinator=options.coordinator,
            target=target,
            descriptions=self._servicer.descriptions,
            ttl=options.ttl,
            channel_credentials=options.channel_credentials,
        )
        self._run_in_background(self._registration.run(), "registration")

    async def wait_registered(self, time_limit: timedelta) -> None:
        """Waits until the coordinator has accepted the registration. Raises TimeoutError."""
        if self._registration is None:
            raise ParticipantSetupError("nothing is registered: start comes first, with a coordinator")
        async with asyncio.timeout(time_limit.total_seconds()):
            await self._registration.accepted.wait()

    async def retreat(self) -> None:
        """Registers no more, and asks for no more calls. Those under way go on. Safe to repeat."""
        background, self._background = self._background, []
        for task in background:
            task.cancel()
        await asyncio.gather(*background, return_exceptions=True)
        self._servicer.drain()

    async def end(self) -> None:
        """Gives back what is held, when no calls come any more. Safe to repeat."""
        client, self._client = self._client, None
        if client is not None:
            self._lend(None)
            await client.close(self._options.drain_time_limit)
        self._servicer.close()
        await wait_for_closings()

    async def wait_idle(self, time_limit_s: float) -> None:
        """Waits until no call is under way, so long at most."""
        try:
            async with asyncio.timeout(time_limit_s):
                await self._servicer.wait_idle()
        except TimeoutError:
            logger.warning("calls did not end in time; their outcome is unknown")

    def _lend(self, client: LentClient | None) -> None:
        for participant in self._servicer.participants:
            participant.tell_completions_to(client)

    def _run_in_background(self, work: Coroutine[None, None, None], name: str) -> None:
        """Runs until `retreat`, which awaits it. A bug that ends it early is told at once, not at the end."""
        task = asyncio.get_running_loop().create_task(work, name=name)
        task.add_done_callback(_tell_if_broken)
        self._background.append(task)


async def _prove(barrier: Barrier) -> None:
    try:
        await barrier.check()
    except (StoreUnavailableError, StoreBusyError) as error:
        logger.warning("the participant's database cannot be used now, starting without having tried it: %s", error)


def _tell_if_broken(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and task.exception() is not None:
        logger.error("%s ended by a fault of its own", task.get_name(), exc_info=task.exception())
