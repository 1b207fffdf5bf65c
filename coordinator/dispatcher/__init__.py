"""Calls participants over gRPC. Every call that was handed over ends in exactly one reply; none of them blocks the engine."""

from coordinator.dispatcher.directory import ParticipantDirectory
from coordinator.dispatcher.grpc_dispatcher import GrpcDispatcher
from coordinator.dispatcher.registry import ParticipantRegistry

__all__ = ["GrpcDispatcher", "ParticipantDirectory", "ParticipantRegistry"]
