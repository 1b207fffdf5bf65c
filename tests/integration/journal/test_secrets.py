"""Nodes that offer a secret at the same time agree on one."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from sqlalchemy import Engine, create_engine

from coordinator.journal.schema import bring_up_to_date
from coordinator.journal.side_writes import keep_secret

NODES = 6


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    """A database without the one writer that a journal has: its connections wait only for each other's writes."""
    made = create_engine(f"sqlite:///{tmp_path / 'saga.db'}")
    with made.begin() as connection:
        bring_up_to_date(connection, "here")
    yield made
    made.dispose()


@pytest.mark.parametrize("turn", range(5))
def test_nodes_that_offer_at_once_are_told_the_same(engine: Engine, turn: int) -> None:
    together = threading.Barrier(NODES)

    def offer(node: int) -> bytes:
        with engine.connect() as connection:
            together.wait(20)
            with connection.begin():
                return keep_secret(connection, f"tokens-{turn}", bytes([node]) * 32)

    with ThreadPoolExecutor(NODES) as nodes:
        told = list(nodes.map(offer, range(NODES)))
    assert len(set(told)) == 1
    with engine.connect() as connection:
        assert keep_secret(connection, f"tokens-{turn}", b"late") == told[0]
