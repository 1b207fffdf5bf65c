"""gRPC channels, one per target, made when first used."""

import asyncio
from collections.abc import Callable, Container
from types import TracebackType
from typing import Final, TypeAlias

import grpc

from coordinator.dispatcher.exchange import exchange_on
from participant_sdk.framed_calls import NotCarriedOutError, WithdrawnError
from saga.v1 import participant_pb2_grpc

MESSAGE_BYTES_MAX: Final = 4 * 1024 * 1024 + 64 * 1024
"""Largest message in either direction."""
CHANNEL_OPTIONS: Final = (
    ("grpc.max_receive_message_length", MESSAGE_BYTES_MAX),
    ("grpc.max_send_message_length", MESSAGE_BYTES_MAX),
    # A participant that was restarted is found again within 2 s, not within gRPC's default of 2 min.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 5_000),  # despite its name: how long one try to connect may take
    ("grpc.max_reconnect_backoff_ms", 2_000),
    # A gRPC server that was not told otherwise allows a ping every 5 min: with more it cut the connection, and every call on it, after
    # 4 min of one long call (seen). A dead peer is noticed in time without pings, because unanswered bytes of a call are.
    ("grpc.keepalive_time_ms", 360_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.enable_retries", 0),  # the coordinator repeats by its own rules; a hidden repetition would be an attempt nobody counts
    ("grpc.lb_policy_name", "round_robin"),
    # gRPC shares connections between channels that look alike: whoever gives up a connection that is dead would get it back.
    ("grpc.use_local_subchannel_pool", 1),
)


OpenChannel: TypeAlias = Callable[[str], grpc.aio.Channel]
"""Opens a channel to a target. It connects when it is first used."""


def open_channel(target: str) -> grpc.aio.Channel:
    """A channel as coordinators open them."""
    return grpc.aio.insecure_channel(target, options=CHANNEL_OPTIONS)


class Connection:
    """A channel, the stub on it and its streams, how many calls are under way there, and how many were answered."""

    __slots__ = ("answers", "channel", "exchange", "stub", "target", "under_way")

    def __init__(self, target: str, channel: grpc.aio.Channel, may_send: Callable[[], bool]) -> None:
        self.target = target
        self.channel = channel
        self.stub: participant_pb2_grpc.ParticipantServiceAsyncStub = participant_pb2_grpc.ParticipantServiceStub(self.channel)
        self.exchange = exchange_on(self.stub, may_send)
        self.under_way = 0
        self.answers = 0


class Use:
    """Of a connection by one call, which it is not closed under; looks how the call ends."""

    __slots__ = ("_answers", "_give_up", "connection")

    def __init__(self, connection: Connection, give_up: Callable[[Connection], None]) -> None:
        self.connection = connection
        self._give_up = give_up
        self._answers = connection.answers

    def begin(self) -> None:
        """The call is made now."""
        self.connection.under_way += 1

    def end(self, error: BaseException | None) -> None:
        """The call has ended; None: with an answer."""
        connection = self.connection
        connection.under_way -= 1
        if isinstance(error, grpc.aio.AioRpcError) and error.code() is grpc.StatusCode.DEADLINE_EXCEEDED:
            if connection.answers == self._answers:
                self._give_up(connection)
        elif not isinstance(error, (asyncio.CancelledError, NotCarriedOutError, WithdrawnError)):
            connection.answers += 1

    def __enter__(self) -> Connection:
        self.begin()
        return self.connection

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.end(error)


class Channels:
    """Owns every channel to a participant.

    One on which nothing was answered while a call waited until its deadline is given up: what calls find next is a new connection. A peer
    that is only slow loses nothing by that, since calls under way keep the old one; but what stands between, such as a load balancer, can
    take bytes for ever of which nobody hears, and gRPC itself would not notice for minutes (above).
    """

    def __init__(self, opened_by: OpenChannel = open_channel, may_send: Callable[[], bool] = lambda: True) -> None:
        """`may_send`: whether calls may leave at this very moment (R31)."""
        self._open_channel = opened_by
        self._may_send = may_send
        self._connections: dict[str, Connection] = {}
        self._given_up: list[Connection] = []

    def use(self, target: str) -> Use:
        """The connection to a target, for one call. Connects when the first call is made."""
        connection = self._connections.get(target)
        if connection is None:
            connection = self._connections[target] = Connection(target, self._open_channel(target), self._may_send)
        return Use(connection, self._give_up)

    def is_cut_off(self, target: str) -> bool:
        """Whether it was tried to connect and nobody could be reached since. gRPC goes on trying by itself; asking costs 0.1 µs. A call
        would fail at once without being sent, which gRPC does not say of a call that was made.
        """
        connection = self._connections.get(target)
        return connection is not None and connection.channel.get_state() is grpc.ChannelConnectivity.TRANSIENT_FAILURE

    def drop(self, targets: Container[str]) -> list[grpc.aio.Channel]:
        """Forgets the channels to all other targets; returns them, to be closed. One with calls under way stays until a later time:
        closing it would cut them, and a call that is cut here is answered by nobody.
        """
        gone = [target for target, connection in self._connections.items() if target not in targets and not connection.under_way]
        return [self._connections.pop(target).channel for target in gone]

    def take_idle(self) -> list[grpc.aio.Channel]:
        """The channels that were given up and have no call under way any more, each once; to be closed."""
        if not self._given_up:
            return []
        idle = [connection.channel for connection in self._given_up if not connection.under_way]
        self._given_up = [connection for connection in self._given_up if connection.under_way]
        return idle

    async def aclose(self) -> None:
        """Closes all channels; calls under way are cancelled."""
        connections = [*self._connections.values(), *self._given_up]
        self._connections, self._given_up = {}, []
        for connection in connections:
            await connection.channel.close()

    def _give_up(self, connection: Connection) -> None:
        if self._connections.get(connection.target) is connection:
            del self._connections[connection.target]
            self._given_up.append(connection)
