"""Many calls on one stream: the participant's end of `Exchange`.

Each has its own task, its own time, and is cut short when its caller goes away.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Final

from participant_sdk.framed_replies import FramedReplies, not_understood, put_off
from saga.v1 import participant_pb2

OPEN_CALLS_MAX: Final = 4_096
"""Calls under way on one stream; further ones are put off."""

Answer = Callable[[participant_pb2.ExchangeCall], Awaitable[participant_pb2.ExchangeReply]]
"""Answers one call, whatever comes of it. Cancelled when nobody waits for it any more."""


class ExchangeSession(FramedReplies[participant_pb2.ExchangeCall, participant_pb2.ExchangeReply, participant_pb2.ExchangeResponse]):
    """One stream, from its beginning to its end."""

    def __init__(self, answer: Answer) -> None:
        super().__init__()
        self._answer = answer
        self._open: dict[int, asyncio.Task[None]] = {}

    def _begin(self, call: participant_pb2.ExchangeCall) -> None:
        if call.id in self._open or call.WhichOneof("call") is None:
            status = not_understood("to execute or to compensate")
            self._reply(participant_pb2.ExchangeReply(id=call.id, status=status))
        elif len(self._open) >= OPEN_CALLS_MAX:
            self._reply(participant_pb2.ExchangeReply(id=call.id, status=put_off(OPEN_CALLS_MAX)))
        else:
            task = self._open[call.id] = asyncio.get_running_loop().create_task(self._run(call))
            task.add_done_callback(partial(self._note_end, call.id))

    async def _run(self, call: participant_pb2.ExchangeCall) -> None:
        self._reply(await self._answer(call))

    def _note_end(self, number: int, _: "asyncio.Task[None]") -> None:
        """Also of a call that was cut short before it began."""
        del self._open[number]
        if self._has_ended:
            self._ready.set()

    def _forsake(self, number: int) -> None:
        task = self._open.get(number)
        if task is not None:
            task.cancel()

    @property
    def _is_idle(self) -> bool:
        return not self._open

    async def _abandon(self) -> None:
        ending = tuple(self._open.values())
        for task in ending:
            task.cancel()
        await asyncio.gather(*ending, return_exceptions=True)

    def _frame(self, replies: Sequence[participant_pb2.ExchangeReply], *, draining: bool) -> participant_pb2.ExchangeResponse:
        return participant_pb2.ExchangeResponse(replies=replies, draining=draining)
