"""Expressions over a travel.v1.Trip, and two steps before: what a test does not say is plain."""

from collections.abc import Mapping

from google.protobuf.message import Message

from participant_sdk.definitions.complaints import Scope
from participant_sdk.definitions.expressions import BOOL, Expressions, MistakesError, Program, Wanted
from tests.unit.definitions.travel_messages import travel_types

VARIABLES = {"input": "travel.v1.Trip", "hotel": "travel.v1.Booked", "ran.hotel": BOOL, "strict": "old.v1.Strict"}


def scope(variables: Mapping[str, str] = VARIABLES) -> Scope:
    return Scope(container="travel.v1", variables=variables, types=travel_types())


def compiled(text: str, wanted: str | None = None, variables: Mapping[str, str] = VARIABLES) -> Program:
    because = None if wanted is None else Wanted(type_name=wanted, because="the test takes it")
    return Expressions(travel_types()).compile(text, scope=scope(variables), wanted=because)


def mistakes_in(text: str, wanted: str | None = None) -> list[str]:
    """Empty: none."""
    try:
        compiled(text, wanted)
    except MistakesError as error:
        return error.mistakes
    return []


def values_of(
    trip: Message | bytes = b"", *, hotel: Message | bytes = b"", ran: bool = False, strict: bytes = b""
) -> dict[str, bytes | bool]:
    return {
        "input": trip if isinstance(trip, bytes) else trip.SerializeToString(),
        "hotel": hotel if isinstance(hotel, bytes) else hotel.SerializeToString(),
        "ran.hotel": ran,
        "strict": strict,
    }


def evaluated(text: str, wanted: str, trip: Message | bytes = b"", **others: Message | bytes | bool) -> Message:
    """What the expression returns, decoded."""
    found = compiled(text, wanted).evaluate(values_of(trip, **others))  # type: ignore[arg-type]
    return travel_types().get(wanted).FromString(found)
