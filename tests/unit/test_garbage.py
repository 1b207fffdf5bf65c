"""How a coordinator's process collects garbage."""

import gc
from collections.abc import Iterator

import pytest

from coordinator.bootstrap import GARBAGE_THRESHOLDS, collect_garbage_seldom


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    thresholds = gc.get_threshold()
    yield
    gc.unfreeze()
    gc.set_threshold(*thresholds)
    gc.enable()


def test_process_walks_what_it_has_imported_never_and_what_it_makes_seldom() -> None:
    gc.disable()  # as `saga serve` does while it imports
    collect_garbage_seldom()
    assert gc.isenabled()
    assert gc.get_threshold() == GARBAGE_THRESHOLDS
    assert gc.get_freeze_count() > 10_000


def test_cycles_are_still_collected() -> None:
    class Node:
        me: "Node"

    collected: list[int] = []

    def note(phase: str, info: dict[str, int]) -> None:
        if phase == "stop":
            collected.append(info["collected"])

    collect_garbage_seldom()
    gc.callbacks.append(note)
    try:
        for _ in range(2 * GARBAGE_THRESHOLDS[0]):
            node = Node()
            node.me = node
    finally:
        gc.callbacks.remove(note)
    assert sum(collected) > GARBAGE_THRESHOLDS[0] / 2
