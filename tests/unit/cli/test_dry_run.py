"""`saga check --dry-run`: what is called when, without a coordinator and without waiting."""

import json

import pytest
from click.testing import CliRunner, Result

from coordinator.cli.checking import check
from tests.documents import ROOT

TRIP = str(ROOT / "examples" / "travel" / "book_trip.yaml")
ORDER = str(ROOT / "examples" / "shop" / "place_order.py")


def run(*arguments: str) -> Result:
    return CliRunner().invoke(check, ["--dry-run", *arguments])


def lines(*arguments: str) -> list[str]:
    result = run(*arguments)
    assert result.exit_code == 0, result.output
    return result.output.splitlines()


def test_order_and_times_of_calls_are_shown() -> None:
    shown = lines(TRIP, "--latency", "flight=2", "--latency", "hotels.reserve=0.5")
    for time, words in (("+0.502 s", "hotel"), ("+2.002 s", "flight"), ("+2.014 s", "approve"), ("+2.050 s", "COMPLETED")):
        assert any(time in line and words in line for line in shown), (time, words)


def test_input_decides_what_is_left_out() -> None:
    conference = "@" + str(ROOT / "examples" / "travel" / "conference.json")
    assert any("insure" in line and "left out" in line for line in lines(TRIP))
    assert not any("insure" in line and "left out" in line for line in lines(TRIP, "--input", conference))


def test_way_back_is_shown() -> None:
    shown = json.loads(run(ORDER, "--refuse", "book", "--json").output)
    assert [call["call"] for call in shown["calls"]] == ["reserve", "charge", "book", "undo charge", "undo reserve"]
    assert shown["saga"]["status"] == "SAGA_STATUS_COMPENSATED"
    assert shown["took"] == 0.05


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--latency", "nothing=1"], "place-order v1 has no nothing; it has book, charge"),
        (["--refuse", "nothing"], "place-order v1 has no nothing"),
        (["--latency", "charge=soon"], "expected STEP=SECONDS like charge=1.5, found 'charge=soon'"),
        (["--latency", "charge=-1"], "expected STEP=SECONDS"),
        (["--input", "{"], "this is no shop.v1.PlaceOrder in JSON"),
    ],
)
def test_what_does_not_fit_the_definition_is_told(arguments: list[str], said: str) -> None:
    result = run(ORDER, *arguments)
    assert result.exit_code == 2
    assert said in " ".join(result.output.replace("│", " ").split())
