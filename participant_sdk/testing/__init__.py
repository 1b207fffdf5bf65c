"""What tests of participants are written with."""

from participant_sdk.testing.contexts import step_context
from participant_sdk.testing.memory_barrier import MemoryBarrier, MemoryDatabase

__all__ = ["MemoryBarrier", "MemoryDatabase", "step_context"]
