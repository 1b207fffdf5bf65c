"""How a channel to a coordinator is opened."""

from typing import Final

import grpc

MESSAGE_BYTES_MAX: Final = 4 * 1024 * 1024 + 64 * 1024
"""Largest message in either direction: 4 MiB of content and room for what is around it."""

_KEEPALIVE_MS: Final = 30_000
"""A coordinator that vanished without a word, by power or network, is noticed after this and the timeout below."""
_KEEPALIVE_TIMEOUT_MS: Final = 10_000
_RECONNECT_MIN_MS: Final = 100
_CONNECT_TIMEOUT_MS: Final = 5_000
"""How long one try to connect may take."""
_RECONNECT_MAX_MS: Final = 2_000
"""gRPC's own default grows to two minutes: far longer than a coordinator takes to restart."""

_OPTIONS: Final = (
    ("grpc.max_send_message_length", MESSAGE_BYTES_MAX),
    ("grpc.max_receive_message_length", MESSAGE_BYTES_MAX),
    ("grpc.keepalive_time_ms", _KEEPALIVE_MS),
    ("grpc.keepalive_timeout_ms", _KEEPALIVE_TIMEOUT_MS),
    ("grpc.initial_reconnect_backoff_ms", _RECONNECT_MIN_MS),
    ("grpc.min_reconnect_backoff_ms", _CONNECT_TIMEOUT_MS),  # despite its name
    ("grpc.max_reconnect_backoff_ms", _RECONNECT_MAX_MS),
    # gRPC would repeat some calls by itself; here repeating, its bound and its backoff stand in one place (calls.py).
    ("grpc.enable_retries", 0),
)


def open_channel(address: str) -> grpc.aio.Channel:
    """A channel to `address`, which connects when it is first used. Without TLS: for loopback, unix sockets and private networks."""
    return grpc.aio.insecure_channel(address, options=_OPTIONS)
