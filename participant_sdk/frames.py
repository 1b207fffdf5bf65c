"""How much goes into one frame of a stream that carries many messages, at either end."""

from collections.abc import Iterable
from typing import Final

from google.protobuf.message import Message

MESSAGES_MAX: Final = 32
"""So that one end works on a frame while the other makes the next. With frames of 512 and 256 sagas in flight both ends waited for each
other in turns: 506 sagas/s against 671, although larger frames take a fifth less processor time."""
BYTES_MAX: Final = 1024 * 1024
"""A single message may exceed it, alone."""


def fitting(messages: Iterable[Message]) -> int:
    """How many of these go into the next frame, from the first on; 0 only if there are none."""
    count = size = 0
    for message in messages:
        size += message.ByteSize()
        if count and (count >= MESSAGES_MAX or size > BYTES_MAX):
            break
        count += 1
    return count
