"""Watching a saga: the journal, from a sequence on, and then what is committed. No gaps, nothing twice (H2, R33)."""

import asyncio
from collections.abc import AsyncIterator
from typing import Final

import grpc

from coordinator.api.errors import refusal
from coordinator.api.waits import OpenWaits
from coordinator.codec.events import decode_event
from coordinator.core.events import SagaStarted
from coordinator.core.transitions import saga_status_after
from coordinator.core.values import ENDED, SagaId, SagaStatus
from coordinator.engine.engine import Engine
from coordinator.engine.ports import Journal
from participant_sdk.rpc_errors import ErrorReason
from saga.v1 import coordinator_pb2, saga_pb2

WATCHES_MAX: Final = 10_000
"""Watches at the same time; more are refused."""
PAGE_EVENTS: Final = 500


class Watches:
    """Sends events as they are committed.

    A watcher keeps no queue: a commit only wakes it, and it reads on in the journal from where it is. So a slow one costs nothing, and the
    order of subscribing and reading cannot lose an event.
    """

    def __init__(self, engine: Engine, journal: Journal, waits: OpenWaits) -> None:
        self._engine = engine
        self._journal = journal
        self._waits = waits
        self._count = 0

    async def watch(self, saga_id: SagaId, after: int) -> AsyncIterator[coordinator_pb2.WatchSagaResponse]:
        """The events of a saga after a sequence, until it has ended. FAILED is not an end (R15)."""
        if self._count >= WATCHES_MAX:
            message = f"{WATCHES_MAX} watches are open already; close some, or read the history instead"
            raise refusal(grpc.StatusCode.RESOURCE_EXHAUSTED, ErrorReason.REQUEST_INVALID, message)
        committed = asyncio.Event()
        unsubscribe = self._engine.subscribe(saga_id, committed.set)  # subscribe, THEN read (R33)
        self._count += 1
        try:
            async for response in self._follow(saga_id, after, committed):
                yield response
        finally:
            self._count -= 1
            unsubscribe()

    async def _follow(self, saga_id: SagaId, after: int, committed: asyncio.Event) -> AsyncIterator[coordinator_pb2.WatchSagaResponse]:
        sequence, status = 0, None
        while status not in ENDED:
            committed.clear()
            page = await self._journal.read_events(saga_id, sequence, PAGE_EVENTS)
            for encoded in page:
                status = _status_after(status, encoded)
                sequence += 1
                if sequence > after:  # events before that are read only for the status they led to
                    event = saga_pb2.Event.FromString(encoded)
                    yield coordinator_pb2.WatchSagaResponse(event=event, status=saga_pb2.SagaStatus.ValueType(status))
            if not page:
                await self._woken(committed)

    async def _woken(self, committed: asyncio.Event) -> None:
        closing = self._waits.add(asyncio.get_running_loop().create_future())
        woken = asyncio.ensure_future(committed.wait())
        try:
            await asyncio.wait((woken, closing), return_when=asyncio.FIRST_COMPLETED)
            if closing.done():
                closing.result()  # raises: the coordinator goes away
        finally:
            woken.cancel()
            closing.cancel()


def _status_after(before: SagaStatus | None, encoded: bytes) -> SagaStatus:
    fact = decode_event(encoded).fact
    proposed = None
    if isinstance(fact, SagaStarted):
        proposed = SagaStatus.RUNNING if fact.start_at is None else SagaStatus.PENDING
    return saga_status_after(before, fact, proposed)
