"""What can be made to go wrong in a test, by name: so that the same can be made to go wrong again.

A fault is written as text and read back: "charge/execute/1: reply lost", "commit 3: the coordinator dies after it", "charge: refused".
"""

import re
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, TypeAlias, TypeVar

from participant_sdk.testing.weather import Fate

TRAVEL_S: Final = 0.001
"""How long a request and a reply travel, so that something can happen meanwhile."""
LATE_S: Final = 90.0
"""How late what is late arrives: when attempts are over, and usually the saga too."""
NOTICED_S: Final = 0.2
"""How long it takes to notice a broken connection."""
AWAY_S: Final = 1.0
"""How long a coordinator that died stays away."""


class Mishap(StrEnum):
    """What can happen to one attempt of a call to a participant. Each only once: the next attempt goes well."""

    REQUEST_LOST = "request lost"
    REPLY_LOST = "reply lost"
    REPLY_LOST_UNNOTICED = "reply lost, and only the deadline tells"
    REQUEST_TWICE = "request arrives twice"
    REQUEST_AGAIN = "request arrives again much later"
    REQUEST_LATE = "request lost, and arrives much later"
    DELAYED = "delayed"
    PARTICIPANT_DIES = "participant dies before its commit"
    DIES_BEFORE = "the coordinator dies while the request travels"
    DIES_AFTER = "the coordinator dies while the reply travels"


class Moment(StrEnum):
    """What can happen at a commit of the coordinator."""

    DIES_BEFORE = "the coordinator dies before it"
    DIES_AFTER = "the coordinator dies after it"
    CANCEL = "cancel is asked for after it"


@dataclass(frozen=True, slots=True)
class CallFault:
    """Something happens to one attempt of a call."""

    step_id: str
    is_undo: bool
    attempt: int
    mishap: Mishap

    def __str__(self) -> str:
        return f"{self.step_id}/{'compensate' if self.is_undo else 'execute'}/{self.attempt}: {self.mishap}"


@dataclass(frozen=True, slots=True)
class CommitFault:
    """Something happens at a commit of the coordinator."""

    number: int
    """From 1: commits of events; those of definitions do not count."""
    moment: Moment

    def __str__(self) -> str:
        return f"commit {self.number}: {self.moment}"


@dataclass(frozen=True, slots=True)
class Refusal:
    """A participant refuses a step, each time that it is asked."""

    step_id: str

    def __str__(self) -> str:
        return f"{self.step_id}: refused"


Fault: TypeAlias = CallFault | CommitFault | Refusal

_KindT = TypeVar("_KindT", Mishap, Moment)

_CALL: Final = re.compile(r"(?P<step>\w+)/(?P<direction>execute|compensate)/(?P<attempt>\d+): (?P<what>.+)")
_COMMIT: Final = re.compile(r"commit (?P<number>\d+): (?P<what>.+)")
_REFUSAL: Final = re.compile(r"(?P<step>\w+): refused")


def parse_faults(text: str) -> tuple[Fault, ...]:
    """What `describe_faults` wrote. Raises ValueError with what was expected."""
    return tuple(_parse(part.strip()) for part in text.split(";") if part.strip())


def describe_faults(faults: tuple[Fault, ...]) -> str:
    """Faults in one line."""
    return "; ".join(map(str, faults))


def _parse(text: str) -> Fault:
    if found := _CALL.fullmatch(text):
        mishap = _member(Mishap, found["what"], text)
        return CallFault(found["step"], found["direction"] == "compensate", int(found["attempt"]), mishap)
    if found := _COMMIT.fullmatch(text):
        return CommitFault(int(found["number"]), _member(Moment, found["what"], text))
    if found := _REFUSAL.fullmatch(text):
        return Refusal(found["step"])
    raise ValueError(f'expected "STEP/execute/1: {Mishap.REPLY_LOST}", "commit 1: {Moment.DIES_AFTER}" or "STEP: refused", found {text!r}')


def _member(kind: type[_KindT], what: str, text: str) -> _KindT:
    try:
        return kind(what)
    except ValueError as error:
        raise ValueError(f"{text!r}: expected one of {', '.join(map(repr, map(str, kind)))}") from error


FATES: Final[dict[Mishap, Fate]] = {
    Mishap.REQUEST_LOST: Fate(is_request_lost=True, notices_loss_after_s=NOTICED_S),
    Mishap.REPLY_LOST: Fate(request_delay_s=TRAVEL_S, is_reply_lost=True, notices_loss_after_s=NOTICED_S),
    Mishap.REPLY_LOST_UNNOTICED: Fate(request_delay_s=TRAVEL_S, is_reply_lost=True),
    Mishap.REQUEST_TWICE: Fate(request_delay_s=TRAVEL_S, reply_delay_s=TRAVEL_S, repeated_after_s=0.0),
    Mishap.REQUEST_AGAIN: Fate(request_delay_s=TRAVEL_S, reply_delay_s=TRAVEL_S, repeated_after_s=LATE_S),
    Mishap.REQUEST_LATE: Fate(is_request_lost=True, notices_loss_after_s=NOTICED_S, repeated_after_s=LATE_S),
    Mishap.DELAYED: Fate(request_delay_s=1.0, reply_delay_s=1.0),
}
"""What the network does. The mishaps that are not here happen at its ends."""
USUAL: Final = Fate(request_delay_s=TRAVEL_S, reply_delay_s=TRAVEL_S)
