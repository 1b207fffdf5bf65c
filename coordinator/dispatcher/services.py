"""Services that are there already: learns what they take and return, and registers them, which they will never do themselves."""

import asyncio
import logging
from collections.abc import Mapping, Sequence
from typing import Final

from google.protobuf.descriptor_pb2 import FileDescriptorSet

from coordinator.codec.services import ServiceInvalidError, ServicePlan, compile_service
from coordinator.dispatcher.caller import Caller
from coordinator.dispatcher.channels import Channels
from coordinator.dispatcher.reflection import ReflectionError, read_descriptors
from coordinator.dispatcher.registry import ParticipantRegistry
from coordinator.dispatcher.service_caller import ServiceCaller
from coordinator.services import ExistingService

REFLECTION_TIMEOUT_S: Final = 3.0
ASK_AGAIN_S_MIN: Final = 1.0
"""How long a service that did not tell its types is left alone at first; twice as long after each time."""
ASK_AGAIN_S_MAX: Final = 30.0
ASK_EVERY_S: Final = 300.0
"""How old an answer becomes before it is asked again: it may be another release by now."""

_logger = logging.getLogger(__name__)


class Services:
    """Knows how each of them is called. Until its types are known a service has no place: what is for it waits, as for a participant that
    has not registered yet.
    """

    def __init__(self, *, registry: ParticipantRegistry, channels: Channels, payload_bytes_max: int) -> None:
        self._registry = registry
        self._channels = channels
        self._payload_bytes_max = payload_bytes_max
        self._configured: dict[str, ExistingService] = {}
        self._callers: dict[str, ServiceCaller] = {}
        self._asked: dict[str, _Asked] = {}

    def add(self, participant: str, service: ExistingService, plan: ServicePlan | None) -> None:
        """Makes a service known by the name of a participant. `plan`: None: it is asked by reflection, once `run` runs or somebody asks."""
        self._configured[participant] = service
        if plan is None:
            self._asked[participant] = _Asked()
        else:
            self._use(participant, plan)

    def add_all(self, configured: Mapping[str, ExistingService], plans: Mapping[str, ServicePlan]) -> None:
        """The same for all that are configured; those without a plan are asked."""
        for name, service in configured.items():
            self.add(name, service, plans.get(name))

    @property
    def names(self) -> frozenset[str]:
        """All that there are."""
        return frozenset(self._configured)

    @property
    def has_questions(self) -> bool:
        """Whether there is anything for `run` to do."""
        return bool(self._asked)

    def find_caller(self, participant: str) -> Caller | None:
        """Who calls it; None: it is no such service, or nothing is known of it yet."""
        return self._callers.get(participant)

    def why_unknown(self, participant: str) -> str:
        """Why it cannot be called yet; empty: it can, or it is no such service."""
        asked = self._asked.get(participant)
        return asked.problem if asked is not None and participant not in self._callers else ""

    async def ask(self, participant: str) -> None:
        """Asks a service now what its methods take and return; returns when that is known, or is not to be had. Who comes while it is being
        asked waits for the same answer. Does nothing for any other participant."""
        asked = self._asked.get(participant)
        if asked is None:
            return
        seen = asked.answers
        async with asked.lock:
            if asked.answers == seen:
                asked.problem = await self._read(participant, self._configured[participant])
                asked.answers += 1

    async def run(self) -> None:
        """Asks all that have no descriptors, again and again. Runs until it is cancelled."""
        async with asyncio.TaskGroup() as following:
            for name in self._asked:
                following.create_task(self._follow(name))

    async def _follow(self, name: str) -> None:
        pause_s = ASK_AGAIN_S_MIN
        while True:
            await self.ask(name)
            if self._asked[name].problem:
                await asyncio.sleep(pause_s)
                pause_s = min(2 * pause_s, ASK_AGAIN_S_MAX)
            else:
                pause_s = ASK_AGAIN_S_MIN
                await asyncio.sleep(ASK_EVERY_S)

    async def _read(self, name: str, service: ExistingService) -> str:
        """What kept it from being known; empty: nothing did. What was known before stays: the service itself refuses what has gone."""
        methods = [method for action in service.actions.values() for method in (action.execute, action.compensate) if method]
        wanted = sorted({method.partition("/")[0] for method in methods})
        problem = ""
        try:
            self._use(name, compile_service(name, service, await self._ask_at(service.target, wanted)))
        except (ReflectionError, ServiceInvalidError) as error:
            problem = f"what {service.target} takes and returns is not known: {error}"
            if problem != self._asked[name].problem:
                _logger.warning("service cannot be read", extra={"participant": name, "error": problem})
        except Exception as error:  # nobody waits for what happens in the background: it must be seen in the log, and not end the others
            problem = f"what {service.target} takes and returns is not known: {type(error).__name__}"
            _logger.exception("service cannot be read", extra={"participant": name})
        return problem

    async def _ask_at(self, address: str, wanted: Sequence[str]) -> FileDescriptorSet:
        """The channel is told how that went: one on which nothing is answered is given up."""
        use = self._channels.use(address)
        use.begin()
        try:
            files = await read_descriptors(use.connection.channel, wanted, time_limit_s=REFLECTION_TIMEOUT_S)
        except BaseException as error:
            use.end(error.ended_by if isinstance(error, ReflectionError) else error)
            raise
        use.end(None)
        return files

    def _use(self, name: str, plan: ServicePlan) -> None:
        service = self._configured[name]
        self._callers[name] = ServiceCaller(
            plan=plan, key_metadata=service.key_metadata, channels=self._channels, payload_bytes_max=self._payload_bytes_max
        )
        self._registry.put_service(service.target, plan.description)


class _Asked:
    """How far it came with asking one service."""

    def __init__(self) -> None:
        self.lock = asyncio.Lock()
        self.answers = 0
        self.problem = "what it takes and returns was not asked yet"
