"""What a dispatcher is tested with: calls, a listener that remembers, and a stand that every implementation is put on.

An implementation joins the suite by a `MakeDispatcher` in `IMPLEMENTATIONS`.
"""

import asyncio
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import NoReturn, Protocol

import grpc
import pytest
from google.protobuf.message import Message

from coordinator.codec.completion_tokens import CompletionTokens
from coordinator.codec.services import compile_service
from coordinator.core.effects import CallParticipant
from coordinator.core.inputs import Outcome, Replied
from coordinator.core.plan import OutputCheck, accept_any_output
from coordinator.core.values import AttemptKey, DefinitionKey, Direction, Instant, Payload, SagaId, StepId, TraceContext, idempotency_key
from coordinator.dispatcher import GrpcDispatcher, ParticipantRegistry
from coordinator.dispatcher.channels import Channels
from coordinator.dispatcher.services import Services
from coordinator.engine.ports import Clock, Dispatcher, ReplyListener, Whereabouts
from coordinator.limits import ParticipantLimits
from participant_sdk.ids import new_saga_id
from saga.v1 import participant_pb2
from tests.builders import TRACE, at, seconds
from tests.plain_service import service_of

CONCURRENCY = 4
PAYLOAD_BYTES_MAX = 64 * 1024
WAIT_S = 10.0
"""How long a test waits for what must come."""
STRING = "google.protobuf.StringValue"


TOKENS = CompletionTokens(b"a secret of the tests, 32 bytes.")


