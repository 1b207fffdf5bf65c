"""Plain handlers in the barrier's database transaction, over gRPC: the inventory of docs/participants.md (R18, R22)."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, TypeAlias

import grpc
import pytest
from google.protobuf.wrappers_pb2 import StringValue
from sqlalchemy import Engine, create_engine, func, select
from sqlalchemy.orm import Session

from participant_sdk.ids import new_saga_id
from participant_sdk.servicer import ParticipantServicer
from saga.v1 import participant_pb2, participant_pb2_grpc
from tests.integration.participant.test_long_steps import documented

Stub: TypeAlias = "participant_pb2_grpc.ParticipantServiceAsyncStub"

recipe = documented("stock")
AVAILABLE = 12
WANTED = 20


@pytest.fixture
def engine(tmp_path: Path) -> Any:
    engine = create_engine(f"sqlite:///{tmp_path / 'inventory.db'}")
    recipe.Base.metadata.create_all(engine)
    with Session(engine) as session, session.begin():
        session.add(recipe.Stock(sku="widget", available=AVAILABLE))
    yield engine
    engine.dispose()


@pytest.fixture
async def stub(engine: Engine) -> AsyncIterator[Stub]:
    inventory = recipe.inventory(engine)
    await inventory.barrier.create_table()
    servicer = ParticipantServicer(inventory)
    server = grpc.aio.server()
    participant_pb2_grpc.add_ParticipantServiceServicer_to_server(servicer, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        yield participant_pb2_grpc.ParticipantServiceStub(channel)
    await server.stop(5)
    servicer.close()


def execute(saga_id: str) -> participant_pb2.ExecuteRequest:
    request = participant_pb2.ExecuteRequest(
        saga_id=saga_id, step_id="reserve", action="inventory.reserve", key=f"{saga_id}/reserve/execute/1", attempt=1
    )
    request.first_attempt_at.GetCurrentTime()
    request.input.Pack(StringValue(value="widget"))
    return request


def compensate(executed: participant_pb2.ExecuteRequest) -> participant_pb2.CompensateRequest:
    request = participant_pb2.CompensateRequest(
        saga_id=executed.saga_id,
        step_id=executed.step_id,
        action=executed.action,
        key=f"{executed.saga_id}/reserve/compensate/1",
        execute_key=executed.key,
        attempt=1,
        first_attempt_at=executed.first_attempt_at,
        input=executed.input,
    )
    request.unknown.SetInParent()
    return request


def books(engine: Engine) -> tuple[int, int]:
    """What is available, and what is reserved."""
    with Session(engine) as session:
        available: int = session.execute(select(recipe.Stock.available)).scalar_one()
        reserved: int = session.execute(select(func.count()).select_from(recipe.Reservation)).scalar_one()
    return available, reserved


async def test_calls_at_the_same_moment_are_reserved_refused_replayed_and_undone_each_by_itself(stub: Stub, engine: Engine) -> None:
    requests = [execute(new_saga_id()) for _ in range(WANTED)]
    replies = await asyncio.gather(*map(stub.Execute, requests))
    reserved = [request for request, reply in zip(requests, replies, strict=True) if reply.HasField("succeeded")]
    assert len(reserved) == AVAILABLE
    assert all(reply.rejected.sealed for reply in replies if not reply.HasField("succeeded"))
    assert books(engine) == (0, AVAILABLE)
    assert await asyncio.gather(*map(stub.Execute, requests)) == replies
    undone = await asyncio.gather(*(stub.Compensate(compensate(request)) for request in requests))
    assert [answer.compensated.handler_ran for answer in undone] == [reply.HasField("succeeded") for reply in replies]
    assert books(engine) == (AVAILABLE, 0)
    late = await asyncio.gather(*map(stub.Execute, reserved))
    assert all(reply.rejected.sealed for reply in late)
    assert books(engine) == (AVAILABLE, 0)
