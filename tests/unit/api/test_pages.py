"""Pages: each begins where the one before it ended, and a token that was not given out is refused."""

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coordinator.api import pages
from coordinator.api.errors import RefusedError
from coordinator.core.values import DefinitionKey, Instant, SagaId
from tests.builders import SAGA
from tests.unit.api.refusals import refused


@given(st.integers(-(2**62), 2**62), st.uuids().filter(lambda one: one.int))
def test_page_of_sagas_goes_on_where_it_ended(created_at: int, saga_id: object) -> None:
    place = (Instant(created_at), SagaId(str(saga_id)))
    assert pages.parse_saga_page_token(pages.saga_page_token(*place)) == place


@given(st.integers(1, 2**31 - 1), st.text(min_size=1, max_size=128))
def test_page_of_definitions_goes_on_where_it_ended(version: int, name: str) -> None:
    key = DefinitionKey(name, version)
    assert pages.parse_definition_page_token(pages.definition_page_token(key)) == key


@given(st.integers(-(2**62), 2**62), st.uuids().filter(lambda one: one.int), st.integers(0, 2**31))
def test_page_of_incidents_goes_on_where_it_ended(opened_at: int, saga_id: object, incident_id: int) -> None:
    place = (Instant(opened_at), SagaId(str(saga_id)), incident_id)
    assert pages.parse_incident_page_token(pages.incident_page_token(*place)) == place


@pytest.mark.parametrize("text", ["1", f"1/{SAGA}", f"1/{SAGA}/x", f"1/{SAGA}/{10**30}", "1/x/1"])
def test_token_of_incidents_that_was_not_given_out_is_refused(text: str) -> None:
    assert set(refused(lambda: pages.parse_incident_page_token(token(text.encode())))) == {"page_token"}


def test_no_token_is_the_first_page() -> None:
    assert pages.parse_incident_page_token("") is None
    assert pages.parse_saga_page_token("") is None
    assert pages.parse_definition_page_token("") is None


def token(text: bytes) -> str:
    return base64.urlsafe_b64encode(text).decode()


@pytest.mark.parametrize(
    "forged",
    ["%%%", "a", "ü", token(b"\xff"), token(b"x/y"), token(b"1/y"), token(f"{10**30}/{SAGA}".encode()), token(b"9" * 5_000)],
)
def test_token_that_was_not_given_out_is_refused(forged: str) -> None:
    assert set(refused(lambda: pages.parse_saga_page_token(forged))) == {"page_token"}


@pytest.mark.parametrize("forged", ["%%%", "ü", token(b"x/y"), token(b"%d/y" % 10**30), token(b"%d/y" % -(10**30)), token(b"/" * 9)])
def test_token_of_definitions_that_was_not_given_out_is_refused(forged: str) -> None:
    assert set(refused(lambda: pages.parse_definition_page_token(forged))) == {"page_token"}


@given(st.text(max_size=40))
def test_any_token_is_read_or_refused(text: str) -> None:
    for parse in (pages.parse_saga_page_token, pages.parse_definition_page_token, pages.parse_incident_page_token):
        try:
            parse(text)
        except RefusedError:
            continue


def test_page_sizes() -> None:
    assert (pages.page_size_of(0), pages.page_size_of(1), pages.page_size_of(1_000)) == (100, 1, 1_000)
    assert set(refused(lambda: pages.page_size_of(1_001))) == {"page_size"}


@pytest.mark.parametrize(
    ("sizes", "page_size", "expected"),
    [
        ([], 100, 0),
        ([1, 1, 1], 2, 2),
        ([1, 1], 2, 2),
        ([pages.PAGE_BYTES_MAX // 2] * 3, 100, 2),
        ([pages.PAGE_BYTES_MAX * 2, 1], 100, 1),  # a large one goes alone
        ([1, pages.PAGE_BYTES_MAX, 1], 100, 1),
    ],
)
def test_page_is_cut_by_number_and_by_bytes(sizes: list[int], page_size: int, expected: int) -> None:  # D6
    assert pages.page_length(sizes, page_size) == expected


def test_sequence_beyond_every_saga_is_one_that_databases_take() -> None:
    assert (pages.sequence_of(0), pages.sequence_of(7), pages.sequence_of(2**64 - 1)) == (0, 7, 2**63 - 1)
