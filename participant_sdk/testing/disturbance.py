"""Makes the faults that a test asks for happen: on the network, at participants, and at the coordinator's commits."""

import asyncio
from collections.abc import Callable, Iterable, Sequence
from typing import Final

from coordinator.engine.ports import Append
from participant_sdk.testing.faults import FATES, USUAL, CallFault, CommitFault, Fault, Mishap, Moment, Refusal
from participant_sdk.testing.framed_fates import CallRequest, FramedFates
from participant_sdk.testing.ledger import Call
from participant_sdk.testing.simulated_journal import PROMPT, CommitFate
from participant_sdk.testing.weather import SMOOTH, CallOnItsWay, Fate, MessageOnItsWay
from saga.v1 import participant_pb2

_EXECUTE: Final = "/saga.v1.ParticipantService/Execute"
_COMPENSATE: Final = "/saga.v1.ParticipantService/Compensate"
_EXCHANGE: Final = "/saga.v1.ParticipantService/Exchange"
_COMMIT_S: Final = 0.0001
"""How long the commit takes that a coordinator does not live to see."""


class Disturbance:
    """Implements `Weather`, `Disk` and `Observer`. A fault happens once, a refusal each time."""

    def __init__(self, faults: Iterable[Fault], *, crash: Callable[[], None], cancel: Callable[[], None]) -> None:
        """`crash`: the coordinator dies at this instant. `cancel`: every saga under way is to be cancelled."""
        self._crash = crash
        self._cancel = cancel
        self._pending: list[CallFault | CommitFault] = []
        self._refused: set[str] = set()
        self.calls: list[Call] = []
        """What has arrived at participants, in that order."""
        self.left: dict[CallFault, None] = {}
        """What has left the coordinator, as the fault that could have happened to it on its way, without its mishap."""
        self.commits: int = 0
        """Commits of events so far."""
        self._heard: list[Callable[[], None]] = []
        self._framed = FramedFates(lambda _, request: self._fate_of_attempt(request))
        for fault in faults:
            self.add(fault)

    def add(self, fault: Fault) -> None:
        """From now on it may happen."""
        if isinstance(fault, Refusal):
            self._refused.add(fault.step_id)
        else:
            self._pending.append(fault)

    @property
    def pending(self) -> tuple[Fault, ...]:
        """What has not happened so far."""
        return tuple(self._pending)

    def on_commit(self, callback: Callable[[], None]) -> None:
        """Called after each commit, whether or not the coordinator lives to hear of it."""
        self._heard.append(callback)

    # ── Weather ─────────────────────────────────────────────────────────────────────────────────────────────────────────────────

    def is_parted(self, source: str, target: str, /) -> bool:
        return False

    def fate_of(self, call: CallOnItsWay, /) -> Fate:
        if call.method not in (_EXECUTE, _COMPENSATE):
            return SMOOTH
        kind = participant_pb2.CompensateRequest if call.method == _COMPENSATE else participant_pb2.ExecuteRequest
        return self._fate_of_attempt(kind.FromString(call.request))

    def fate_of_message(self, message: MessageOnItsWay, /) -> Fate:
        return self._framed.fate_of(message) if message.call.method == _EXCHANGE else SMOOTH

    def _fate_of_attempt(self, request: CallRequest) -> Fate:
        is_undo = isinstance(request, participant_pb2.CompensateRequest)
        self.left[CallFault(request.step_id, is_undo, request.attempt, Mishap.DELAYED)] = None
        fate = USUAL
        for fault in [each for each in self._pending if _is_about(each, request.step_id, request.attempt, is_undo=is_undo)]:
            assert isinstance(fault, CallFault)
            if fault.mishap in FATES:
                fate = FATES[fault.mishap]
                self._pending.remove(fault)
            elif fault.mishap is Mishap.DIES_BEFORE:
                self._pending.remove(fault)
                asyncio.get_running_loop().call_soon(self._crash)
        return fate

    # ── Disk ────────────────────────────────────────────────────────────────────────────────────────────────────────────────────

    def fate_of_commit(self, number: int) -> CommitFate:
        self.commits = max(self.commits, number)
        if self._takes(CommitFault(number, Moment.DIES_BEFORE)):
            asyncio.get_running_loop().call_soon(self._crash)
            return CommitFate(takes_s=_COMMIT_S)
        return PROMPT

    def committed(self, number: int) -> None:
        if self._takes(CommitFault(number, Moment.DIES_AFTER)):
            self._crash()
        for callback in self._heard:
            callback()

    def told(self, number: int) -> None:
        if self._takes(CommitFault(number, Moment.CANCEL)):
            self._cancel()

    # ── Observer ────────────────────────────────────────────────────────────────────────────────────────────────────────────────

    def arrived(self, call: Call, /) -> None:
        self.calls.append(call)

    def answered(self, call: Call, /) -> None:
        if self._takes(CallFault(call.step_id, call.is_undo, call.attempt, Mishap.DIES_AFTER)):
            self._crash()

    def is_refused(self, step_id: str, /) -> bool:
        return step_id in self._refused

    def dies(self, call: Call, /) -> bool:
        return self._takes(CallFault(call.step_id, call.is_undo, call.attempt, Mishap.PARTICIPANT_DIES))

    def _takes(self, fault: CallFault | CommitFault) -> bool:
        if fault not in self._pending:
            return False
        self._pending.remove(fault)
        return True


class DisturbedDisk:
    """The `Disk` of a disturbance: both ask for the fate of something, and mean different things."""

    def __init__(self, disturbance: Disturbance) -> None:
        self._disturbance = disturbance

    def fate_of(self, number: int, appends: Sequence[Append], /) -> CommitFate:
        return self._disturbance.fate_of_commit(number)

    def committed(self, number: int, appends: Sequence[Append], /) -> None:
        self._disturbance.committed(number)

    def told(self, number: int, appends: Sequence[Append], /) -> None:
        self._disturbance.told(number)


def _is_about(fault: CallFault | CommitFault, step_id: str, attempt: int, *, is_undo: bool) -> bool:
    return isinstance(fault, CallFault) and (fault.step_id, fault.attempt, fault.is_undo) == (step_id, attempt, is_undo)
