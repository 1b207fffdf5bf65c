"""What a test gives the kit to serve, and the processes that are made of it."""

import inspect
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from dataclasses import dataclass
from typing import Any, Final, TypeAlias, cast

import grpc

from participant_sdk.barrier.guarded import GuardedBarrier
from participant_sdk.client import SagaClient
from participant_sdk.clock import Clock
from participant_sdk.participant import Participant
from participant_sdk.servicer import ParticipantServicer
from participant_sdk.testing.errors import KitError
from participant_sdk.testing.in_process import Network
from participant_sdk.testing.in_process_server import InProcessServer
from participant_sdk.testing.memory_barrier import MemoryDatabase
from participant_sdk.testing.observed_calls import Observer
from participant_sdk.testing.observing import ObservedBarrier, ObservedServicer
from participant_sdk.testing.stubs import Stub, StubbedParticipant, serve_stubs
from saga.v1 import participant_pb2_grpc


@dataclass(frozen=True, slots=True)
class Servicer:
    """A participant that is written without the SDK, or in front of it."""

    name: str
    """Of the participant: the part of its actions before the dot."""
    servicer: participant_pb2_grpc.ParticipantServiceServicer


One: TypeAlias = Participant | Stub[Any, Any] | Servicer
Made: TypeAlias = "One | Iterable[One]"
Part: TypeAlias = (
    "One | Sequence[One] | Callable[[], Made] | Callable[[], Awaitable[Made]] | Callable[[], AbstractAsyncContextManager[Made]]"
)
"""A participant, a stub, several of them, or a function that makes them: plain, async, or an async context manager, left at the end."""


async def make_parts(parts: Iterable[Part], stack: AsyncExitStack) -> list[One]:
    """What the parts come to, made now, in the loop of the test. What they open is closed with the stack."""
    made: list[One] = []
    for part in parts:
        value: object = part
        if callable(value) and not isinstance(value, (Participant, Stub, Servicer)):
            value = value()
        if isinstance(value, AbstractAsyncContextManager):
            value = await stack.enter_async_context(value)
        elif inspect.isawaitable(value):
            value = await value
        made += _checked(value)
    return made


def _checked(value: object) -> list[One]:
    ones = [value] if isinstance(value, (Participant, Stub, Servicer)) else list(value) if isinstance(value, Iterable) else [value]
    for one in ones:
        if not isinstance(one, (Participant, Stub, Servicer)):
            raise KitError(f"expected a Participant, stub(…), Servicer(name, …), or a function that makes some; found {one!r}")
    return cast("list[One]", ones)


class Process:
    """What serves one participant at an address of the simulated network."""

    def __init__(self, name: str, servicer: participant_pb2_grpc.ParticipantServiceServicer, participants: Sequence[Participant]) -> None:
        self.name: Final = name
        self.address: Final = f"{name}:1"
        self._servicer = servicer
        self.participants: Final = participants
        """What it serves, if that is written with the SDK."""
        self._server: InProcessServer | None = None

    async def start(self, network: Network, client: SagaClient) -> None:
        """Serves."""
        for participant in self.participants:
            participant.tell_completions_to(client)
        self._server = network.server()
        participant_pb2_grpc.add_ParticipantServiceServicer_to_server(self._servicer, cast("grpc.aio.Server", self._server))
        self._server.add_insecure_port(self.address)
        await self._server.start()

    async def stop(self) -> None:
        """Takes no more calls, and cuts those under way."""
        if self._server is not None:
            await self._server.stop(0.0)
        for participant in self.participants:
            participant.tell_completions_to(None)
            if isinstance(participant, StubbedParticipant):
                participant.close()


def processes_of(ones: Iterable[One], *, observer: Observer, clock: Clock, client: SagaClient) -> list[Process]:
    """One process for each participant. Raises KitError if two things serve the same."""
    own: dict[str, Participant | Servicer] = {}
    stubs: dict[str, dict[str, Stub[Any, Any]]] = defaultdict(dict)
    ones = list(ones)
    for one in ones:
        name = one.participant_name if isinstance(one, Participant) else one.name if isinstance(one, Servicer) else ""
        if name and name in own:
            raise KitError(f"two things serve the participant {name!r}; serve one of them")
        if not isinstance(one, Stub):
            own[name] = one
    for one in ones:
        if isinstance(one, Stub):
            _take_stub(one, own, stubs)
    processes = [_process_of(name, one, observer, clock) for name, one in own.items()]
    for name, of_participant in stubs.items():
        stubbed = serve_stubs(name, of_participant.values(), database=MemoryDatabase(), client=client, clock=clock)
        processes.append(_process_of(name, stubbed, observer, clock))
    return processes


def _take_stub(one: Stub[Any, Any], own: dict[str, Participant | Servicer], stubs: dict[str, dict[str, Stub[Any, Any]]]) -> None:
    name = one.participant
    if name in own:
        if one.is_default:
            return
        raise KitError(f"{one.action} is stubbed, and {name!r} is served by {own[name]!r}; a participant is either real or stubbed")
    before = stubs[name].get(one.action)
    if before is not None and not before.is_default and not one.is_default:
        raise KitError(f"two stubs stand in for {one.action}; say all of it in one")
    if before is None or before.is_default:
        stubs[name][one.action] = one


def _process_of(name: str, one: Participant | Servicer, observer: Observer, clock: Clock) -> Process:
    if isinstance(one, Servicer):
        return Process(name, ObservedServicer(one.servicer, observer, has_sdk=False), ())
    barrier = one.barrier
    if isinstance(barrier, GuardedBarrier):
        barrier.follow(clock)
    servicer = ParticipantServicer(one, clock=clock, barrier_of=lambda participant: ObservedBarrier(participant.barrier, observer))
    return Process(name, ObservedServicer(servicer, observer, has_sdk=True), (one,))
