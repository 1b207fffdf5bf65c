"""What tests of participants are written with."""

from participant_sdk.testing.contexts import completion_token, step_context
from participant_sdk.testing.memory_barrier import MemoryBarrier, MemoryDatabase

__all__ = ["MemoryBarrier", "MemoryDatabase", "completion_token", "step_context"]
