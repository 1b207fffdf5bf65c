"""What the journal stores is what it gives back (R30)."""

from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coordinator.codec.events import decode_event, encode_event
from coordinator.core.errors import CorruptJournalError
from coordinator.core.events import Event, Fact, Reached
from coordinator.core.values import SagaId
from saga.v1 import saga_pb2
from tests.strategies import FACTS, INT64_MAX, REACHED, events, instants, reached, saga_ids


def test_every_kind_of_fact_is_tried() -> None:
    assert set(FACTS) == set(get_args(Fact))
    assert set(REACHED) == set(get_args(Reached))


@pytest.mark.parametrize("kind", FACTS, ids=lambda kind: kind.__name__)
@given(draws=st.data(), saga_id=saga_ids)
def test_encoded_event_decodes_to_itself(kind: type[Fact], draws: st.DataObject, saga_id: SagaId) -> None:  # R30
    event = Event(draws.draw(st.integers(1, INT64_MAX)), draws.draw(instants), draws.draw(FACTS[kind]), draws.draw(reached))
    encoded = encode_event(saga_id, event)
    assert decode_event(encoded) == event
    assert saga_pb2.Event.FromString(encoded).saga_id == saga_id


@given(events, saga_ids)
def test_encoding_is_the_public_message(event: Event, saga_id: SagaId) -> None:  # R30
    encoded = encode_event(saga_id, event)
    message = saga_pb2.Event.FromString(encoded)
    assert message.sequence == event.sequence
    assert message.WhichOneof("fact") is not None
    assert [one.step_id for one in message.reached] == [one.step_id for one in event.reached]
    assert decode_event(message.SerializeToString()) == event


@given(st.binary(max_size=200))
def test_arbitrary_bytes_are_an_event_or_corrupt(content: bytes) -> None:
    try:
        event = decode_event(content)
    except CorruptJournalError:
        return
    assert decode_event(encode_event(SagaId("s"), event)) == event


@given(events, saga_ids, st.data())
def test_damaged_event_is_another_event_or_corrupt(event: Event, saga_id: SagaId, draws: st.DataObject) -> None:
    encoded = bytearray(encode_event(saga_id, event))
    for _ in range(draws.draw(st.integers(1, 3))):
        encoded[draws.draw(st.integers(0, len(encoded) - 1))] = draws.draw(st.integers(0, 255))
    try:
        damaged = decode_event(bytes(encoded[: draws.draw(st.integers(0, len(encoded)))]))
    except CorruptJournalError:
        return
    assert decode_event(encode_event(saga_id, damaged)) == damaged
