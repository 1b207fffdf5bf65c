"""What the rest of the coordinator may ask about participants."""

from coordinator.dispatcher.grpc_dispatcher import GrpcDispatcher
from coordinator.dispatcher.registry import ParticipantRegistry
from saga.v1 import participant_pb2


class ParticipantDirectory:
    """Registers participants and tells what they can do."""

    def __init__(self, registry: ParticipantRegistry, dispatcher: GrpcDispatcher) -> None:
        self._registry = registry
        self._dispatcher = dispatcher

    async def register(self, target: str, description: participant_pb2.ParticipantDescription, ttl_us: int) -> None:
        """Remembers a target. Raises ParticipantConflictError, JournalUnavailableError."""
        await self._registry.register(target, description, ttl_us)

    async def describe(self, participant: str) -> participant_pb2.ParticipantDescription | None:
        """What a participant says it can do; None if it is not known or does not answer."""
        return await self._dispatcher.describe(participant)
