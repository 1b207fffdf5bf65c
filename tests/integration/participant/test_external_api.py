"""The example of an effect outside of the database, against a payment API over HTTP, with its process killed on the way (R19, P1)."""

import asyncio
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import grpc
import pytest
from google.protobuf.wrappers_pb2 import StringValue

from examples.external_api.payment_api import EMPTY_CARD, PaymentApi
from participant_sdk import new_saga_id
from saga.v1 import participant_pb2, participant_pb2_grpc
from tests.documents import ROOT
from tests.processes import free_port, python_environment, wait_until_serving

CALL_TIME_S = 2.0
"""Of the call whose participant is killed: so long its key stays locked."""
TIME_LIMIT_S = 30.0
SAGA_ID = new_saga_id()
KEY = f"{SAGA_ID}/charge/execute/1"


@dataclass
class Moment:
    """Where the API stops, so that something can happen meanwhile."""

    name: str = ""
    reached: threading.Event = field(default_factory=threading.Event)
    may_go_on: threading.Event = field(default_factory=threading.Event)

    def __call__(self, moment: str) -> None:
        if moment == self.name:
            self.name = ""  # once
            self.reached.set()
            assert self.may_go_on.wait(TIME_LIMIT_S)


@dataclass
class Stand:
    api: PaymentApi
    moment: Moment
    database: Path
    address: str = field(default_factory=lambda: f"127.0.0.1:{free_port()}")

    @asynccontextmanager
    async def participant(self) -> AsyncIterator["subprocess.Popen[bytes]"]:
        arguments = [self.address, self.api.url, str(self.database)]
        with subprocess.Popen(
            [sys.executable, "-m", "examples.external_api.payments", *arguments], cwd=ROOT, env=python_environment()
        ) as process:
            try:
                await wait_until_serving(self.address, process)
                yield process
            finally:
                process.kill()

    async def kill_at(self, moment: str) -> None:
        """Has a charge begun, and its participant killed when the API has come so far."""
        self.moment.name = moment
        async with self.participant() as process, asyncio.TaskGroup() as tasks:
            call = tasks.create_task(self.try_to_charge())
            assert await asyncio.to_thread(self.moment.reached.wait, TIME_LIMIT_S)
            process.kill()
            assert await call is None
        self.moment.may_go_on.set()

    async def try_to_charge(self, card: str = "4242") -> participant_pb2.ExecuteResponse | None:
        """None if nobody knows what became of it."""
        request = participant_pb2.ExecuteRequest(saga_id=SAGA_ID, step_id="charge", action="payments.charge", key=KEY, attempt=1)
        request.first_attempt_at.GetCurrentTime()
        request.input.Pack(StringValue(value=card))
        async with grpc.aio.insecure_channel(self.address) as channel:
            try:
                return await participant_pb2_grpc.ParticipantServiceStub(channel).Execute(request, timeout=CALL_TIME_S)
            except grpc.aio.AioRpcError:
                return None

    async def charge(self) -> str:
        """As a coordinator does: again and again with the same key. Returns the name of the charge."""
        async with asyncio.timeout(TIME_LIMIT_S):
            while (response := await self.try_to_charge()) is None or response.HasField("retry_later"):
                await asyncio.sleep(0.1)
        output = StringValue()
        assert response.succeeded.output.Unpack(output)
        return output.value

    async def refund(self) -> participant_pb2.CompensateResponse:
        request = participant_pb2.CompensateRequest(
            saga_id=SAGA_ID, step_id="charge", action="payments.charge", key=f"{SAGA_ID}/charge/compensate/1", execute_key=KEY, attempt=1
        )
        request.first_attempt_at.GetCurrentTime()
        request.input.Pack(StringValue(value="4242"))
        request.unknown.SetInParent()
        async with asyncio.timeout(TIME_LIMIT_S), grpc.aio.insecure_channel(self.address) as channel:
            stub = participant_pb2_grpc.ParticipantServiceStub(channel)
            while (response := await stub.Compensate(request, timeout=CALL_TIME_S)).HasField("retry_later"):
                await asyncio.sleep(0.1)
        return response


@pytest.fixture
def stand(tmp_path: Path) -> Iterator[Stand]:
    moment = Moment()
    with PaymentApi(moment) as api:
        yield Stand(api, moment, tmp_path / "payments.db")
        moment.may_go_on.set()


async def test_participant_killed_between_charge_and_reply_charges_once(stand: Stand) -> None:  # P1, R19
    await stand.kill_at("done")
    assert stand.api.ledger.charges == {KEY: 1200}
    async with stand.participant():
        assert await stand.charge() == "charge-1"
        assert await stand.charge() == "charge-1"
    assert stand.api.ledger.charges == {KEY: 1200}


@pytest.mark.full
async def test_charge_of_which_nobody_knows_is_refunded_once(stand: Stand) -> None:  # R19
    await stand.kill_at("done")
    async with stand.participant():
        assert (await stand.refund()).compensated.handler_ran
        assert (await stand.refund()).compensated.handler_ran
        late = await stand.try_to_charge()
    assert late is not None
    assert late.rejected.sealed
    assert stand.api.ledger.refunds == [KEY]


async def test_charge_that_never_reached_the_company_has_nothing_to_refund(stand: Stand) -> None:
    async with stand.participant():
        assert (await stand.refund()).compensated.handler_ran is False
        late = await stand.try_to_charge()
    assert late is not None
    assert late.rejected.sealed
    assert (stand.api.ledger.charges, stand.api.ledger.refunds) == ({}, [])


async def test_card_that_is_declined_is_a_rejection_that_stays(stand: Stand) -> None:  # R5
    async with stand.participant():
        answer = await stand.try_to_charge(EMPTY_CARD)
    assert answer is not None
    assert answer.rejected.sealed
    assert answer.rejected.status.message == "the bank declined the card"


def test_document_shows_the_example_as_it_is() -> None:
    shown = (ROOT / "docs" / "how-to" / "external-apis.md").read_text()
    source = (ROOT / "examples" / "external_api" / "payments.py").read_text()
    begin, end = source.index("class Payments"), source.index("async def main")
    assert source[begin:end].strip() in shown
