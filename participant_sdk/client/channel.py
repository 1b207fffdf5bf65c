"""How a channel to a coordinator is opened."""

from enum import Enum
from typing import Final

import grpc

MESSAGE_BYTES_MAX: Final = 4 * 1024 * 1024 + 64 * 1024
"""Largest message in either direction: 4 MiB of content and room for what is around it."""

_KEEPALIVE_MS: Final = 10_000
"""A coordinator that vanished without a word, by power or network, is noticed after this and the timeout below: before a client with the
default timeout gives up. What stands between may go on taking bytes, so that TCP notices nothing. Coordinators allow a ping every 5 s."""
_PING_TIMEOUT_MS: Final = 10_000
_RECONNECT_MIN_MS: Final = 100
_CONNECT_TIMEOUT_MS: Final = 5_000
"""How long one try to connect may take."""
_CONNECT_TIMEOUT_AMONG_MANY_MS: Final = 1_000
"""The same, where there are other nodes to try: one that does not answer at all, by power or network, is left soon."""
_RECONNECT_MAX_MS: Final = 2_000
"""gRPC's own default grows to two minutes: far longer than a coordinator takes to restart."""

_OPTIONS: Final = (
    ("grpc.max_send_message_length", MESSAGE_BYTES_MAX),
    ("grpc.max_receive_message_length", MESSAGE_BYTES_MAX),
    ("grpc.keepalive_time_ms", _KEEPALIVE_MS),
    ("grpc.keepalive_timeout_ms", _PING_TIMEOUT_MS),
    # gRPC sends pings of its own to measure, and while one of them is not answered, for 60 s by default, no other is sent.
    ("grpc.http2.ping_timeout_ms", _PING_TIMEOUT_MS),
    ("grpc.http2.max_pings_without_data", 0),  # for as long as a silent wait lasts; by default gRPC stops after two
    # A new channel is a new connection, also while an old one to the same coordinator is still open.
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.initial_reconnect_backoff_ms", _RECONNECT_MIN_MS),
    ("grpc.max_reconnect_backoff_ms", _RECONNECT_MAX_MS),
    # gRPC would repeat some calls by itself; here repeating, its bound and its backoff stand in one place (calls.py).
    ("grpc.enable_retries", 0),
)


class Patience(Enum):
    """How long one try to connect may take, in milliseconds."""

    ALONE = _CONNECT_TIMEOUT_MS
    """There is no other node to try."""
    AMONG_MANY = _CONNECT_TIMEOUT_AMONG_MANY_MS
    """There are others."""


def open_channel(address: str, credentials: grpc.ChannelCredentials | None = None, patience: Patience = Patience.ALONE) -> grpc.aio.Channel:
    """A channel to `address`, which connects when it is first used. Without `credentials` it has no TLS: for loopback, unix sockets and
    private networks.
    """
    options = (*_OPTIONS, ("grpc.min_reconnect_backoff_ms", patience.value))  # despite its name
    if credentials is None:
        return grpc.aio.insecure_channel(address, options=options)
    return grpc.aio.secure_channel(address, credentials, options=options)
