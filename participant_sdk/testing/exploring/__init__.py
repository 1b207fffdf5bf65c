"""A user's own saga under everything that the failure model allows."""

from participant_sdk.testing.exploring.explore import explore
from participant_sdk.testing.exploring.report import Exploration, PromiseBrokenError

__all__ = ["Exploration", "PromiseBrokenError", "explore"]
