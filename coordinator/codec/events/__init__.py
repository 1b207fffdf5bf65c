"""Events as the bytes of `saga.v1.Event`: what the journal stores is the public message itself (R30).

Encoding stands on the hot path of every event (2 to 5 µs each): messages are filled in place, and the encoder of a fact is found by its
type in one dictionary. Decoding happens at recovery and for readers, and trusts nothing.
"""

from collections.abc import Callable
from typing import Any, Final

from google.protobuf.message import DecodeError

from coordinator.codec.events import command_facts, saga_facts, step_facts
from coordinator.codec.events.reached import fill_reached, reached_of
from coordinator.codec.values import fill_timestamp, instant_of
from coordinator.core.errors import CorruptJournalError
from coordinator.core.events import Event, Fact
from coordinator.core.values import SagaId
from saga.v1 import saga_pb2

__all__ = ["decode_event", "encode_event", "event_of"]

# A test holds both tables against the union `Fact` and the oneof `fact`, so that neither can miss a kind.
_FILL: Final[dict[type[Fact], Callable[[saga_pb2.Event, Any], None]]] = {**saga_facts.FILL, **step_facts.FILL, **command_facts.FILL}
_READ: Final[dict[str, Callable[[saga_pb2.Event], Fact]]] = {**saga_facts.READ, **step_facts.READ, **command_facts.READ}


def encode_event(saga_id: SagaId, event: Event) -> bytes:
    """One event as bytes.

    Raises ValueError or TypeError for what `decode_event` would refuse or protobuf cannot represent (a lone surrogate, an instant beyond
    the year 9999): nothing must get into the journal that nobody can read again.
    """
    if event.sequence < 1:
        raise ValueError(f"sequences count from 1, found {event.sequence}")
    message = saga_pb2.Event(saga_id=saga_id, sequence=event.sequence)
    fill_timestamp(message.occurred_at, event.occurred_at)
    _FILL[type(event.fact)](message, event.fact)
    if event.reached:
        fill_reached(message, event.reached)
    return message.SerializeToString()


def decode_event(encoded: bytes) -> Event:
    """The event in these bytes. Labels come back sorted by key: on the wire they are a map and have no order.

    Raises CorruptJournalError if the bytes are no event, or no event that this version of the coordinator knows completely.
    """
    try:
        message = saga_pb2.Event.FromString(encoded)
        return event_of(message)
    except (DecodeError, ValueError) as error:
        raise CorruptJournalError(f"an event of {len(encoded)} bytes cannot be read: {error}") from error


def event_of(message: saga_pb2.Event) -> Event:
    """The event of a message that is parsed already. Raises ValueError if it is not complete."""
    name = message.WhichOneof("fact")
    if name is None:
        raise ValueError(f"event {message.sequence} has no fact that this version knows; was it written by a newer one?")
    if message.sequence == 0 or not message.HasField("occurred_at"):
        raise ValueError(f"event {message.sequence} has no sequence or no instant")
    return Event(message.sequence, instant_of(message.occurred_at), _READ[name](message), reached_of(message))