class DispatcherUnderTest(Dispatcher, Whereabouts, Protocol):
    """What the suite needs beyond the ports of the engine."""

    def listen(self, listener: ReplyListener) -> None: ...

    async def describe(self, participant: str) -> participant_pb2.ParticipantDescription | None: ...

    async def aclose(self) -> None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How a dispatcher is to be made."""

    clock: Clock
    registry: ParticipantRegistry
    limits: ParticipantLimits
    """The same for every participant."""
    channels: Channels
    services: Services
    payload_bytes_max: int = PAYLOAD_BYTES_MAX
    may_send: Callable[[], bool] = lambda: True


MakeDispatcher = Callable[[Options], DispatcherUnderTest]


def make_grpc_dispatcher(options: Options) -> DispatcherUnderTest:
    return GrpcDispatcher(
        clock=options.clock,
        registry=options.registry,
        tokens=TOKENS,
        limits_of=lambda _: options.limits,
        payload_bytes_max=options.payload_bytes_max,
        channels=options.channels,
        services=options.services,
        may_send=options.may_send,
    )


IMPLEMENTATIONS: dict[str, MakeDispatcher] = dict.fromkeys(("one by one", "exchange", "service"), make_grpc_dispatcher)
"""The same dispatcher, to participants that serve calls by themselves only, to such that serve many on one stream, and to services that
know nothing of sagas."""
PARTICIPANTS = pytest.mark.parametrize("new_stand", ["one by one", "exchange"], indirect=True)
"""For what an existing service has not: a registration, wishes, an answer to Describe, outcomes that are more than a status."""


class Replies:
    """Remembers what was replied, and in which batches."""

    def __init__(self) -> None:
        self.batches: list[list[tuple[SagaId, Replied]]] = []
        self._came = asyncio.Condition()
        self._told: set[asyncio.Task[None]] = set()

    def replied(self, replies: Sequence[tuple[SagaId, Replied]], /) -> None:
        self.batches.append(list(replies))
        told = asyncio.get_running_loop().create_task(self._tell())
        self._told.add(told)
        told.add_done_callback(self._told.discard)

    @property
    def all(self) -> list[tuple[SagaId, Replied]]:
        return [reply for batch in self.batches for reply in batch]

    def of(self, call: CallParticipant) -> list[Replied]:
        """Every reply to that call: exactly one is right."""
        return [reply for saga_id, reply in self.all if (saga_id, reply.attempt) == (call.saga_id, call.attempt)]

    async def wait_for(self, count: int) -> list[tuple[SagaId, Replied]]:
        """Returns when that many replies have come."""
        async with asyncio.timeout(WAIT_S), self._came:
            await self._came.wait_for(lambda: len(self.all) >= count)
        return self.all

    async def to(self, call: CallParticipant) -> Replied:
        """The one reply to that call."""
        async with asyncio.timeout(WAIT_S), self._came:
            await self._came.wait_for(lambda: bool(self.of(call)))
        (reply,) = self.of(call)
        return reply

    async def outcome_of(self, call: CallParticipant) -> Outcome:
        """How that call ended."""
        return (await self.to(call)).outcome

    async def _tell(self) -> None:
        async with self._came:
            self._came.notify_all()


@dataclass(frozen=True, slots=True, kw_only=True)
class Stand:
    """A dispatcher and what surrounds it."""

    clock: Clock
    registry: ParticipantRegistry
    dispatcher: DispatcherUnderTest
    replies: Replies
    known_services: Services | None = None
    kind: str = "one by one"
    """What participants are: a key of IMPLEMENTATIONS."""

    @property
    def services(self) -> Services:
        assert self.known_services is not None
        return self.known_services

    async def register(
        self, target: str, name: str = "shop", *actions: str, ttl_s: float = 3_600, concurrency: int = 0, rate: float = 0
    ) -> None:
        if self.kind == "service":
            service, descriptors = service_of(name, target, *(actions or ("act",)))
            self.services.add(name, service, compile_service(name, service, descriptors))
            return
        description = described(name, *actions, concurrency=concurrency, rate=rate)
        description.exchange = self.kind == "exchange"
        await self.registry.register(target, description, seconds(ttl_s))


def described(
    name: str = "shop", *actions: str, concurrency: int = 0, rate: float = 0, input_type: str = STRING, output_type: str = STRING
) -> participant_pb2.ParticipantDescription:
    """What a participant says of itself; one action, `act`, unless others are named."""
    made = [
        participant_pb2.ActionDescription(name=action, input_type=input_type, output_type=output_type, compensatable=True)
        for action in actions or ("act",)
    ]
    return participant_pb2.ParticipantDescription(name=name, actions=made, concurrency=concurrency, rate_per_second=rate)


NewStand = Callable[..., AbstractAsyncContextManager[Stand]]


def call(
    action: str = "shop.act",
    *,
    direction: Direction = Direction.EXECUTE,
    number: int = 1,
    timeout_s: float = WAIT_S,
    send_before: Instant | None = None,
    output: Payload | None = None,
    value: bytes = b"\x0a\x01x",
    input_type: str = "",
    output_type: str = "",
    check_output: OutputCheck = accept_any_output,
    trace: TraceContext = TRACE,
    like: CallParticipant | None = None,
) -> CallParticipant:
    """A call of a saga of its own, or of the saga of another call."""
    saga_id, step_id = like.saga_id if like is not None else SagaId(new_saga_id()), StepId("step")
    return CallParticipant(
        saga_id=saga_id,
        definition=DefinitionKey("place-order", 3),
        attempt=AttemptKey(step_id, direction, 1, number),
        action=action,
        key=idempotency_key(saga_id, step_id, direction, 1),
        execute_key=idempotency_key(saga_id, step_id, Direction.EXECUTE, 1),
        input=Payload(STRING, value),
        first_attempt_at=at(1_700_000_000.25),
        timeout_us=seconds(timeout_s),
        send_before=send_before,
        output=output,
        input_type=input_type,
        output_type=output_type,
        check_output=check_output,
        trace=trace,
    )


async def hang(request: participant_pb2.ExecuteRequest, context: grpc.aio.ServicerContext[Message, Message]) -> NoReturn:
    """A participant that never answers."""
    await asyncio.Event().wait()
    raise AssertionError
