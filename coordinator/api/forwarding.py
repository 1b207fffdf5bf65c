"""Requests about sagas that another node drives are answered by that node: one hop, and never another one (R33)."""

import functools
from collections.abc import Awaitable, Callable
from typing import Any, Final, Protocol, TypeVar

import grpc
from google.protobuf.message import Message

from coordinator.api.caller import FORWARDED, Caller, caller_of, is_forwarded
from coordinator.api.errors import CallContext, RefusedError, status_of, unavailable
from coordinator.codec.completion_tokens import CompletionTokens
from coordinator.core.values import SagaId
from coordinator.engine.engine import Engine
from coordinator.engine.shards import Shards
from participant_sdk.completion_token import TokenInvalidError
from participant_sdk.ids import parse_saga_id
from participant_sdk.rpc_errors import ErrorReason, abort_with, from_rpc_error

TIME_LIMIT_S: Final = 10.0
"""For the other node, if the caller has set none."""

Stub = Callable[[grpc.aio.Channel], Any]
OpenChannel = Callable[[str], grpc.aio.Channel]
_Request = TypeVar("_Request", bound=Message)
_Response = TypeVar("_Response", bound=Message)


class ForwardingService(Protocol):
    """A service some of whose methods are answered by the node that drives the saga."""

    @property
    def forwarding(self) -> "Forwarding":
        """What knows that node."""

    @property
    def stub(self) -> "Stub":
        """How the service is called there."""


_ServiceT = TypeVar("_ServiceT", bound=ForwardingService)
_Method = Callable[[_ServiceT, _Request, CallContext], Awaitable[_Response]]


class Forwarding:
    """Knows who drives a saga, and how to reach that node."""

    def __init__(self, *, engine: Engine, shards: Shards, tokens: CompletionTokens, open_channel: OpenChannel) -> None:
        self._engine = engine
        self._shards = shards
        self._tokens = tokens
        self._open_channel = open_channel
        self._channels: dict[str, grpc.aio.Channel] = {}

    async def address_for(self, request: Message, context: CallContext) -> str | None:
        """Where the request is to be answered; None: here."""
        saga_id = self._saga_of(request)
        return None if saga_id is None or is_forwarded(context) else await self.address_of(saga_id)

    async def address_of(self, saga_id: SagaId) -> str | None:
        """Where the node is that drives a saga; None: here. Refuses if nobody drives it now."""
        if saga_id in self._engine.held:
            return None
        place = await self._shards.owner_of(saga_id)
        if place is None or place.is_here:
            return None
        if not place.address:
            raise unavailable(ErrorReason.SHUTTING_DOWN, f"no node drives saga {saga_id} now; send the same request again")
        return place.address

    @property
    def may_start_elsewhere(self) -> bool:
        """Whether sagas have no place here, so that another node has to be looked for."""
        return self._shards.is_shared and not self._shards.has_place

    async def address_for_start(self) -> str | None:
        """Where a saga is to be started that has no place here; None: here, be it only to be refused."""
        if not self.may_start_elsewhere:
            return None
        others = [node for node in await self._shards.nodes() if node.is_alive and node.shards and not node.is_here]
        return others[0].address if others else None

    async def pass_on(self, stub: Stub, method: str, address: str, request: Message, caller: Caller) -> Any:
        """The answer of another node, in the trace of the caller. Raises RefusedError with what that says."""
        carried = [(name, value) for name, value in (("traceparent", caller.traceparent), ("tracestate", caller.tracestate)) if value]
        try:
            return await getattr(stub(self.channel_to(address)), method)(
                request,
                timeout=TIME_LIMIT_S if caller.time_left_s is None else caller.time_left_s,
                metadata=((FORWARDED, "1"), *carried),
            )
        except grpc.aio.AioRpcError as error:
            raise RefusedError(from_rpc_error(error)) from error

    def channel_to(self, address: str) -> grpc.aio.Channel:
        """A way to another node, kept open. What is asked on it is to be marked with FORWARDED."""
        channel = self._channels.get(address)
        if channel is None:
            channel = self._channels[address] = self._open_channel(address)
        return channel

    async def aclose(self) -> None:
        """Closes the ways to other nodes."""
        channels, self._channels = self._channels, {}
        for channel in channels.values():
            await channel.close()

    def _saga_of(self, request: Any) -> SagaId | None:
        """The saga that a request is about; None if it names none that can be read: then it is refused here."""
        try:
            if "completion_token" in request.DESCRIPTOR.fields_by_name:
                return SagaId(self._tokens.read(request.completion_token).saga_id)
            return SagaId(parse_saga_id(request.saga_id))
        except (TokenInvalidError, ValueError):
            return None


def answers_as_owner(method: _Method[_ServiceT, _Request, _Response]) -> _Method[_ServiceT, _Request, _Response]:
    """Wraps a unary method: it is run by the node that drives the saga, and whatever it raises becomes a status."""

    @functools.wraps(method)
    async def answered(self: _ServiceT, request: _Request, context: CallContext) -> _Response:
        try:
            address = await self.forwarding.address_for(request, context)
            if address is None:
                return await method(self, request, context)
            answer: _Response = await self.forwarding.pass_on(self.stub, method.__name__, address, request, caller_of(context))
        except Exception as error:
            status = status_of(error, method.__name__)
        else:
            return answer
        return await abort_with(context, status)

    return answered
