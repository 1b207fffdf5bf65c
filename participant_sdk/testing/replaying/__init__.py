"""Recorded sagas against a new definition, or a new release: where would it have been decided differently?"""

from participant_sdk.testing.replaying.histories import History, HistoryError, read_histories
from participant_sdk.testing.replaying.replay import Difference, Replay, replay

__all__ = ["Difference", "History", "HistoryError", "Replay", "read_histories", "replay"]
