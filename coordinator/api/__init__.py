"""The gRPC face of the coordinator: requests are checked here, answered from the engine or the journal, and never decided here."""

from coordinator.api.server import ApiServer

__all__ = ["ApiServer"]
