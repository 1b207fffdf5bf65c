"""Where participants can be called: from configuration, and from what they register at their start."""

import logging
from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import replace
from typing import Final

from google.protobuf.message import DecodeError

from coordinator.core.values import Instant
from coordinator.dispatcher.targets import LiveTargets, Target
from coordinator.engine.ports import Clock, Journal, ParticipantConflictError, StoredParticipant
from saga.v1 import participant_pb2

TARGETS_MAX: Final = 1_000
"""Targets that one participant may register; more are refused."""
_NOWHERE: Final = LiveTargets(())

_logger = logging.getLogger(__name__)


class ParticipantRegistry:
    """Knows the targets of every participant. Registrations are kept in the journal, so that a restart remembers them."""

    def __init__(self, *, clock: Clock, journal: Journal, configured: Mapping[str, str], services: Container[str] = frozenset()) -> None:
        """`configured`: targets by name. `services`: names of services that are there already; nobody else can register by them."""
        self._clock = clock
        self._journal = journal
        self._services = services
        self._configured = {name: Target(address=address, description=None) for name, address in configured.items()}
        self._targets: dict[str, dict[str, Target]] = {name: {target.address: target} for name, target in self._configured.items()}
        self._live: dict[str, LiveTargets] = {}
        self._change_listeners: list[Callable[[str], None]] = []
        self._sign_listeners: list[Callable[[str], None]] = []

    def on_change(self, listener: Callable[[str], None]) -> None:
        """Tells the listener the name of every participant that gained a target."""
        self._change_listeners.append(listener)

    def on_sign_of_life(self, listener: Callable[[str], None]) -> None:
        """Tells the listener the name of every participant that registered, again or for the first time, or described itself."""
        self._sign_listeners.append(listener)

    async def load(self) -> None:
        """Reads the registrations that the journal remembers: at the start, and again for those that other nodes took."""
        for stored in await self._journal.list_participants():
            try:
                description = participant_pb2.ParticipantDescription.FromString(stored.description)
            except DecodeError:
                _logger.warning("registration cannot be decoded and is left out", extra={"participant": stored.name})
                continue
            if stored.name in self._services:
                continue  # it registered before its name was configured as a service
            known = self._targets.get(stored.name, {}).get(stored.target)
            if stored.expires_at > max(self._clock.now(), known.expires_at if known is not None else 0):
                self._put(stored.name, Target(address=stored.target, description=description, expires_at=stored.expires_at))

    async def register(self, target: str, description: participant_pb2.ParticipantDescription, ttl_us: int) -> None:
        """Remembers a target for `ttl_us`.

        Raises ParticipantConflictError if a live target of that name serves one of its actions with other types: two services that took
        the same name. JournalUnavailableError if it cannot be stored.
        """
        self._refuse_conflict(target, description)
        expires_at = Instant(self._clock.now() + ttl_us)
        stored = StoredParticipant(
            name=description.name,
            target=target,
            description=description.SerializeToString(deterministic=True),
            expires_at=expires_at,
        )
        await self._journal.put_participant(stored)
        self._put(description.name, Target(address=target, description=description, expires_at=expires_at))

    def put_service(self, address: str, description: participant_pb2.ParticipantDescription) -> None:
        """A service that is there already can be called, or does something else from now on; or it only showed that it lives."""
        target = Target(address=address, description=description)
        if self._targets.get(description.name, {}).get(address) == target:
            self._tell(self._sign_listeners, description.name)
        else:
            self._put(description.name, target)

    def learn(self, participant: str, address: str, told: participant_pb2.ParticipantDescription) -> None:
        """Remembers what a configured place says of itself."""
        configured = self._configured.get(participant)
        if configured is None or configured.address != address:
            return
        now = self._clock.now()
        learned = self._configured[participant] = replace(configured, told=told, told_at=now)
        if self._targets[participant].get(address) is configured:
            self._targets[participant][address] = learned
        self._live.pop(participant, None)
        self._tell(self._sign_listeners, participant)

    def live(self, participant: str) -> LiveTargets:
        """The places of a participant that are live now, in a stable order; none for one that nobody has heard of."""
        found = self._live.get(participant)
        if found is None or found.valid_until <= self._clock.now():
            targets = self._find_live(participant)
            if not targets:
                self._live.pop(participant, None)
                return _NOWHERE
            found = self._live[participant] = LiveTargets(targets)
        return found

    def live_targets(self) -> frozenset[str]:
        """Every address that is called now."""
        return frozenset(address for name in list(self._targets) for address in self.live(name).addresses)

    def names(self) -> Sequence[str]:
        """Every participant that has a live target."""
        return [name for name in list(self._targets) if self.is_known(name)]

    def is_known(self, participant: str) -> bool:
        """Whether there is any live target."""
        return bool(self.live(participant).targets)

    def _find_live(self, participant: str) -> list[Target]:
        targets = self._targets.get(participant, {})
        now = self._clock.now()
        expired = [address for address, target in targets.items() if target.expires_at <= now]
        configured = self._configured.get(participant)
        for address in expired:
            if configured is not None and configured.address == address:
                targets[address] = configured  # what it registered no longer holds; that it stands in the configuration does
            else:
                del targets[address]
        return list(targets.values())

    def _put(self, name: str, target: Target) -> None:
        targets = self._targets.setdefault(name, {})
        is_new = target.address not in targets
        targets[target.address] = target
        self._live.pop(name, None)
        if is_new:
            self._tell(self._change_listeners, name)
        self._tell(self._sign_listeners, name)

    @staticmethod
    def _tell(listeners: Sequence[Callable[[str], None]], name: str) -> None:
        for listener in listeners:
            listener(name)

    def _refuse_conflict(self, address: str, description: participant_pb2.ParticipantDescription) -> None:
        if description.name in self._services:
            # What the service did, a participant of that name would take for never done: it would answer an undo and undo nothing.
            raise ParticipantConflictError(
                f"{description.name!r} is configured as a service with actions of its own; take another name, or change the settings"
            )
        live = self.live(description.name)
        if len(live.targets) >= TARGETS_MAX and address not in live.addresses:
            raise ParticipantConflictError(f"expected at most {TARGETS_MAX} targets for {description.name!r}; let old ones expire")
        types = {action.name: (action.input_type, action.output_type) for action in description.actions}
        for target in live.targets:
            if target.address == address or target.description is None:
                continue  # the same place may change what it serves
            for action in target.description.actions:
                found = types.get(action.name)
                if found is not None and found != (action.input_type, action.output_type):
                    raise ParticipantConflictError(
                        f"{description.name}.{action.name} is served at {target.address} as ({action.input_type}) -> {action.output_type}, "
                        f"found ({found[0]}) -> {found[1]} at {address}; use another name, or stop the other one first"
                    )
