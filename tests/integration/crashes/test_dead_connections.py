"""Connections that have died without a word: what stands between goes on taking bytes, and nobody hears of them."""

import asyncio
import sqlite3
import time
from contextlib import closing
from datetime import timedelta
from pathlib import Path

import pytest
from google.protobuf.wrappers_pb2 import StringValue

from participant_sdk import ParticipantServer, SagaClient
from saga.v1 import saga_pb2
from tests.integration.conftest import Running
from tests.integration.crashes.fault_proxy import FaultProxy, Harm
from tests.integration.definitions import plain
from tests.participants import Gate, PlainParticipant, bookkeeper, register, serving
from tests.simulation.chance import Chance

X = StringValue(value="x")
HARMS = pytest.mark.parametrize("harm", [Harm.DEAF, Harm.MUTE])


def seconds_left(journal: Path) -> float:
    """How long the only registration in a journal still holds."""
    with closing(sqlite3.connect(journal)) as database:
        ((expires_at,),) = database.execute("SELECT expires_at FROM participant").fetchall()
    return float(expires_at) / 1e6 - time.time()


@pytest.mark.parametrize("harm", [Harm.DEAF, pytest.param(Harm.MUTE, marks=pytest.mark.full)])
async def test_registration_does_not_lapse_because_its_connection_is_dead(running: Running, tmp_path: Path, harm: Harm) -> None:
    ttl = timedelta(seconds=3)
    async with (
        FaultProxy("way", running.address, chance=Chance(1)) as proxy,
        bookkeeper(tmp_path) as keeper,
        ParticipantServer(keeper, coordinator=proxy.address, ttl=ttl) as server,
    ):
        await server.wait_registered(timedelta(seconds=20))
        proxy.harm_all(harm)
        began = time.monotonic()
        while time.monotonic() - began < ttl.total_seconds() + 0.5:
            assert seconds_left(tmp_path / "saga.db") > 0
            await asyncio.sleep(0.05)


@pytest.mark.full
@HARMS
async def test_client_notices_a_dead_connection_before_it_gives_up(running: Running, harm: Harm) -> None:
    """Long before: gRPC sends pings also while a wait is silent."""
    participant, gate = PlainParticipant(), Gate()
    participant.on_execute["plain.a"] = gate
    async with (
        serving(participant) as target,
        FaultProxy("way", running.address, chance=Chance(1)) as proxy,
        SagaClient(proxy.address) as client,
    ):
        await register(running.address, target, "plain", "a")
        await client.register(plain("s", "a", attempt_timeout=timedelta(minutes=2)))
        handle = await client.start("s", X)
        waiting = asyncio.create_task(handle.wait())
        await participant.arrived["plain.a"].wait()
        proxy.harm_all(harm)
        gate.open.set()
        async with asyncio.timeout(25):
            assert (await waiting).status == saga_pb2.SAGA_STATUS_COMPLETED
