"""Many sagas of every kind at once, lost replies, and people who pause, resume and cancel at random moments. The books decide."""

import asyncio
import random
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from participant_sdk import SagaAlreadyEnded, SagaHandle
from participant_sdk.client import NotNow
from saga.v1 import participant_pb2, saga_pb2
from tests.budget import budget
from tests.integration.conftest import Running
from tests.integration.desk import (
    Context,
    Forward,
    Script,
    Stand,
    check_books,
    lose,
    of_every_kind,
    open_stand,
    until_over,
)

LOST_SHARE = 0.1
"""Of calls whose reply is lost after they took effect; as many are lost before. Rarely five in a row, which would open the circuit."""
TURNS_MAX = 300
"""Of the event loop, between two things that a person does."""
AT_ONCE = 20


@pytest.fixture
async def stand(running: Running, tmp_path: Path) -> AsyncIterator[Stand]:
    async with open_stand(tmp_path, running.address) as stand:
        yield stand


def unreliable(chance: random.Random) -> Script:
    async def script(forward: Forward, request: participant_pb2.ExecuteRequest, context: Context) -> participant_pb2.ExecuteResponse:
        if chance.random() < LOST_SHARE:
            await lose(context)
        response = await forward()
        if chance.random() < LOST_SHARE:
            await lose(context)
        return response

    return script


async def meddle(stand: Stand, handle: SagaHandle, chance: random.Random) -> None:
    """Some things that a person does, each of which may come too late; nothing is left paused."""
    operator = stand.client.operator
    for _ in range(chance.randrange(5)):
        for _ in range(chance.randrange(TURNS_MAX)):
            await asyncio.sleep(0)
        try:
            match chance.randrange(5):
                case 0 | 1:
                    await operator.pause(handle.id)
                case 2 | 3:
                    await operator.resume(handle.id)
                case _:
                    await handle.cancel()
        except (NotNow, SagaAlreadyEnded):
            continue
    try:
        await operator.resume(handle.id)
    except (NotNow, SagaAlreadyEnded):
        return


async def storm(stand: Stand, *, sagas: int, seed: int) -> set[str]:
    """Returns the outcomes that were seen."""
    chance = random.Random(seed)
    for action in ("take", "note", "pay", "ship", "tell"):
        stand.wire.on_execute[f"desk.{action}"] = unreliable(chance)
    seen: set[str] = set()

    async def one() -> None:
        handle = await stand.start(of_every_kind(), " ".join(chance.sample(["gift", "mute", "broke", "plain"], 2)))
        await meddle(stand, handle, chance)
        saga = await until_over(handle)
        try:
            check_books(saga, await stand.lines(handle))
        except AssertionError as error:
            raise AssertionError(f"seed {seed}, saga {handle.id}: {error}") from error
        seen.add(saga_pb2.SagaStatus.Name(saga.status).removeprefix("SAGA_STATUS_"))

    for _ in range(0, sagas, AT_ONCE):
        async with asyncio.TaskGroup() as tasks:
            for _ in range(AT_ONCE):
                tasks.create_task(one())
    return seen


@pytest.mark.full
async def test_storm_leaves_the_books_right(stand: Stand) -> None:  # P1, P2, R10, R12
    assert await storm(stand, sagas=25, seed=random.randrange(2**32)) == {"COMPLETED", "COMPENSATED"}


@pytest.mark.full
async def test_long_storm_leaves_the_books_right(stand: Stand) -> None:  # P1, P2, R10, R12
    assert await storm(stand, sagas=budget(200), seed=random.randrange(2**32)) == {"COMPLETED", "COMPENSATED"}
