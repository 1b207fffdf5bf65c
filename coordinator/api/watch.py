"""Watching a saga: the journal, from a sequence on, and then what is committed. No gaps, nothing twice (H2, R33)."""

import asyncio
from collections.abc import AsyncIterator
from typing import Final

import grpc

from coordinator.api.errors import refusal
from coordinator.api.waits import OpenWaits
from coordinator.codec.events import decode_event
from coordinator.core.events import (
    Event,
    Fact,
    OutputResolved,
    SagaStarted,
    SagaTerminated,
    SagaTurnedBack,
    StepDue,
    StepRejected,
    StepResolved,
    StepRetried,
    StepSucceeded,
    StepUnknown,
)
from coordinator.core.plan import ON_FAILURE, ON_SUCCESS
from coordinator.core.transitions import saga_status_after
from coordinator.core.values import ENDED, SagaId, SagaStatus
from coordinator.engine.engine import Engine
from coordinator.engine.hints import Hints
from coordinator.engine.ports import Journal
from participant_sdk.rpc_errors import ErrorReason
from saga.v1 import coordinator_pb2, saga_pb2

WATCHES_MAX: Final = 10_000
"""Watches at the same time; more are refused."""
PAGE_EVENTS: Final = 500
LOOK_AGAIN_S: Final = 0.25
"""How often the journal is looked at for a saga that another node drives."""
_HOOKS: Final = frozenset({ON_SUCCESS, ON_FAILURE})


class Watches:
    """Sends events as they are committed.

    A watcher keeps no queue: a commit only wakes it, and it reads on in the journal from where it is. So a slow one costs nothing, and the
    order of subscribing and reading cannot lose an event.
    """

    def __init__(
        self, engine: Engine, journal: Journal, waits: OpenWaits, *, hints: Hints | None = None, page_events: int = PAGE_EVENTS
    ) -> None:
        """`hints`: of commits of other nodes that drive sagas of the same journal; None: there are none."""
        self._engine = engine
        self._journal = journal
        self._waits = waits
        self._hints = hints
        self._page_events = page_events
        self._count = 0

    async def watch(self, saga_id: SagaId, after: int) -> AsyncIterator[coordinator_pb2.WatchSagaResponse]:
        """The events of a saga after a sequence, until it has ended and its hook is at rest (R15, R16)."""
        if self._count >= WATCHES_MAX:
            message = f"{WATCHES_MAX} watches are open already; close some, or read the history instead"
            raise refusal(grpc.StatusCode.RESOURCE_EXHAUSTED, ErrorReason.REQUEST_INVALID, message)
        committed = asyncio.Event()
        unsubscribe = self._engine.subscribe(saga_id, committed.set)  # subscribe, THEN read (R33)
        leave = unsubscribe if self._hints is None else self._hints.wait_for(saga_id, committed.set)
        self._count += 1
        try:
            async for response in self._follow(saga_id, after, committed):
                yield response
        finally:
            self._count -= 1
            unsubscribe()
            leave()

    async def _follow(self, saga_id: SagaId, after: int, committed: asyncio.Event) -> AsyncIterator[coordinator_pb2.WatchSagaResponse]:
        sequence, progress = 0, Progress()
        while True:
            committed.clear()
            page = await self._journal.read_events(saga_id, sequence, self._page_events)
            for encoded in page:
                progress.note(decode_event(encoded))
                sequence += 1
                if sequence > after:  # events before that are read only for the status they led to
                    event = saga_pb2.Event.FromString(encoded)
                    yield coordinator_pb2.WatchSagaResponse(event=event, status=saga_pb2.SagaStatus.ValueType(progress.status or 0))
            if progress.is_over and len(page) < self._page_events:
                return  # everything there is was read: a hook that failed may have been tried again further on
            if not page:
                await self._woken(committed, self._look_again_s(saga_id))

    def _look_again_s(self, saga_id: SagaId) -> float | None:
        """When to look although nobody has told of a commit; None: whoever commits tells."""
        if self._hints is None or saga_id in self._engine.held:
            return None
        self._hints.ask(saga_id)
        return LOOK_AGAIN_S

    async def _woken(self, committed: asyncio.Event, look_again_s: float | None) -> None:
        closing = self._waits.add(asyncio.get_running_loop().create_future())
        woken = asyncio.ensure_future(committed.wait())
        try:
            await asyncio.wait((woken, closing), timeout=look_again_s, return_when=asyncio.FIRST_COMPLETED)
            if closing.done():
                closing.result()  # raises: the coordinator goes away
        finally:
            woken.cancel()
            closing.cancel()


class Progress:
    """How far a saga has come, as far as a watcher must know: a fold over its events that keeps no payloads."""

    def __init__(self) -> None:
        self.status: SagaStatus | None = None
        """None before the first event."""
        self._has_turned_back = False
        self._is_terminated = False
        self._hook_moves = False

    @property
    def is_over(self) -> bool:
        """Whether it has ended and its hook is at rest. FAILED is no end, unless a person made it one (R15, R16)."""
        return (self.status in ENDED or self._is_terminated) and not self._hook_moves

    def note(self, event: Event) -> None:
        """Takes the next event."""
        fact = event.fact
        self._has_turned_back |= isinstance(fact, SagaTurnedBack)
        self._is_terminated |= isinstance(fact, SagaTerminated)
        self.status = saga_status_after(self.status, fact, self._proposed(fact))
        if isinstance(fact, StepRetried):
            self._hook_moves |= fact.step_id in _HOOKS
        elif isinstance(fact, StepResolved):
            self._hook_moves &= fact.step_id not in _HOOKS
        elif isinstance(fact, StepSucceeded | StepRejected | StepUnknown):
            self._hook_moves &= fact.attempt.step_id not in _HOOKS
        self._hook_moves |= any(isinstance(reached, StepDue) and reached.step_id in _HOOKS for reached in event.reached)

    def _proposed(self, fact: Fact) -> SagaStatus | None:
        """The status after a fact that may lead to several."""
        if isinstance(fact, SagaStarted):
            return SagaStatus.RUNNING if fact.start_at is None else SagaStatus.PENDING
        if self.status is SagaStatus.FAILED and isinstance(fact, StepRetried | StepResolved | OutputResolved):
            if self._is_terminated:
                return SagaStatus.FAILED
            return SagaStatus.COMPENSATING if self._has_turned_back else SagaStatus.RUNNING
        return None
