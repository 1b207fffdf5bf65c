"""How a row gets where it goes: an event to the publisher, the start of a saga to the coordinator. What came of it is a value."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Final, Protocol, TypeAlias

from opentelemetry import context as context_api
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace import SpanKind
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from participant_sdk.client.errors import AlreadyExists, CoordinatorUnavailable, InvalidRequest
from participant_sdk.outbox.errors import BrokerUnavailable, PublishRefused
from participant_sdk.outbox.events import Publisher
from participant_sdk.outbox.store import TakenRow
from participant_sdk.outbox.table import OutboxKind
from saga.v1 import coordinator_pb2

_PROPAGATOR: Final = TraceContextTextMapPropagator()


@dataclass(frozen=True, slots=True)
class Delivered:
    """It is where it goes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused:
    """It will never be taken."""

    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Unavailable:
    """Nobody can be reached, whatever the row: not held against it."""

    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Broken:
    """It came to nothing, or nobody knows what it came to: tried again, and counted."""

    why: str


Delivery: TypeAlias = Delivered | Refused | Unavailable | Broken


class SagaStarter(Protocol):
    """What sends prepared starts: a `SagaClient`."""

    async def start_prepared(self, request: coordinator_pb2.StartSagaRequest, /, *, timeout: timedelta | None = None) -> object:  # noqa: ASYNC109 - as SagaClient has it
        """See `SagaClient.start_prepared`."""


class Courier(Protocol):
    """Takes rows of one kind where they go. Never raises."""

    @property
    def kind(self) -> OutboxKind:
        """Which rows."""

    async def deliver(self, row: TakenRow, time_limit: timedelta, /) -> Delivery:
        """Once, for so long at most."""


class EventCourier:
    """Implements `Courier` by a publisher."""

    kind: Final = OutboxKind.EVENT

    def __init__(self, publisher: Publisher) -> None:
        self._publisher = publisher
        self._tracer = trace.get_tracer("participant_sdk.outbox")

    async def deliver(self, row: TakenRow, time_limit: timedelta, /) -> Delivery:
        attributes = {"messaging.operation.type": "send", "messaging.destination.name": row.topic, "messaging.message.id": row.id}
        with self._tracer.start_as_current_span(
            f"publish {row.topic}", context=_context_of(row), kind=SpanKind.PRODUCER, attributes=attributes
        ) as span:
            delivery = await _limited(lambda: self._publisher.publish(row.event()), _judge_publishing, time_limit)
            if not isinstance(delivery, Delivered):
                span.set_status(trace.Status(trace.StatusCode.ERROR, delivery.why))
            return delivery


class StartCourier:
    """Implements `Courier` by the coordinator."""

    kind: Final = OutboxKind.SAGA_START

    def __init__(self, client: SagaStarter) -> None:
        self._client = client

    async def deliver(self, row: TakenRow, time_limit: timedelta, /) -> Delivery:
        # The saga's trace goes on from who wrote the row, as if it had been started there.
        token = context_api.attach(_context_of(row))
        try:
            # A little longer than the client goes on trying: what it says of the coordinator is better than that its time was over.
            return await _limited(lambda: self._start(row, 0.9 * time_limit), _judge_start, time_limit)
        finally:
            context_api.detach(token)

    async def _start(self, row: TakenRow, time_limit: timedelta) -> None:
        await self._client.start_prepared(coordinator_pb2.StartSagaRequest.FromString(row.payload), timeout=time_limit)


async def _limited(send: Callable[[], Awaitable[object]], judge: Callable[[Exception], Delivery], time_limit: timedelta) -> Delivery:
    limit = asyncio.timeout(time_limit.total_seconds())
    try:
        async with limit:
            await send()
    except asyncio.CancelledError:
        task = asyncio.current_task()
        if task is None or task.cancelling():
            raise
        return Broken(why="the call was cancelled, and not by the relay")  # As by a connection that is being closed.
    except Exception as error:
        if limit.expired() and isinstance(error, TimeoutError):
            return Broken(why=f"no answer within {time_limit.total_seconds():g} s")
        return judge(error)
    return Delivered()


def _judge_publishing(error: Exception) -> Delivery:
    match error:
        case PublishRefused():
            return Refused(why=_said(error))
        case BrokerUnavailable():
            return Unavailable(why=_said(error))
        case _:
            return Broken(why=_said(error))


def _judge_start(error: Exception) -> Delivery:
    match error:
        # Its definition may not be registered yet where services are deployed side by side: that is tried again, like all else.
        case InvalidRequest() | AlreadyExists():
            return Refused(why=_said(error))
        case CoordinatorUnavailable():
            return Unavailable(why=_said(error))
        case _:
            return Broken(why=_said(error))


def _said(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"


def _context_of(row: TakenRow) -> Context:
    carrier = {"traceparent": row.traceparent, "tracestate": row.tracestate}
    # A context of its own: what happens to be current in the relay is nobody's parent.
    return _PROPAGATOR.extract({name: value for name, value in carrier.items() if value}, Context())
