"""What may happen to calls between processes of a simulation."""

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


class Weather(Protocol):
    """Decides what happens to calls."""

    def fate_of(self, call: CallOnItsWay, /) -> Fate:
        """Asked once for each call, before it leaves."""

    def is_parted(self, source: str, target: str, /) -> bool:
        """Whether nothing gets from one to the other now, in either direction."""


class FairWeather:
    """Nothing ever goes wrong."""

    def fate_of(self, call: CallOnItsWay, /) -> Fate:
        return SMOOTH

    def is_parted(self, source: str, target: str, /) -> bool:
        return False
