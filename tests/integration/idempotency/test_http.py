"""Idempotent HTTP over real sockets: one execution, and equal answers for all who ask."""

import asyncio
import signal
from collections import Counter
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import URL
from sqlalchemy.ext.asyncio import create_async_engine

from participant_sdk.idempotency import SqlIdempotencyStore
from tests.integration.idempotency.conftest import CLIENTS, ShopProcess, Shops
from tests.integration.idempotency.shop import CHUNK, LARGE_CHUNKS
from tests.postgres_server import PostgresServer

KEY = {"idempotency-key": "8e03978e-40d5-43e8-bc93-6894a57f9324"}
HOLD = {**KEY, "x-hold": "1"}


async def made_store(url: str | URL) -> str:
    """The URL of a database with the table."""
    engine = create_async_engine(url)
    await SqlIdempotencyStore(engine).create_table()
    await engine.dispose()
    return engine.url.render_as_string(hide_password=False)


def problem(answer: httpx.Response) -> tuple[int, str]:
    """Status and type of a refusal."""
    assert answer.headers["content-type"] == "application/problem+json"
    told = answer.json()
    assert {"type", "title", "detail", "status"} == told.keys()
    assert told["status"] == answer.status_code
    return answer.status_code, told["type"].removeprefix("urn:saga:problem:idempotency-")


@pytest.mark.parametrize("framework", ["fastapi", pytest.param("starlette", marks=pytest.mark.full)])
async def test_200_clients_with_one_key_get_200_equal_answers_of_one_execution(shops: Shops, framework: str, tmp_path: Path) -> None:
    store = await made_store(f"sqlite+aiosqlite:///{tmp_path / 'keys.db'}")
    shop = await shops(framework=framework, store=store)
    async with shop.client() as client:
        posts = [client.post("/payments", content=b"5", headers=KEY) for _ in range(CLIENTS)]
        answers = await asyncio.gather(*posts)
    assert shop.effects == ["pay 5"]
    assert {(each.status_code, each.content, each.headers["location"]) for each in answers} == {
        (201, answers[0].content, answers[0].headers["location"])
    }
    assert Counter(each.headers.get("idempotent-replayed") for each in answers) == {None: 1, "true": CLIENTS - 1}
    assert Counter("set-cookie" in each.headers for each in answers) == {True: 1, False: CLIENTS - 1}


