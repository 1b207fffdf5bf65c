"""Looking over the shoulder of a participant that is called in frames."""

import asyncio
import inspect
from collections.abc import AsyncIterator, Callable
from typing import TypeAlias

from participant_sdk.testing.framed_fates import requests_in
from participant_sdk.testing.ledger import Call, CallOutcome
from participant_sdk.testing.observed_calls import (
    REFUSED,
    Observer,
    current_call,
    note_end,
    note_response,
    note_status,
    noted_arrival,
)
from saga.v1 import participant_pb2

Frames: TypeAlias = AsyncIterator[participant_pb2.ExchangeRequest]


class ObservedStream:
    """One stream of frames, seen call by call."""

    def __init__(self, observer: Observer, *, has_sdk: bool) -> None:
        """`has_sdk`: whether the participant's barrier is an observed one, which sees to refusals itself."""
        self._observer = observer
        self._has_sdk = has_sdk
        self._open: dict[int, Call] = {}
        self._responses: asyncio.Queue[participant_pb2.ExchangeResponse | None] = asyncio.Queue()

    async def run(
        self,
        frames: AsyncIterator[participant_pb2.ExchangeRequest],
        serve: Callable[[AsyncIterator[participant_pb2.ExchangeRequest]], object],
    ) -> AsyncIterator[participant_pb2.ExchangeResponse]:
        """What the participant answers to the frames that it is given by `serve`."""
        serving = asyncio.get_running_loop().create_task(self._serve(serve(self._seen(frames))))
        try:
            while (response := await self._responses.get()) is not None:
                yield response
            await serving
        finally:
            serving.cancel()
            await asyncio.gather(serving, return_exceptions=True)
            for number in list(self._open):
                self._cut(number)

    async def _seen(self, frames: Frames) -> Frames:
        """The same calls, each in a frame of its own: so that its barrier knows, by the context that it is read in, which call it is."""
        async for frame in frames:
            for number in frame.forsaken:
                self._cut(number)
            yield participant_pb2.ExchangeRequest(forsaken=frame.forsaken)
            for (number, request), call in zip(requests_in(frame), frame.calls, strict=True):
                seen = self._open[number] = noted_arrival(request, self._observer)
                if not self._has_sdk and not seen.is_undo and self._observer.is_refused(seen.step_id):
                    self._relay(participant_pb2.ExchangeResponse(replies=[_refusal(number)]))
                    continue
                current_call.set(seen)
                yield participant_pb2.ExchangeRequest(calls=[call])

    async def _serve(self, responses: object) -> None:
        try:
            if inspect.isawaitable(responses):
                await responses  # it writes nothing, as one that aborts
            elif isinstance(responses, AsyncIterator):
                async for response in responses:
                    self._relay(response)
        finally:
            self._responses.put_nowait(None)

    def _relay(self, response: participant_pb2.ExchangeResponse) -> None:
        for reply in response.replies:
            call = self._open.pop(reply.id, None)
            if call is not None:
                self._note(call, reply)
        self._responses.put_nowait(response)

    def _note(self, call: Call, reply: participant_pb2.ExchangeReply) -> None:
        match reply.WhichOneof("reply"):
            case "executed":
                note_response(call, reply.executed)
            case "compensated":
                note_response(call, reply.compensated)
            case _:
                note_status(call, reply.status.code, reply.status.message)
        note_end(call, self._observer)

    def _cut(self, number: int) -> None:
        call = self._open.pop(number, None)
        if call is not None:
            call.outcome = CallOutcome.CUT
            note_end(call, self._observer)


def _refusal(number: int) -> participant_pb2.ExchangeReply:
    return participant_pb2.ExchangeReply(id=number, status=REFUSED.to_status())
