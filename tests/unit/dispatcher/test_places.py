"""Which of several places gets a call: in turn, and not the one that fails while there are others."""

from collections import Counter
from collections.abc import Container

from coordinator.core.values import Instant
from coordinator.dispatcher.circuit import Health
from coordinator.dispatcher.places import Place, Places
from coordinator.limits import ParticipantLimits
from tests.builders import at, failure
from tests.contract.dispatcher.stand import call

NOW, LATER = at(1_000), at(1_001)
ABC = ("a:1", "b:1", "c:1")


def places(**limits: float) -> Places:
    return Places("shop", ParticipantLimits(**limits))  # type: ignore[arg-type]


def chosen(chooser: Places, count: int, *, cut_off: Container[str] = (), now: Instant = NOW) -> list[Place]:
    return [chooser.choose(ABC, now, cut_off.__contains__) for _ in range(count)]


def addresses(chosen_ones: list[Place]) -> str:
    return " ".join(place.address[0] for place in chosen_ones)


def fail(chooser: Places, place: Place, now: Instant = NOW) -> None:
    chooser.ended(place, call(), Health.AWAY, now, failure())


def test_places_take_turns() -> None:
    assert addresses(chosen(places(), 7)) == "a b c a b c a"


def test_place_that_is_cut_off_is_passed_over_and_the_others_still_take_turns() -> None:
    assert addresses(chosen(places(), 6, cut_off={"b:1"})) == "a c a c a c"


def test_place_that_fails_call_after_call_is_passed_over_then_tried_with_one() -> None:
    chooser = places(circuit_failures=2)
    for _ in range(2):
        for place in chosen(chooser, 3):
            if place.address == "b:1":
                fail(chooser, place)
    assert Counter(place.address for place in chosen(chooser, 100)) == {"a:1": 50, "c:1": 50}
    assert Counter(place.address for place in chosen(chooser, 100, now=LATER))["b:1"] == 1


def test_place_that_is_well_again_takes_its_turn() -> None:
    chooser = places(circuit_failures=1)
    fail(chooser, chosen(chooser, 1)[0])
    (probe,) = [place for place in chosen(chooser, 3, now=LATER) if place.address == "a:1"]
    chooser.ended(probe, call(), Health.WELL, LATER)
    assert Counter(place.address for place in chosen(chooser, 99, now=LATER)) == dict.fromkeys(ABC, 33)


def test_where_all_fail_the_calls_go_all_the_same() -> None:
    chooser = places(circuit_failures=1)
    for place in chosen(chooser, 3):
        fail(chooser, place)
    assert Counter(place.address for place in chosen(chooser, 9)) == dict.fromkeys(ABC, 3)
    assert addresses(chosen(places(), 3, cut_off=ABC)) == "a b c"


def test_only_place_is_never_passed_over() -> None:
    chooser = places(circuit_failures=1)
    for _ in range(3):
        place = chooser.choose(["a:1"], NOW, lambda _: True)
        assert place == Place("a:1", None)
        fail(chooser, place)


def test_place_that_has_gone_is_forgotten() -> None:
    chooser = places(circuit_failures=1)
    first, *_ = chosen(chooser, 1)
    fail(chooser, first)
    chooser.keep(["b:1", "c:1"])
    fail(chooser, first)  # a call that outlived its place
    assert Counter(place.address for place in chosen(chooser, 3)) == dict.fromkeys(ABC, 1)
