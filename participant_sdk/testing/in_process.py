"""gRPC without sockets: servers and channels of one process, over a network whose faults somebody decides.

What is generated from the .proto files works on them as it does on those of grpc.aio, and messages travel as bytes. A call is lost, late,
doubled or cut as its `Fate` says; a server that crashes cuts the calls that it has.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from types import TracebackType
from typing import Any, NoReturn, Self, cast

import grpc

from participant_sdk.testing.in_process_server import INITIAL_METADATA, InProcessServer, Metadata, ServedCall
from participant_sdk.testing.in_process_streams import TwoWayCall, rpc_error
from participant_sdk.testing.suspension import Suspension
from participant_sdk.testing.weather import CallOnItsWay, FairWeather, Fate, Weather


class Network:
    """Who listens at which address."""

    def __init__(self, weather: Weather | None = None) -> None:
        self.weather: Weather = FairWeather() if weather is None else weather
        self._servers: dict[str, InProcessServer] = {}
        self._suspensions: dict[str, Suspension] = {}
        self._balanced: dict[str, tuple[str, ...]] = {}
        self._calls = 0

    def server(self, suspension: Suspension | None = None) -> InProcessServer:
        """A server that can listen here; calls to it wait while its process is stopped."""
        return InProcessServer(self, Suspension() if suspension is None else suspension)

    def balance(self, address: str, targets: Sequence[str]) -> None:
        """Calls to that address go to those of the targets where somebody listens, in turns."""
        self._balanced[address] = tuple(targets)

    def suspend_with(self, source: str, suspension: Suspension) -> None:
        """Nothing reaches the process of that name while it is stopped."""
        self._suspensions[source] = suspension

    async def until_awake(self, source: str) -> None:
        """Waits while the process of that name is stopped."""
        suspension = self._suspensions.get(source)
        if suspension is not None:
            await suspension.passed()

    def channel(self, target: str, *, source: str = "client") -> grpc.aio.Channel:
        """A channel to an address, whether or not somebody listens there, for the process of that name."""
        # The generated stubs ask for no more than is here.
        return cast("grpc.aio.Channel", InProcessChannel(self, source, target))

    def listen(self, address: str, server: InProcessServer) -> None:
        """From now on calls to that address go there."""
        if address in self._servers:
            raise RuntimeError(f"somebody listens at {address} already")
        self._servers[address] = server

    def leave(self, server: InProcessServer) -> None:
        """Nobody listens there any more."""
        self._servers = {address: each for address, each in self._servers.items() if each is not server}

    def find_server(self, call: CallOnItsWay) -> InProcessServer | None:
        """Who gets the call; None: it cannot be reached now."""
        return None if self.weather.is_parted(call.source, call.target) else self._servers.get(call.target)

    def is_reachable(self, source: str, target: str) -> bool:
        """Whether a connection could be made now."""
        target = self._balance(target, self._calls)
        return target in self._servers and not self.weather.is_parted(source, target)

    def describe_call(self, source: str, target: str, method: str, request: bytes) -> CallOnItsWay:
        """A call that is about to leave."""
        self._calls += 1
        target = self._balance(target, self._calls)
        return CallOnItsWay(source=source, target=target, method=method, request=request, number=self._calls - 1)

    def _balance(self, target: str, number: int) -> str:
        targets = self._balanced.get(target)
        if targets is None:
            return target
        listening = [each for each in targets if each in self._servers] or targets
        return listening[number % len(listening)]


# ── Channels ─────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────


class InProcessChannel:
    """Stands in for `grpc.aio.Channel`."""

    def __init__(self, network: Network, source: str, target: str) -> None:
        self._network = network
        self._source = source
        self._target = target
        self._has_failed = False
        self._calls: dict[asyncio.Task[Any] | TwoWayCall, None] = {}

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self.close()

    async def close(self, grace: float | None = None) -> None:
        """Cuts the calls that are under way."""
        for call in list(self._calls):
            call.cancel()

    def get_state(self, try_to_connect: bool = False) -> grpc.ChannelConnectivity:
        """Whether it was tried to connect and nobody can be reached since."""
        if not self._has_failed or self._network.is_reachable(self._source, self._target):
            self._has_failed = False
            return grpc.ChannelConnectivity.IDLE
        return grpc.ChannelConnectivity.TRANSIENT_FAILURE

    def unary_unary(
        self, method: str, request_serializer: Callable[[Any], bytes], response_deserializer: Callable[[bytes], Any], **_: object
    ) -> Callable[..., Coroutine[Any, Any, Any]]:
        async def call(
            request: Any,
            *,
            timeout: float | None = None,  # noqa: ASYNC109 - as gRPC names it
            metadata: Sequence[tuple[str, str | bytes]] | None = None,
        ) -> Any:
            on_its_way = self._network.describe_call(self._source, self._target, method, request_serializer(request))
            return response_deserializer(await self._call(on_its_way, tuple(metadata or ()), timeout))

        return call

    def unary_stream(
        self, method: str, request_serializer: Callable[[Any], bytes], response_deserializer: Callable[[bytes], Any], **_: object
    ) -> "Callable[..., _Stream]":
        def call(request: Any, *, timeout: float | None = None, metadata: Sequence[tuple[str, str | bytes]] | None = None) -> _Stream:
            on_its_way = self._network.describe_call(self._source, self._target, method, request_serializer(request))
            return _Stream(self._stream(on_its_way, tuple(metadata or ()), timeout), response_deserializer)

        return call

    def stream_unary(self, method: str, *_: object, **__: object) -> Callable[..., Any]:
        return _unsupported(method)

    def stream_stream(
        self, method: str, request_serializer: Callable[[Any], bytes], response_deserializer: Callable[[bytes], Any], **_: object
    ) -> Callable[..., TwoWayCall]:
        def call(*, timeout: float | None = None, metadata: Sequence[tuple[str, str | bytes]] | None = None) -> TwoWayCall:
            two_way = TwoWayCall(
                self._network,
                self._network.describe_call(self._source, self._target, method, b""),
                serialize=request_serializer,
                deserialize=response_deserializer,
                metadata=tuple(metadata or ()),
                timeout_s=timeout,
                ended=self._two_way_ended,
            )
            self._calls[two_way] = None
            return two_way

        return call

    def _two_way_ended(self, call: TwoWayCall) -> None:
        self._calls.pop(call, None)
        self._has_failed = self._has_failed or call.is_unreachable

    # ── One call ────────────────────────────────────────────────────────────────────────────────────────────────────────────────

    async def _call(self, call: CallOnItsWay, metadata: Metadata, timeout_s: float | None) -> bytes:
        task = asyncio.current_task()
        if task is not None:
            self._calls[task] = None
        try:
            try:
                async with asyncio.timeout(timeout_s):
                    return await self._travel(call, metadata, timeout_s)
            finally:
                await self._network.until_awake(call.source)
        except TimeoutError as error:
            raise rpc_error(grpc.StatusCode.DEADLINE_EXCEEDED, "Deadline Exceeded") from error
        finally:
            if task is not None:
                self._calls.pop(task, None)

    async def _travel(self, call: CallOnItsWay, metadata: Metadata, timeout_s: float | None) -> bytes:
        loop, fate = asyncio.get_running_loop(), self._network.weather.fate_of(call)
        ends_at = None if timeout_s is None else loop.time() + timeout_s
        served = await self._deliver(call, metadata, fate, ends_at)
        try:
            message = await served.next_message()
            if fate.is_reply_lost or self._network.weather.is_parted(call.source, call.target):
                await _lose(fate)
            if fate.reply_delay_s:
                await asyncio.sleep(fate.reply_delay_s)
        except BaseException:
            if fate.is_cancelled_at_server:
                served.forsake()
            raise
        if message is None:
            raise self._end_of(served)
        return message

    async def _deliver(self, call: CallOnItsWay, metadata: Metadata, fate: Fate, ends_at: float | None) -> ServedCall:
        loop = asyncio.get_running_loop()
        if self._network.find_server(call) is None:
            self._has_failed = True
            raise rpc_error(grpc.StatusCode.UNAVAILABLE, f"failed to connect to {self._target}")
        if fate.request_delay_s:
            await asyncio.sleep(fate.request_delay_s)
        left_s = None if ends_at is None else ends_at - loop.time()
        if fate.repeated_after_s is not None:
            loop.call_later(fate.repeated_after_s, self._deliver_again, call, metadata, left_s)
        if fate.is_request_lost:
            await _lose(fate)
        server = self._network.find_server(call)
        if server is None:
            raise rpc_error(grpc.StatusCode.UNAVAILABLE, f"the connection to {self._target} broke")
        return server.begin(call, metadata, left_s)

    def _deliver_again(self, call: CallOnItsWay, metadata: Metadata, time_left_s: float | None) -> None:
        server = self._network.find_server(call)
        if server is not None:
            server.begin(call, metadata, time_left_s)

    async def _stream(self, call: CallOnItsWay, metadata: Metadata, timeout_s: float | None) -> AsyncIterator[bytes]:
        fate = self._network.weather.fate_of(call)
        ends_at = None if timeout_s is None else asyncio.get_running_loop().time() + timeout_s
        served: ServedCall | None = None
        try:
            async with asyncio.timeout(timeout_s):
                served = await self._deliver(call, metadata, fate, ends_at)
                if fate.is_reply_lost:
                    await _lose(fate)
                while (message := await served.next_message()) is not None:
                    await self._network.until_awake(call.source)
                    if self._network.weather.is_parted(call.source, call.target):
                        raise rpc_error(grpc.StatusCode.UNAVAILABLE, "the connection broke")
                    yield message
        except TimeoutError as error:
            raise rpc_error(grpc.StatusCode.DEADLINE_EXCEEDED, "Deadline Exceeded") from error
        finally:
            if served is not None:
                served.forsake()
        if served.code is not grpc.StatusCode.OK:
            raise self._end_of(served)

    def _end_of(self, served: ServedCall) -> grpc.aio.AioRpcError:
        code = served.code if served.code not in (None, grpc.StatusCode.OK) else grpc.StatusCode.INTERNAL
        assert code is not None
        return rpc_error(code, served.details, served.trailing_metadata)


class _Stream:
    """What a stub answers to a call whose answer is a stream."""

    def __init__(self, messages: AsyncIterator[bytes], deserialize: Callable[[bytes], Any]) -> None:
        self._messages = messages
        self._deserialize = deserialize
        self._first: bytes | None = None
        """Of the messages, if it has come with the initial metadata."""
        self._error: grpc.aio.AioRpcError | None = None
        """With which it ended before anything came."""
        self._is_done = False

    def __aiter__(self) -> AsyncIterator[Any]:
        return self._read()

    async def _read(self) -> AsyncIterator[Any]:
        if self._error is not None:
            raise self._error
        if self._first is not None:
            yield self._deserialize(self._first)
        async for message in self._messages:
            if message is not INITIAL_METADATA:
                yield self._deserialize(message)

    async def initial_metadata(self) -> Metadata:
        """Waits for it. It comes before the first message at the latest."""
        try:
            first = await anext(self._messages, None)
        except grpc.aio.AioRpcError as error:
            self._error, first = error, None
        self._is_done = first is None
        if first is not INITIAL_METADATA:
            self._first = first
        return ()

    def done(self) -> bool:
        """Whether it has ended before anything came."""
        return self._is_done

    def cancel(self) -> bool:
        """Its reader stops by itself; the server is told when the stream is closed."""
        return True


async def _lose(fate: Fate) -> NoReturn:
    """Waits until the loss is noticed: by a broken connection, or by the deadline around this."""
    if fate.notices_loss_after_s is None:
        await asyncio.get_running_loop().create_future()
    else:
        await asyncio.sleep(fate.notices_loss_after_s)
    raise rpc_error(grpc.StatusCode.UNAVAILABLE, "the connection broke")


def _unsupported(method: str) -> Callable[..., Any]:
    def call(*_: object, **__: object) -> NoReturn:
        raise NotImplementedError(f"{method}: a stream with a single answer is not carried in process")

    return call
