"""Pages of lists: how long they are, and where the next one begins."""

import base64
import binascii
from collections.abc import Iterable
from itertools import islice
from typing import Final

from coordinator.api.errors import RefusedError, invalid
from coordinator.core.values import DefinitionKey, Instant, SagaId
from participant_sdk.definitions.problems import Problem
from participant_sdk.ids import parse_saga_id

PAGE_SIZE_DEFAULT: Final = 100
PAGE_SIZE_MAX: Final = 1_000
PAGE_BYTES_MAX: Final = 2 * 1024 * 1024
"""Entries of a page together. Events and definitions may be large each: a page cut by number only could exceed what gRPC carries."""
STORED_NUMBER_MAX: Final = 2**63 - 1
"""Largest number that databases take; no saga has more events."""


def page_size_of(size: int) -> int:
    """Entries of a page; refuses more than PAGE_SIZE_MAX."""
    if size > PAGE_SIZE_MAX:
        raise invalid([Problem("page_size", f"expected 1 to {PAGE_SIZE_MAX}, found {size}")])
    return size or PAGE_SIZE_DEFAULT


def page_length(sizes: Iterable[int], page_size: int) -> int:
    """How many of the first entries, given the bytes of each, make a page that gRPC carries; at least one if there is any."""
    length = bytes_sum = 0
    for size in islice(sizes, page_size):
        bytes_sum += size
        if length and bytes_sum > PAGE_BYTES_MAX:
            break
        length += 1
    return length


def sequence_of(number: int) -> int:
    """Where to read on from. Beyond what any saga has there is nothing to read."""
    return min(number, STORED_NUMBER_MAX)


def saga_page_token(created_at: Instant, saga_id: SagaId) -> str:
    """Where the next page of sagas begins."""
    return _encoded(f"{created_at}/{saga_id}")


def parse_saga_page_token(token: str) -> tuple[Instant, SagaId] | None:
    """The place a page begins at; None for the first."""
    if not token:
        return None
    created_at, _, saga_id = _decoded(token).partition("/")
    try:
        return Instant(_storable(created_at)), SagaId(parse_saga_id(saga_id))
    except ValueError as error:
        raise _bad_token() from error


def definition_page_token(key: DefinitionKey) -> str:
    """Where the next page of definitions begins."""
    return _encoded(f"{key.version}/{key.name}")


def parse_definition_page_token(token: str) -> DefinitionKey | None:
    """The place a page begins at; None for the first."""
    if not token:
        return None
    version, _, name = _decoded(token).partition("/")
    try:
        return DefinitionKey(name, _storable(version))
    except ValueError as error:
        raise _bad_token() from error


def incident_page_token(opened_at: Instant, saga_id: SagaId, incident_id: int) -> str:
    """Where the next page of incidents begins."""
    return _encoded(f"{opened_at}/{saga_id}/{incident_id}")


def parse_incident_page_token(token: str) -> tuple[Instant, SagaId, int] | None:
    """The place a page begins at; None for the first."""
    if not token:
        return None
    opened_at, _, rest = _decoded(token).partition("/")
    saga_id, _, incident_id = rest.partition("/")
    try:
        return Instant(_storable(opened_at)), SagaId(parse_saga_id(saga_id)), _storable(incident_id)
    except ValueError as error:
        raise _bad_token() from error


def _encoded(text: str) -> str:
    return base64.urlsafe_b64encode(text.encode()).decode()


def _decoded(token: str) -> str:
    try:
        return base64.urlsafe_b64decode(token.encode()).decode()
    except (binascii.Error, UnicodeError, ValueError) as error:
        raise _bad_token() from error


def _storable(text: str) -> int:
    number = int(text)
    if abs(number) > STORED_NUMBER_MAX:
        raise ValueError(f"expected at most {STORED_NUMBER_MAX}, found {number}")
    return number


def _bad_token() -> RefusedError:
    return invalid([Problem("page_token", "expected the next_page_token of an earlier answer; leave it empty for the first page")])
