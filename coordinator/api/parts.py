"""What the services are made of: the ports and registries they use, given from outside, and what they share among themselves."""

from dataclasses import dataclass
from typing import Protocol

from coordinator.api.forwarding import Forwarding, OpenChannel
from coordinator.api.saga_commands import SagaCommands
from coordinator.api.views import SagaViews
from coordinator.api.waits import OpenWaits
from coordinator.catalog import DefinitionCatalog
from coordinator.codec.completion_tokens import CompletionTokens
from coordinator.engine.engine import Engine
from coordinator.engine.hints import Hints
from coordinator.engine.ports import Clock, Journal, Whereabouts
from coordinator.engine.shards import Shards
from saga.v1 import participant_pb2


class ParticipantDirectory(Protocol):
    """What the API needs to know of participants."""

    async def register(self, target: str, description: participant_pb2.ParticipantDescription, ttl_us: int) -> None:
        """Remembers a target. Raises ParticipantConflictError, JournalUnavailableError."""

    async def describe(self, participant: str) -> participant_pb2.ParticipantDescription | None:
        """What a participant says it can do; None if it is not known or does not answer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceParts:
    """What the services are given."""

    clock: Clock
    engine: Engine
    journal: Journal
    catalog: DefinitionCatalog
    participants: ParticipantDirectory
    whereabouts: Whereabouts
    """What explains why a call has not ended."""
    shards: Shards
    """What this node drives, and who drives the rest."""
    hints: Hints | None
    """Of what other nodes commit; None: there are none."""
    open_channel: OpenChannel
    """How other nodes are reached."""
    tokens: CompletionTokens
    """The same that sign the tokens of outgoing calls."""
    payload_bytes_max: int
    trace_sample_ratio: float


class SharedParts:
    """What the services share: one list of open waits to end, one view of sagas, and ONE place that takes sagas up for commands."""

    def __init__(self, parts: ServiceParts) -> None:
        self.waits = OpenWaits()
        self.views = SagaViews(parts.clock, parts.journal, parts.catalog, parts.engine)
        self.commands = SagaCommands(parts.engine, self.views, self.waits)
        self.forwarding = Forwarding(engine=parts.engine, shards=parts.shards, tokens=parts.tokens, open_channel=parts.open_channel)
