"""Where participants can be called: from configuration, and from what they register at their start."""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from google.protobuf.message import DecodeError

from coordinator.core.values import Instant
from coordinator.engine.ports import Clock, Journal, ParticipantConflictError, StoredParticipant
from saga.v1 import participant_pb2

TARGETS_MAX: Final = 1_000
"""Targets that one participant may register; more are refused."""
NEVER: Final = Instant(2**62)

_logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """One place where a participant can be called."""

    address: str
    """gRPC target."""
    description: participant_pb2.ParticipantDescription | None
    """None: it stands in the configuration, and nobody has asked it yet."""
    expires_at: Instant

    def can_do(self, action_name: str) -> bool:
        """Whether the action is served there, as far as is known."""
        return self.description is None or any(action.name == action_name for action in self.description.actions)


class ParticipantRegistry:
    """Knows the targets of every participant. Registrations are kept in the journal, so that a restart remembers them."""

    def __init__(self, *, clock: Clock, journal: Journal, configured: Mapping[str, str]) -> None:
        self._clock = clock
        self._journal = journal
        self._configured = {name: Target(address=address, description=None, expires_at=NEVER) for name, address in configured.items()}
        self._targets: dict[str, dict[str, Target]] = {name: {target.address: target} for name, target in self._configured.items()}
        self._listeners: list[Callable[[str], None]] = []

    def on_change(self, listener: Callable[[str], None]) -> None:
        """Tells the listener the name of every participant that gained a target."""
        self._listeners.append(listener)

    async def load(self) -> None:
        """Reads the registrations that the journal remembers."""
        for stored in await self._journal.list_participants():
            try:
                description = participant_pb2.ParticipantDescription.FromString(stored.description)
            except DecodeError:
                _logger.warning("registration cannot be decoded and is left out", extra={"participant": stored.name})
                continue
            if stored.expires_at > self._clock.now():
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

    def targets_of(self, participant: str, action_name: str) -> Sequence[str]:
        """Addresses that serve the action now, in a stable order."""
        return [target.address for target in self._live(participant) if target.can_do(action_name)]

    def description_of(self, participant: str) -> participant_pb2.ParticipantDescription | None:
        """What is known of a participant; None if it is not here, or stands in the configuration only."""
        return next((target.description for target in self._live(participant) if target.description is not None), None)

    def live_targets(self) -> frozenset[str]:
        """Every address that is called now."""
        return frozenset(target.address for name in self._targets for target in self._live(name))

    def is_known(self, participant: str) -> bool:
        """Whether there is any live target."""
        return bool(self._live(participant))

    def _live(self, participant: str) -> list[Target]:
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
        if is_new:
            for listener in self._listeners:
                listener(name)

    def _refuse_conflict(self, address: str, description: participant_pb2.ParticipantDescription) -> None:
        live = self._live(description.name)
        if len(live) >= TARGETS_MAX and address not in {target.address for target in live}:
            raise ParticipantConflictError(f"expected at most {TARGETS_MAX} targets for {description.name!r}; let old ones expire")
        types = {action.name: (action.input_type, action.output_type) for action in description.actions}
        for target in live:
            if target.address == address or target.description is None:
                continue  # the same place may change what it serves
            for action in target.description.actions:
                found = types.get(action.name)
                if found is not None and found != (action.input_type, action.output_type):
                    raise ParticipantConflictError(
                        f"{description.name}.{action.name} is served at {target.address} as ({action.input_type}) -> {action.output_type}, "
                        f"found ({found[0]}) -> {found[1]} at {address}; use another name, or stop the other one first"
                    )
