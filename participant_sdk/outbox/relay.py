"""What publishes the rows of an outbox, in the background of a service or in a process of its own."""

import asyncio
import contextlib
import logging
from types import TracebackType
from typing import Final, Self

from participant_sdk.clock import Clock, micros_of
from participant_sdk.outbox.couriers import Courier, EventCourier, SagaStarter, StartCourier
from participant_sdk.outbox.database import AnyEngine
from participant_sdk.outbox.desk import Desk
from participant_sdk.outbox.errors import OutboxUnavailableError
from participant_sdk.outbox.events import Publisher
from participant_sdk.outbox.hints import Hint
from participant_sdk.outbox.metrics import RelayMetrics
from participant_sdk.outbox.outbox import Outbox
from participant_sdk.outbox.policy import RelayPolicy
from participant_sdk.outbox.store import STEP_ROWS
from participant_sdk.shielding import outlast

logger = logging.getLogger(__name__)

STOP_TIME_LIMIT_S: Final = 30.0
"""How long a relay that is to stop goes on trying to write down what it did. After that its leases end by themselves."""
DELETED_PER_ROUND_MAX: Final = 100_000
"""Rows forgotten in one round at most: the next one comes soon."""


class OutboxRelay:
    """Publishes what an outbox holds: events through `publisher`, starts of sagas through `client`.

        async with OutboxRelay(engine, orders, publisher=publisher, client=client):
            await server.serve()

    Any number of relays, in any number of processes, share the work. At least once: a relay that dies while it has rows leaves them to the
    others when its lease has ended, and what it had published by then is published again, with the same id. Rows of one topic and key are
    published in their order, which a repetition does not disturb: no event arrives for the first time before one that was written
    earlier. A FAILED row holds back those behind it until it is redriven or discarded.

    `engine`: of the database, of either kind; it stays yours. With `publisher` None events are left to other relays, with `client` None
    starts are. A database that is away is waited for.
    """

    def __init__(
        self,
        engine: AnyEngine,
        outbox: Outbox,
        *,
        publisher: Publisher | None = None,
        client: SagaStarter | None = None,
        policy: RelayPolicy | None = None,
        clock: Clock | None = None,
    ) -> None:
        """`client`: a SagaClient. `clock`: None for the database's own; a test may bring its own."""
        couriers: list[Courier] = []
        if publisher is not None:
            couriers.append(EventCourier(publisher))
        if client is not None:
            couriers.append(StartCourier(client))
        if not couriers:
            raise ValueError("a relay needs publisher=… for events, client=… for starts of sagas, or both")
        self._couriers = couriers
        self._outbox = outbox
        self._store = outbox.store(engine, clock=clock)
        self._policy = policy or RelayPolicy()
        self._metrics = RelayMetrics(outbox.table_name)
        self._desks: list[Desk] = []
        self._hint = Hint(self.wake)
        self._loop: asyncio.AbstractEventLoop | None = None
        """Where it runs; None: it does not."""
        self._news = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._is_stopping = False
        self._faults = 0
        """How often in a row the database could not be used."""
        self._tidy_at_s = 0.0

    async def __aenter__(self) -> Self:
        """Begins to publish in the background. Raises OutboxTableMissingError, OutboxUnavailableError."""
        self._begin()
        try:
            await self._store.check()
        except BaseException:
            self._loop = None
            raise
        self._task = asyncio.get_running_loop().create_task(self._work())
        self._task.add_done_callback(_tell_of_fault)
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Takes no more, and returns when what is under way has ended and is written down."""
        task, self._task = self._task, None
        if task is not None:
            self.stop()
            await outlast(task)

    async def run(self) -> None:
        """Publishes until cancelled, or stopped by `stop`; then ends like `async with`. Raises what that raises at its beginning."""
        self._begin()
        try:
            await self._store.check()
        except BaseException:
            self._loop = None
            raise
        await outlast(asyncio.get_running_loop().create_task(self._work()), when_cancelled=self.stop)

    def stop(self) -> None:
        """Asks it to take no more and to end. From the thread of its loop."""
        self._is_stopping = True
        for desk in self._desks:
            desk.stop()
        self._news.set()

    def wake(self) -> None:
        """Has it look at once: something was committed. From any thread; does nothing if it does not run."""
        loop = self._loop
        if loop is not None:
            with contextlib.suppress(RuntimeError):  # The loop was closed in this instant.
                loop.call_soon_threadsafe(self._look_soon)

    def _begin(self) -> None:
        if self._loop is not None:
            raise RuntimeError("this OutboxRelay runs already; make another one to have two")
        self._loop = asyncio.get_running_loop()
        self._is_stopping = False
        self._news = asyncio.Event()
        self._outbox.hints.add(self._hint)

    def _look_soon(self) -> None:
        for desk in self._desks:
            desk.look_soon()
        self._news.set()

    async def _work(self) -> None:
        self._desks = [Desk(courier, self._policy, self._metrics, self._news.set) for courier in self._couriers]
        if self._is_stopping:
            self.stop()
        try:
            async with asyncio.TaskGroup() as runs:
                await self._turns(runs)
        finally:
            self._loop = None
            self._desks = []

    async def _turns(self, runs: asyncio.TaskGroup) -> None:
        """One database transaction at a time. What comes meanwhile goes into the next one together."""
        stop_at_s: float | None = None
        while True:
            self._news.clear()
            has_moved = await self._turn(runs)
            if self._is_stopping:
                if all(desk.is_empty for desk in self._desks):
                    return
                now_s = asyncio.get_running_loop().time()
                stop_at_s = stop_at_s if stop_at_s is not None else now_s + STOP_TIME_LIMIT_S
                if now_s > stop_at_s:
                    logger.error("an outbox relay ends without having written down what it did: it will be done again")
                    return
            if not has_moved:
                await self._wait()

    async def _turn(self, runs: asyncio.TaskGroup) -> bool:
        """Writes down what is done, takes what is due. Whether there was anything."""
        has_moved = False
        try:
            for desk in self._desks:
                has_moved |= await self._settle(desk)
            for desk in self._desks:
                has_moved |= await desk.look(self._store, runs) > 0
            await self._tidy()
        except OutboxUnavailableError as error:
            self._faults += 1
            logger.warning("the outbox %s waits for its database: %s", self._outbox.table_name, error)
            return False
        self._faults = 0
        return has_moved

    async def _settle(self, desk: Desk) -> bool:
        outcomes = desk.take_outcomes()
        if not outcomes:
            return False
        try:
            await self._store.settle(outcomes)
        except BaseException:
            desk.keep(outcomes)
            raise
        desk.forget(outcomes)
        return True

    async def _wait(self) -> None:
        pause_s = self._policy.poll_s(self._faults) if self._faults else min(desk.pause_s() for desk in self._desks)
        if self._faults:
            # News must not make it ask a database that is away all the more often.
            await asyncio.sleep(pause_s)
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(pause_s):
                await self._news.wait()

    async def _tidy(self) -> None:
        """Forgets what was published long ago, and measures the backlog, from time to time."""
        now_s = asyncio.get_running_loop().time()
        if self._is_stopping or now_s < self._tidy_at_s:
            return
        # Drawn, so that several relays do not all come at once.
        self._tidy_at_s = now_s + self._policy.chance.uniform(0.5, 1) * self._policy.retention_interval.total_seconds()
        age_us, total = micros_of(self._policy.retention), 0
        while total < DELETED_PER_ROUND_MAX:
            deleted = await self._store.delete_published(age_us=age_us)
            self._metrics.count_deleted(deleted)
            total += deleted
            if deleted < STEP_ROWS:
                break
        self._metrics.measure(await self._store.statistics())


def _tell_of_fault(task: "asyncio.Task[None]") -> None:
    if not task.cancelled() and task.exception() is not None:
        logger.error("an outbox relay has ended by a fault of its own", exc_info=task.exception())
