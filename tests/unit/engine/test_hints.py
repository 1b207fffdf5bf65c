"""Commits of other nodes for which somebody waits are hinted at, and nothing else is (R33)."""

from collections.abc import Callable

import pytest

from coordinator.core.values import SagaId
from coordinator.engine import hints as module
from coordinator.engine.hints import Hints
from tests.builders import SAGA, sequence, succeeded
from tests.fakes import Shell

OTHER = SagaId("another")
ORDER = sequence("reserve", "charge")


class Air:
    """Signals that are heard by everybody else when a test says so."""

    def __init__(self) -> None:
        self.said: list[str] = []
        self.hear: Callable[[str], None] = lambda _: None

    def follow(self, heard: Callable[[str], None], /) -> None:
        self.hear = heard

    def send(self, word: str, /) -> None:
        self.said.append(word)


@pytest.fixture
def air() -> Air:
    return Air()


@pytest.fixture
async def shell(air: Air) -> Shell:
    shell = Shell()
    shell.hints = Hints(shell.clock, shell.engine, air)  # type: ignore[attr-defined]
    return shell


def hints_of(shell: Shell) -> Hints:
    hints: Hints = shell.hints  # type: ignore[attr-defined]
    return hints


async def test_commits_are_told_while_somebody_elsewhere_waits(shell: Shell, air: Air) -> None:
    await shell.run(ORDER)
    assert air.said == []
    air.hear(f"waits {SAGA}")
    await shell.end_and_commit("reserve", succeeded())
    assert air.said == [f"moved {SAGA}"]
    await shell.clock.pass_time(61)
    await shell.end_and_commit("charge", succeeded())
    assert air.said == [f"moved {SAGA}"]


async def test_interest_is_kept_while_it_is_said_again(shell: Shell, air: Air) -> None:
    await shell.run(ORDER)
    air.hear(f"waits {SAGA}")
    await shell.clock.pass_time(40)
    air.hear(f"waits {SAGA}")
    await shell.clock.pass_time(40)
    await shell.end_and_commit("reserve", succeeded())
    assert air.said == [f"moved {SAGA}"]


async def test_who_waits_says_so_once_in_a_while_and_is_told(shell: Shell, air: Air) -> None:
    hints, told = hints_of(shell), []
    leave = hints.wait_for(SAGA, lambda: told.append("told"))
    hints.ask(SAGA)
    hints.ask(SAGA)
    assert air.said == [f"waits {SAGA}"]
    await shell.clock.pass_time(30)
    hints.ask(SAGA)
    assert air.said == [f"waits {SAGA}"] * 2
    air.hear(f"moved {OTHER}")
    assert told == []
    air.hear(f"moved {SAGA}")
    leave()
    air.hear(f"moved {SAGA}")
    assert told == ["told"]


async def test_hint_of_another_node_is_not_passed_on(shell: Shell, air: Air) -> None:
    """Two nodes that wait for one saga would call to each other for ever."""
    air.hear(f"waits {SAGA}")
    hints_of(shell).wait_for(SAGA, lambda: None)
    air.hear(f"moved {SAGA}")
    assert air.said == []


async def test_interests_are_bounded_and_the_oldest_makes_room(shell: Shell, air: Air, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "INTERESTS_MAX", 2)
    await shell.run(ORDER)
    for saga_id in (SAGA, SagaId("b"), SagaId("c")):
        air.hear(f"waits {saga_id}")
    await shell.end_and_commit("reserve", succeeded())
    assert air.said == []
    assert len(shell.engine._subscriptions._listeners) == 2


async def test_words_that_nobody_knows_are_passed_over(shell: Shell, air: Air) -> None:
    for word in ("", "shards", "something of the next release"):
        air.hear(word)
    assert air.said == []
