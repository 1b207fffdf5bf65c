"""What is known of the calls of one participant, and of one call on its way."""

from typing import Protocol

from coordinator.core.effects import CallParticipant
from coordinator.core.values import Instant
from coordinator.dispatcher.lane import Lane
from coordinator.dispatcher.places import Place, Places
from coordinator.limits import ParticipantLimits
from participant_sdk.framed_calls import Unanswered
from saga.v1 import participant_pb2


class Line:
    """Everything about the calls of one participant."""

    __slots__ = ("is_moving", "lane", "name", "places")

    def __init__(self, name: str, limits: ParticipantLimits) -> None:
        self.name = name
        self.is_moving = False
        """Whether calls are being sent this very moment: what ends at once does not begin that anew."""
        self.lane = Lane(name, limits)
        self.places = Places(name, limits)


class Sender(Protocol):
    """Who sent a call."""

    def answered(self, flight: "Flight", answer: participant_pb2.ExchangeReply | Unanswered) -> None:
        """A call among others has ended."""


class Flight:
    """A call on its way."""

    __slots__ = ("_sender", "call", "line", "place", "sent_at", "time_left_us")

    def __init__(self, sender: Sender, line: Line, call: CallParticipant, place: Place, sent_at: Instant, time_left_us: int) -> None:
        self._sender = sender
        self.line = line
        self.call = call
        self.place = place
        self.sent_at = sent_at
        """When it was sent."""
        self.time_left_us = time_left_us

    def answered(self, answer: participant_pb2.ExchangeReply | Unanswered) -> None:
        """It has ended, if it went among others."""
        self._sender.answered(self, answer)
