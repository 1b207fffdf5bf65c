"""How long a relay pauses, and what its owner may choose."""

from datetime import timedelta
from random import Random
from typing import Any

import pytest

from participant_sdk.outbox import RelayPolicy


class Longest(Random):
    """Chance that always gives the most."""

    def uniform(self, a: float, b: float) -> float:
        return b


class Shortest(Random):
    """Chance that always gives the least."""

    def uniform(self, a: float, b: float) -> float:
        return a


def test_pause_doubles_up_to_its_longest() -> None:
    longest = [RelayPolicy(chance=Longest()).backoff_us(failures) / 1e6 for failures in (1, 2, 3, 12, 13, 1_000)]
    assert longest == [0.2, 0.4, 0.8, 409.6, 600, 600]
    assert RelayPolicy(chance=Shortest()).backoff_us(3) == 400_000


def test_default_policy_gives_up_after_about_an_hour() -> None:
    for chance, hours in ((Longest(), 1.4), (Shortest(), 0.7)):
        policy = RelayPolicy(chance=chance)
        assert sum(policy.backoff_us(failures) for failures in range(1, policy.attempts_max)) / 3.6e9 == pytest.approx(hours, abs=0.05)


def test_looks_become_rarer_while_nothing_is_found() -> None:
    assert [RelayPolicy(chance=Longest()).poll_s(looks) for looks in (0, 1, 4, 5, 10_000)] == [0.05, 0.1, 0.8, 1, 1]


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"attempts_max": 0}, "attempts_max and concurrency are at least 1"),
        ({"concurrency": 0}, "attempts_max and concurrency are at least 1"),
        ({"rows_max": 257}, "rows_max is from 1 to 256"),
        ({"lease": timedelta(seconds=19)}, "lease is at least twice publish_time_limit"),
        ({"backoff_min": timedelta()}, "longer than nothing"),
        ({"poll_min": timedelta()}, "longer than nothing"),
    ],
)
def test_policy_that_cannot_work_is_refused(changes: dict[str, Any], what: str) -> None:
    with pytest.raises(ValueError, match=what):
        RelayPolicy(**changes)
