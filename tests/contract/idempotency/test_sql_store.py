"""What only a store in a database has: its clock, its table, its absence."""

import asyncio
from pathlib import Path

import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.ext.asyncio import create_async_engine

from participant_sdk.idempotency import (
    IdempotencySetupError,
    IdempotencyStoreUnavailableError,
    IdempotencyTableMissingError,
    SqlIdempotencyStore,
)
from participant_sdk.idempotency.verdict import InProgress, Replay, Run
from tests.contract.idempotency.claims import ANSWER, LEASE_S, SECOND_US, ManualClock, claim
from tests.contract.idempotency.conftest import Opened


async def test_clock_of_the_database_counts_leases(opened: Opened) -> None:
    """However wrong the clocks of two processes are: neither is asked."""
    first, second = opened(None), opened(None)
    assert await first.begin(claim()) == Run()
    verdict = await second.begin(claim())
    assert isinstance(verdict, InProgress)
    assert (LEASE_S - 20) * SECOND_US < verdict.wait_us <= LEASE_S * SECOND_US


async def test_clock_of_the_database_ends_leases_and_lifetimes(opened: Opened) -> None:
    store, short = opened(None), claim(lease_s=0.001)
    assert await store.begin(short) == Run()
    async with asyncio.timeout(20):
        while isinstance(await store.begin(claim()), InProgress):
            continue
    assert not await store.complete(short, ANSWER)
    assert await store.delete_expired(10) == 0


async def test_expired_key_by_the_clock_of_the_database_is_cleaned_up(opened: Opened) -> None:
    past = ManualClock()  # Half a year ago, or whenever: long before the database's own now, and its lifetime is an hour.
    past.now_us = 1_500_000_000 * SECOND_US
    yesterday, first = opened(past), claim()
    await yesterday.begin(first)
    await yesterday.complete(first, ANSWER)
    assert await yesterday.begin(claim()) == Replay(answer=ANSWER)
    assert await opened(None).begin(claim()) == Run()
    assert await opened(None).delete_expired(10) == 0


async def test_table_is_created_once_and_checked(opened: Opened) -> None:
    store = opened(None)
    await store.create_table()
    await store.check()


async def test_missing_table_says_how_to_make_it(tmp_path: Path) -> None:
    engine = create_async_engine(f"sqlite+aiosqlite:///{tmp_path / 'empty.db'}")
    store = SqlIdempotencyStore(engine)
    with pytest.raises(IdempotencyTableMissingError, match=r"no table 'saga_idempotency': create it once with"):
        await store.check()
    with pytest.raises(IdempotencyTableMissingError):
        await store.begin(claim())
    await engine.dispose()


async def test_database_that_is_away_is_told_apart(tmp_path: Path) -> None:
    engine = create_async_engine(f"sqlite+aiosqlite:///{tmp_path / 'no such folder' / 'keys.db'}")
    store = SqlIdempotencyStore(engine)
    for ask in (store.begin(claim()), store.complete(claim(), ANSWER), store.delete_expired(1)):
        with pytest.raises(IdempotencyStoreUnavailableError):
            await ask
    await engine.dispose()


async def test_answers_can_be_read_by_people(opened: Opened) -> None:
    store, first = opened(None), claim()
    await store.begin(first)
    await store.complete(first, ANSWER)
    async with store.engine.connect() as connection:
        row = (await connection.execute(text(f"SELECT client_key, operation, status, headers FROM {store.table_name}"))).one()
    assert row[:3] == ("a", "POST /payments", 201)
    assert bytes(row[3]).startswith(b'[["content-type", "application/json"], ')


def test_engine_that_blocks_is_refused() -> None:
    engine = create_engine("sqlite://")
    with pytest.raises(IdempotencySetupError, match="needs an AsyncEngine"):
        SqlIdempotencyStore(engine)  # type: ignore[arg-type]
    engine.dispose()
