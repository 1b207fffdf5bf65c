"""Saga ids (R2)."""

import uuid

import pytest

from participant_sdk.ids import new_saga_id, parse_saga_id


def test_new_id_is_a_canonical_uuid_of_version_7() -> None:
    made = new_saga_id()
    assert made == str(uuid.UUID(made))
    assert (uuid.UUID(made).version, uuid.UUID(made).variant) == (7, uuid.RFC_4122)


def test_new_ids_differ_and_never_go_back_by_more_than_a_millisecond() -> None:
    made = [new_saga_id() for _ in range(1_000)]
    assert len(set(made)) == 1_000
    times = [identifier[:13] for identifier in made]
    assert times == sorted(times)


def test_parse_gives_the_canonical_form() -> None:
    assert parse_saga_id("0197C8A4-5F0E-7C31-9A52-3F1D6B0E8A77") == "0197c8a4-5f0e-7c31-9a52-3f1d6b0e8a77"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "order-42",
        "0197c8a45f0e7c319a523f1d6b0e8a77",
        "{0197c8a4-5f0e-7c31-9a52-3f1d6b0e8a77}",
        "0197c8a4-5f0e-7c31-9a52-3f1d6b0e8a77\n",
        "00000000-0000-0000-0000-000000000000",
        "\u0660197c8a4-5f0e-7c31-9a52-3f1d6b0e8a77",
    ],
)
def test_parse_refuses_what_is_no_uuid(text: str) -> None:
    with pytest.raises(ValueError, match="saga id"):
        parse_saga_id(text)