@pytest.mark.full
async def test_200_clients_of_two_processes_on_one_postgres_get_equal_answers_of_one_execution(
    shops: Shops, postgres: tuple[URL, str]
) -> None:
    store = await made_store(postgres[0].set(drivername="postgresql+asyncpg"))
    both = [await shops(store=store), await shops(store=store)]
    headers = {"idempotency-key": str(both[0].options.port)}
    async with both[0].client() as one, both[1].client() as other:
        posts = [client.post("/payments", content=b"5", headers=headers) for _ in range(CLIENTS // 2) for client in (one, other)]
        answers = await asyncio.gather(*posts)
        assert both[0].effects == ["pay 5"]
        assert {(each.status_code, each.content) for each in answers} == {(201, answers[0].content)}
        assert Counter(each.headers.get("idempotent-replayed") for each in answers) == {None: 1, "true": CLIENTS - 1}
        keys = [{"idempotency-key": f"{headers['idempotency-key']}-{number}"} for number in range(20)]
        posts = [client.post("/payments", content=b"6", headers=key) for key in keys for client in (one, other)]
        answers = await asyncio.gather(*posts)
    assert Counter(both[0].effects) == {"pay 5": 1, "pay 6": 20}
    assert len({each.content for each in answers}) == 20


async def test_key_of_another_tenant_or_path_is_another_key(shop: ShopProcess, client: httpx.AsyncClient) -> None:
    answers = [
        await client.post("/payments", content=b"5", headers=KEY),
        await client.post("/payments", content=b"5", headers={**KEY, "x-user": "ana"}),
        await client.post("/strict", content=b"5", headers=KEY),
    ]
    assert len({each.content for each in answers}) == len(shop.effects) == 3


async def test_quoted_key_and_other_header_name_the_same_key(shop: ShopProcess, client: httpx.AsyncClient) -> None:
    keys = [{"idempotency-key": "a-1"}, {"idempotency-key": '"a-1"'}, {"x-idempotency-key": "a-1"}]
    answers = [await client.post("/payments", content=b"5", headers=key) for key in keys]
    assert len({each.content for each in answers}) == len(shop.effects) == 1


async def test_requests_without_a_key_or_of_other_methods_run_each_time(shop: ShopProcess, client: httpx.AsyncClient) -> None:
    for _ in range(2):
        assert (await client.post("/payments", content=b"5")).status_code == 201
        assert (await client.put("/payments", content=b"5", headers=KEY)).status_code == 201
    assert len(shop.effects) == 4


@pytest.mark.parametrize(
    "other",
    [
        {"content": b"6"},
        {"content": b"5", "params": {"a": "b"}},
        {"content": b"5", "headers": KEY | {"content-type": "text/x-other"}},
    ],
    ids=["body", "query", "content type"],
)
async def test_key_with_another_request_is_refused(shop: ShopProcess, client: httpx.AsyncClient, other: dict[str, Any]) -> None:  # R22
    await client.post("/payments", content=b"5", headers=KEY)
    arguments: dict[str, Any] = {"headers": KEY, **other}
    answer = await client.post("/payments", **arguments)
    assert problem(answer) == (422, "key-reused")
    assert shop.effects == ["pay 5"]


async def test_key_with_another_request_is_refused_at_once_while_the_first_runs(shop: ShopProcess, client: httpx.AsyncClient) -> None:
    first = asyncio.create_task(client.post("/payments", content=b"5", headers=HOLD))
    await shop.wait_effects(1)
    assert problem(await client.post("/payments", content=b"6", headers=KEY)) == (422, "key-reused")
    await client.get("/open")
    assert (await first).status_code == 201


@pytest.mark.parametrize("key", ["", "two words", "a,b", '"open', "k" * 256, "naïve", '"\\x"', '""', "a\tb", "\\", '"' + "k" * 256 + '"'])
async def test_rubbish_for_a_key_is_refused(shop: ShopProcess, client: httpx.AsyncClient, key: str) -> None:
    answer = await client.post("/payments", content=b"5", headers=[(b"idempotency-key", key.encode())])
    assert problem(answer) == (400, "key-invalid")
    assert shop.effects == []


async def test_two_keys_that_differ_are_refused(shop: ShopProcess, client: httpx.AsyncClient) -> None:
    answer = await client.post("/payments", content=b"5", headers={"idempotency-key": "a", "x-idempotency-key": "b"})
    assert problem(answer) == (400, "key-invalid")


async def test_route_that_needs_a_key_refuses_without_one(shop: ShopProcess, client: httpx.AsyncClient) -> None:
    assert problem(await client.post("/strict", content=b"5")) == (400, "key-missing")
    assert shop.effects == []


async def test_body_that_is_too_large_is_refused_announced_or_not(shop: ShopProcess, client: httpx.AsyncClient) -> None:
    async def unannounced() -> object:
        for _ in range(LARGE_CHUNKS):
            yield CHUNK

    for content in (CHUNK * LARGE_CHUNKS, unannounced()):
        try:
            answer = await client.post("/payments", content=content, headers=KEY)  # type: ignore[arg-type]
        except httpx.WriteError:
            continue  # It was answered and closed while this one was still writing.
        assert problem(answer) == (413, "request-too-large")
    assert shop.effects == []


@pytest.mark.parametrize(("status", "runs"), [(404, 1), (400, 1), (500, 2), (503, 2), (409, 2), (429, 2), (401, 2)])
async def test_final_answers_are_kept_and_others_give_the_key_back(
    shop: ShopProcess, client: httpx.AsyncClient, status: int, runs: int
) -> None:
    for _ in range(2):
        assert (await client.post("/fail", content=str(status).encode(), headers=KEY)).status_code == status
    assert shop.effects == ["fail"] * runs


async def test_handler_that_raises_gives_the_key_back(shop: ShopProcess) -> None:
    for _ in range(2):
        async with shop.client() as client:  # The server closes the connection of a handler that raised.
            assert (await client.post("/crash", headers=KEY)).status_code == 500
    assert shop.effects == ["crash"] * 2


async def test_handler_that_raises_is_not_run_again_where_unknown_is_refused(shops: Shops) -> None:
    shop = await shops(when_unknown="REFUSE")
    async with shop.client() as client:
        assert (await client.post("/crash", headers=KEY)).status_code == 500
    async with shop.client() as client:
        assert problem(await client.post("/crash", headers=KEY)) == (409, "outcome-unknown")
        assert (await client.post("/fail", content=b"503", headers=KEY)).status_code == 503
        assert problem(await client.post("/fail", content=b"503", headers=KEY)) == (409, "outcome-unknown")
        for _ in range(2):
            assert (await client.post("/fail", content=b"429", headers={"idempotency-key": "b"})).status_code == 429
    assert shop.effects == ["crash", "fail", "fail", "fail"]


async def test_answer_too_large_to_keep_is_given_once_and_never_runs_again(shop: ShopProcess, client: httpx.AsyncClient) -> None:
    answer = await client.post("/large", headers=KEY)
    assert (answer.status_code, len(answer.content)) == (200, len(CHUNK) * LARGE_CHUNKS)
    again = await client.post("/large", headers=KEY)
    assert problem(again) == (409, "answer-not-kept")
    assert again.headers["idempotent-replayed"] == "true"
    assert shop.effects == ["large"]


async def test_events_flow_at_once_and_end_with_their_reader(shop: ShopProcess, client: httpx.AsyncClient) -> None:
    async with client.stream("POST", "/events", headers=KEY) as answer:
        assert await anext(answer.aiter_bytes()) == b"data: one\n\n"
        assert problem(await client.post("/events", headers=KEY)) == (409, "answer-not-kept")
    assert await shop.wait_effects(2) == ["events", "events ended"]


async def test_answer_does_not_wait_for_background_tasks(shop: ShopProcess, client: httpx.AsyncClient) -> None:
    for _ in range(2):
        assert (await client.post("/later", headers=KEY)).content == b"begun"
    assert shop.effects == []
    await client.get("/open")
    assert await shop.wait_effects(1) == ["later"]


async def test_client_that_gave_up_finds_the_answer_when_it_comes_again(shop: ShopProcess, client: httpx.AsyncClient) -> None:
    with pytest.raises(httpx.ReadTimeout):
        await client.post("/payments", content=b"5", headers=HOLD, timeout=httpx.Timeout(10, read=0.2))
    await shop.wait_effects(1)
    again = asyncio.create_task(client.post("/payments", content=b"5", headers=KEY))
    await client.get("/open")
    assert (await again).status_code == 201
    assert (await client.post("/payments", content=b"5", headers=KEY)).content == (await again).content
    assert shop.effects == ["pay 5"]


async def test_duplicate_that_waited_long_enough_is_told_to_come_again(shops: Shops) -> None:
    shop = await shops(wait_s=0.1)
    async with shop.client() as client:
        first = asyncio.create_task(client.post("/payments", content=b"5", headers=HOLD))
        await shop.wait_effects(1)
        answer = await client.post("/payments", content=b"5", headers=KEY)
        assert problem(answer) == (409, "in-progress")
        assert int(answer.headers["retry-after"]) >= 1
        await client.get("/open")
        assert (await client.post("/payments", content=b"5", headers=KEY)).content == (await first).content


@pytest.mark.full
@pytest.mark.parametrize("when_unknown", ["RUN_AGAIN", "REFUSE"])
async def test_process_killed_in_the_middle_of_a_request(shops: Shops, when_unknown: str, tmp_path: Path) -> None:
    store = await made_store(f"sqlite+aiosqlite:///{tmp_path / 'keys.db'}")
    options: dict[str, Any] = {"store": store, "lease_s": 1.0, "when_unknown": when_unknown}
    killed, other = await shops(**options), await shops(**options)
    async with killed.client() as client, other.client() as second:
        first = asyncio.create_task(client.post("/payments", content=b"5", headers=HOLD))
        await killed.wait_effects(1)
        killed.end(signal.SIGKILL)
        with pytest.raises(httpx.TransportError):
            await first
        answer = await second.post("/payments", content=b"5", headers=KEY)  # Waits for the end of the lease.
        if when_unknown == "REFUSE":
            assert problem(answer) == (409, "outcome-unknown")
            assert other.effects == ["pay 5"]
        else:
            assert answer.status_code == 201
            assert other.effects == ["pay 5", "pay 5"]  # Nobody knows what the first one did: the handler must bear it.
            assert (await second.post("/payments", content=b"5", headers=KEY)).content == answer.content


@pytest.mark.full
async def test_process_that_stood_still_beyond_its_lease_overwrites_nothing(shops: Shops, tmp_path: Path) -> None:
    store = await made_store(f"sqlite+aiosqlite:///{tmp_path / 'keys.db'}")
    frozen, other = await shops(store=store, lease_s=1.0), await shops(store=store, lease_s=1.0)
    async with frozen.client() as client, other.client() as second:
        first = asyncio.create_task(client.post("/payments", content=b"5", headers=HOLD))
        await frozen.wait_effects(1)
        frozen.send_signal(signal.SIGSTOP)
        answer = await second.post("/payments", content=b"5", headers=KEY)
        frozen.send_signal(signal.SIGCONT)
        assert problem(await first) == (500, "answer-not-stored")
        for each in (client, second):
            assert (await each.post("/payments", content=b"5", headers=KEY)).content == answer.content


@pytest.mark.full
async def test_run_longer_than_its_lease_keeps_it(shops: Shops, tmp_path: Path) -> None:
    store = await made_store(f"sqlite+aiosqlite:///{tmp_path / 'keys.db'}")
    both = [await shops(store=store, lease_s=2.0), await shops(store=store, lease_s=2.0, wait_s=5.0)]
    async with both[0].client() as client, both[1].client() as second:
        first = asyncio.create_task(client.post("/payments", content=b"5", headers=HOLD))
        await both[0].wait_effects(1)
        assert problem(await second.post("/payments", content=b"5", headers=KEY)) == (409, "in-progress")  # Two leases later.
        await client.get("/open")
        assert (await second.post("/payments", content=b"5", headers=KEY)).content == (await first).content
    assert both[0].effects == ["pay 5"]


@pytest.mark.full
async def test_database_away_in_each_phase(shops: Shops, tmp_path: Path) -> None:
    server = PostgresServer(tmp_path / "postgres")
    server.start()
    try:
        store = await made_store(server.url.set(drivername="postgresql+asyncpg"))
        shop = await shops(store=store, lease_s=2.0, settle_s=0.5)
        patient = await shops(store=store)
        async with shop.client() as client, patient.client() as second:
            server.stop(signal.SIGQUIT)
            refused = await client.post("/payments", content=b"before", headers=KEY)
            assert problem(refused) == (503, "store-unavailable")
            assert int(refused.headers["retry-after"]) >= 1
            assert shop.effects == [], "nothing runs whose key cannot be looked up"
            server.start()
            assert (await client.post("/payments", content=b"before", headers=KEY)).status_code == 201

            server.stop(signal.SIGQUIT)
            assert problem(await client.post("/payments", content=b"before", headers=KEY)) == (503, "store-unavailable")
            server.start()
            assert (await client.post("/payments", content=b"before", headers=KEY)).headers["idempotent-replayed"] == "true"

            held = asyncio.create_task(second.post("/payments", content=b"short", headers={**HOLD, "idempotency-key": "short"}))
            await shop.wait_effects(2)
            server.stop(signal.SIGQUIT)
            await second.get("/open")
            server.start()
            assert (await held).status_code == 201, "an answer is stored when the database is back in time"
            again = await client.post("/payments", content=b"short", headers={"idempotency-key": "short"})
            assert again.content == (await held).content

            held = asyncio.create_task(client.post("/payments", content=b"long", headers={**HOLD, "idempotency-key": "long"}))
            await shop.wait_effects(3)
            server.stop(signal.SIGQUIT)
            await client.get("/open")
            assert problem(await held) == (500, "answer-not-stored")
            server.start()
            again = await client.post("/payments", content=b"long", headers={"idempotency-key": "long"})
            assert again.status_code == 201
            assert shop.effects[2:] == ["pay long", "pay long"]
    finally:
        server.stop()
