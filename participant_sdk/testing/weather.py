"""What may happen to calls between processes of a simulation."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Protocol


@dataclass(frozen=True, slots=True, kw_only=True)
class Fate:
    """What becomes of one call on its way. Times are seconds."""

    request_delay_s: float = 0.0
    """How long the request travels."""
    is_request_lost: bool = False
    """It does not arrive, unless it is repeated: then it arrives so much later."""
    reply_delay_s: float = 0.0
    """How long the reply travels."""
    is_reply_lost: bool = False
    """The server did its work, and the caller never hears of it."""
    repeated_after_s: float | None = None
    """The request arrives once more so much later, and nobody hears that reply; None: it does not."""
    notices_loss_after_s: float | None = None
    """When the caller is told that the connection broke (UNAVAILABLE), if something is lost; None: its deadline tells it."""
    is_cancelled_at_server: bool = True
    """Whether the server notices that the caller waits no longer; if not, its handler runs on until the deadline of the call."""


SMOOTH: Final = Fate()


@dataclass(frozen=True, slots=True, kw_only=True)
class CallOnItsWay:
    """What the network sees of a call."""

    source: str
    """Name of who calls."""
    target: str
    """Address that is called."""
    method: str
    """Example: "/saga.v1.ParticipantService/Execute"."""
    request: bytes
    number: int
    """Of this network, from 0."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MessageOnItsWay:
    """What the network sees of one message of a call with streams in both directions."""

    call: CallOnItsWay
    """Its request is empty."""
    is_reply: bool
    """Whether the server sends it."""
    number: int
    """Of this call and direction, from 0."""
    content: bytes


class Weather(Protocol):
    """Decides what happens to calls."""

    def fate_of(self, call: CallOnItsWay, /) -> Fate:
        """Asked once for each call with one request, before it leaves."""

    def fate_of_message(self, message: MessageOnItsWay, /) -> Fate:
        """Asked once for each message of a call with streams in both directions, before it leaves. Of the fate only what is about requests
        counts for what the client sends, and what is about replies for what the server sends. A message that is lost ends both streams.
        """

    def is_parted(self, source: str, target: str, /) -> bool:
        """Whether nothing gets from one to the other now, in either direction."""


def shared_fate(fates: Sequence[Fate]) -> Fate:
    """What becomes of a message that carries many calls: what one of them would have met, all meet."""
    if len(fates) < 2:
        return fates[0] if fates else SMOOTH
    losses = [fate for fate in fates if fate.is_request_lost or fate.is_reply_lost] or fates
    return Fate(
        request_delay_s=max(fate.request_delay_s for fate in fates),
        is_request_lost=any(fate.is_request_lost for fate in fates),
        reply_delay_s=max(fate.reply_delay_s for fate in fates),
        is_reply_lost=any(fate.is_reply_lost for fate in fates),
        repeated_after_s=min((fate.repeated_after_s for fate in fates if fate.repeated_after_s is not None), default=None),
        notices_loss_after_s=min((fate.notices_loss_after_s for fate in losses if fate.notices_loss_after_s is not None), default=None),
        is_cancelled_at_server=all(fate.is_cancelled_at_server for fate in losses),
    )


class FairWeather:
    """Nothing ever goes wrong."""

    def fate_of(self, call: CallOnItsWay, /) -> Fate:
        return SMOOTH

    def fate_of_message(self, message: MessageOnItsWay, /) -> Fate:
        return SMOOTH

    def is_parted(self, source: str, target: str, /) -> bool:
        return False
