"""Many starts on one stream: the coordinator's end of `StartSagas`."""

import asyncio
from collections.abc import Callable, Sequence
from functools import partial
from typing import Final, Protocol

from coordinator.api.caller import Caller
from coordinator.api.checks import find_unreadable, refuse_if_any
from coordinator.api.errors import RefusedError, status_of
from coordinator.api.starts import Awaited, Starts, Told
from coordinator.api.waits import OpenWaits, closing
from coordinator.core.values import MICROS_PER_SECOND
from coordinator.engine.commands import StartCommand
from participant_sdk.definitions.durations import micros_of
from participant_sdk.framed_replies import FramedReplies, not_understood, put_off
from saga.v1 import coordinator_pb2

OPEN_STARTS_MAX: Final = 16_384
"""Starts under way on one stream; further ones are put off."""

_Answer = coordinator_pb2.StartSagaResponse


class StartReader(Protocol):
    """Makes commands of requests."""

    def read_now(self, request: coordinator_pb2.StartSagaRequest, caller: Caller) -> StartCommand | None:
        """The start that a request asks for; None: that cannot be told without waiting. Raises RefusedError."""

    async def answer(self, request: coordinator_pb2.StartSagaRequest, caller: Caller) -> _Answer:
        """Starts it, here or where it belongs, and answers, however long that takes. Raises RefusedError."""


class StartStream(FramedReplies[coordinator_pb2.StartCall, coordinator_pb2.StartReply, coordinator_pb2.StartSagasResponse]):
    """One stream, from its beginning to its end. When that comes, the sagas go on."""

    def __init__(self, reader: StartReader, starts: Starts, waits: OpenWaits) -> None:
        super().__init__()
        self._reader = reader
        self._starts = starts
        self._open: dict[int, Callable[[], object]] = {}
        """What forsakes each."""
        self._closed: asyncio.Future[None] = waits.add(asyncio.get_running_loop().create_future())
        self._closed.add_done_callback(self._close)

    def _begin(self, call: coordinator_pb2.StartCall) -> None:
        if call.id in self._open or not call.HasField("start"):
            self._reply(coordinator_pb2.StartReply(id=call.id, status=not_understood("with what is to be started")))
        elif len(self._open) >= OPEN_STARTS_MAX:
            self._reply(coordinator_pb2.StartReply(id=call.id, status=put_off(OPEN_STARTS_MAX)))
        else:
            self._start(call)

    def _start(self, call: coordinator_pb2.StartCall) -> None:
        request, number = call.start, call.id
        told = partial(self._tell, number)
        self._open[number] = _nothing_yet
        try:
            caller = _caller_of(call)
            command = self._reader.read_now(request, caller)
            if command is None:
                forsake: Callable[[], object] = asyncio.get_running_loop().create_task(self._answer(request, caller, told)).cancel
            else:
                forsake = self._starts.begin(command, told, awaited=Awaited.by(request)).forsake
        except Exception as error:
            told(RefusedError(status_of(error, "StartSagas")))
        else:
            if number in self._open:  # or it was answered at once
                self._open[number] = forsake

    async def _answer(self, request: coordinator_pb2.StartSagaRequest, caller: Caller, told: Told) -> None:
        try:
            answer = await self._reader.answer(request, caller)
        except Exception as error:
            told(RefusedError(status_of(error, "StartSagas")))
        else:
            told(answer)

    def _tell(self, number: int, answer: _Answer | RefusedError) -> None:
        if self._open.pop(number, None) is None:
            return
        if isinstance(answer, RefusedError):
            self._reply(coordinator_pb2.StartReply(id=number, status=answer.status))
        else:
            self._reply(coordinator_pb2.StartReply(id=number, started=answer))

    def _forsake(self, number: int) -> None:
        forsake = self._open.pop(number, None)
        if forsake is not None:
            forsake()

    @property
    def _is_idle(self) -> bool:
        return not self._open

    async def _abandon(self) -> None:
        self._closed.cancel()
        for number in tuple(self._open):
            self._forsake(number)

    def _close(self, closed: "asyncio.Future[None]") -> None:
        """The coordinator goes away: whoever waits is told so, and sends nothing more here."""
        if closed.cancelled() or closed.exception() is None:
            return
        self.drain()
        for number, forsake in tuple(self._open.items()):
            self._tell(number, closing())
            forsake()

    def _frame(self, replies: Sequence[coordinator_pb2.StartReply], *, draining: bool) -> coordinator_pb2.StartSagasResponse:
        return coordinator_pb2.StartSagasResponse(replies=replies, draining=draining)


def _caller_of(call: coordinator_pb2.StartCall) -> Caller:
    time_left_s: float | None = None
    if call.HasField("time_left"):
        refuse_if_any(find_unreadable(lambda: micros_of(call.time_left), "time_left"))
        time_left_s = micros_of(call.time_left) / MICROS_PER_SECOND
    return Caller(time_left_s, call.traceparent, call.tracestate)


def _nothing_yet() -> None:
    """It has not begun to wait."""
