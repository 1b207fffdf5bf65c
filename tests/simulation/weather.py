"""What goes wrong between processes and on the coordinator's disk, as the options say."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from coordinator.engine.ports import Append
from participant_sdk.testing.framed_fates import CallRequest, FramedFates
from participant_sdk.testing.simulated_journal import PROMPT, CommitFate
from participant_sdk.testing.weather import SMOOTH, CallOnItsWay, Fate, MessageOnItsWay
from saga.v1 import participant_pb2
from tests.simulation.chance import Chance
from tests.simulation.options import Options

_KINDS: dict[str, type[CallRequest]] = {
    "/saga.v1.ParticipantService/Execute": participant_pb2.ExecuteRequest,
    "/saga.v1.ParticipantService/Compensate": participant_pb2.CompensateRequest,
}
_EXCHANGE = "/saga.v1.ParticipantService/Exchange"


@dataclass
class StormyWeather:
    """Implements `Weather`. Each call's fate follows from what is called, not from when."""

    options: Options
    chance: Chance
    tell: Callable[[str, str], None]
    """Saga and text, for the transcript."""
    leaves: Callable[[CallRequest, str], None]
    """Shown every call to a participant as it leaves, and whose it is: what justifies it must be committed by now."""
    is_calm: bool = True
    parted: set[frozenset[str]] = field(default_factory=set)
    """Pairs of a process and an address between which nothing gets through."""

    def __post_init__(self) -> None:
        self._framed = FramedFates(self._fate_of_framed)

    def is_parted(self, source: str, target: str, /) -> bool:
        return frozenset((source, target)) in self.parted

    def fate_of(self, call: CallOnItsWay, /) -> Fate:
        kind = _KINDS.get(call.method)
        if kind is None:
            return self._fate_of_clients("client call", call.number)
        return self._fate_of_call(kind.FromString(call.request), call.source, "leaves")

    def fate_of_message(self, message: MessageOnItsWay, /) -> Fate:
        if message.call.method == _EXCHANGE:
            return self._framed.fate_of(message)
        return self._fate_of_clients("client message", message.call.number, message.is_reply, message.number)

    def _fate_of_framed(self, stream: CallOnItsWay, request: CallRequest) -> Fate:
        return self._fate_of_call(request, stream.source, f"leaves on stream {stream.number}")

    def _fate_of_call(self, request: CallRequest, source: str, how: str) -> Fate:
        direction = "compensate" if isinstance(request, participant_pb2.CompensateRequest) else "execute"
        self.leaves(request, source)
        fate = SMOOTH if self.is_calm else self._fate_of_attempts(request.saga_id, (request.step_id, direction, request.attempt))
        self.tell(request.saga_id, f"{direction} {request.step_id} attempt {request.attempt} {how}{_shown(fate)}")
        return fate

    def _fate_of_clients(self, *what: object) -> Fate:
        share = self.chance.share(*what)
        if self.is_calm or share >= self.options.lost_client_calls:
            return SMOOTH
        return Fate(is_request_lost=share < self.options.lost_client_calls / 2, is_reply_lost=True, notices_loss_after_s=0.5)

    def _fate_of_attempts(self, saga_id: str, attempt: tuple[str, str, int]) -> Fate:
        options = self.options

        def asked(what: str) -> float:
            return self.chance.share(what, saga_id, *attempt)

        def delay(what: str) -> float:
            return asked(f"{what} by") * options.delayed_s if asked(f"{what} delayed") < options.delayed else 0.0

        is_lost = asked("request lost") < options.lost_requests
        repeated = options.repeated_requests * (10 if is_lost else 1)  # what was lost is what somebody on the way sends again
        return Fate(
            request_delay_s=delay("request"),
            is_request_lost=is_lost,
            reply_delay_s=delay("reply"),
            is_reply_lost=asked("reply lost") < options.lost_replies,
            repeated_after_s=asked("repeated by") ** 2 * options.repeated_after_s if asked("repeated") < repeated else None,
            notices_loss_after_s=None if asked("silent") < options.silent_losses else 0.2,
            is_cancelled_at_server=asked("unheard") >= options.unheard_cancellations,
        )


def _shown(fate: Fate) -> str:
    said = []
    if fate.is_request_lost:
        said.append("is lost")
    elif fate.is_reply_lost:
        said.append("its reply is lost")
    if fate.request_delay_s:
        said.append(f"arrives {fate.request_delay_s:.3f} s later")
    if fate.reply_delay_s:
        said.append(f"its reply travels {fate.reply_delay_s:.3f} s")
    if fate.repeated_after_s is not None:
        said.append(f"arrives again {fate.repeated_after_s:.3f} s later")
    return f" ({', '.join(said)})" if said else ""


@dataclass
class StormyDisk:
    """Implements `Disk`: commits that take long, fail, stay in doubt, or are the last thing that the coordinator does."""

    options: Options
    chance: Chance
    crash: Callable[[str], None]
    """The coordinator dies now; why, for the transcript."""
    later: Callable[[float, Callable[[], None]], object]
    name: str = ""
    """Of the coordinator that writes to it, where there are several."""
    is_calm: bool = True

    def fate_of(self, number: int, appends: Sequence[Append], /) -> CommitFate:
        if self.is_calm:
            return PROMPT
        if self._crashes(number) == "before":
            self.later(0.0, lambda: self.crash(f"before commit {number}"))
            return CommitFate(takes_s=0.001)
        options = self.options
        is_slow = self._share("slow commit", number) < options.slow_commits
        fails = self._share("failing commit", number) < options.failing_commits
        return CommitFate(
            takes_s=self._share("commit takes", number) * (0.5 if is_slow else 0.002),
            fails_for_s=self._share("fails for", number) * options.outage_s if fails else 0.0,
            told_after_s=self._share("told after", number) * (0.5 if is_slow else 0.002),
        )

    def committed(self, number: int, appends: Sequence[Append], /) -> None:
        if not self.is_calm and self._crashes(number) == "after":
            self.crash(f"after commit {number}, before anybody was told")

    def told(self, number: int, appends: Sequence[Append], /) -> None:
        if not self.is_calm and self._crashes(number) == "released":
            delay_s = self._share("released by", number) * 0.01
            self.later(delay_s, lambda: self.crash(f"when what commit {number} justifies was released"))

    def _crashes(self, number: int) -> str:
        if self._share("commit crash", number) >= self.options.commit_crashes:
            return ""
        return ("before", "after", "released")[int(self._share("commit crash when", number) * 3)]

    def _share(self, what: str, number: int) -> float:
        return self.chance.share(what, self.name, number)
