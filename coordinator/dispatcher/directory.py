"""What the rest of the coordinator may ask about participants."""

from collections.abc import Sequence

from coordinator.core.values import AttemptKey, SagaId
from coordinator.dispatcher.grpc_dispatcher import GrpcDispatcher
from coordinator.dispatcher.registry import ParticipantRegistry
from coordinator.engine.ports import CallPlace, ParticipantStanding
from saga.v1 import participant_pb2


class ParticipantDirectory:
    """Registers participants, tells what they can do, and how the calls to them are getting on (the port `Whereabouts`)."""

    def __init__(self, registry: ParticipantRegistry, dispatcher: GrpcDispatcher) -> None:
        self._registry = registry
        self._dispatcher = dispatcher

    async def register(self, target: str, description: participant_pb2.ParticipantDescription, ttl_us: int) -> None:
        """Remembers a target. Raises ParticipantConflictError, JournalUnavailableError."""
        await self._registry.register(target, description, ttl_us)

    async def describe(self, participant: str) -> participant_pb2.ParticipantDescription | None:
        """What a participant says it can do; None if it is not known or does not answer."""
        return await self._dispatcher.describe(participant)

    def place_of(self, participant: str, saga_id: SagaId, attempt: AttemptKey, /) -> CallPlace:
        """Where a call is now."""
        return self._dispatcher.place_of(participant, saga_id, attempt)

    def standing_of(self, participant: str, /) -> ParticipantStanding:
        """How calls to a participant are getting on, also to one that nobody has heard of."""
        return self._dispatcher.standing_of(participant)

    def standings(self) -> Sequence[ParticipantStanding]:
        """Of every participant that is registered, configured, or has been called; by name."""
        return self._dispatcher.standings()
