"""A web shop in a process of its own: `python -m tests.integration.idempotency.shop '{"port": 8000, …}'`.

What its handlers do, they do to the ledger, a file with one line for each effect.
"""

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import uvicorn
from fastapi import FastAPI
from sqlalchemy.ext.asyncio import create_async_engine
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from participant_sdk.idempotency import (
    IdempotencyMiddleware,
    IdempotencyPolicy,
    IdempotencyStore,
    KeyRule,
    MemoryIdempotencyStore,
    SqlIdempotencyStore,
    WhenUnknown,
    forgetting_expired_keys,
    post_and_patch,
)

CHUNK = b"x" * 2**16
LARGE_CHUNKS = 32
"""2 MiB: more than is kept."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    port: int
    ledger: str
    store: str = "memory"
    """"memory", or the URL of a database with the table."""
    framework: str = "starlette"
    lease_s: float = 30.0
    wait_s: float = 60.0
    settle_s: float = 10.0
    when_unknown: str = "RUN_AGAIN"


class Shop:
    """What the handlers do."""

    def __init__(self, ledger: Path) -> None:
        self._ledger = ledger
        self._gate = asyncio.Event()

    def write(self, line: str) -> None:
        with self._ledger.open("a") as ledger:
            ledger.write(f"{line}\n")

    async def pay(self, request: Request) -> Response:
        body = await request.body()
        self.write(f"pay {body.decode()}")
        if request.headers.get("x-hold"):
            await self._gate.wait()
        headers = {"location": f"/payments/{uuid4()}", "set-cookie": "session=secret"}
        return JSONResponse({"payment": str(uuid4())}, 201, headers)

    async def open_gate(self, _: Request) -> Response:
        self._gate.set()
        return Response(status_code=204)

    async def close_gate(self, _: Request) -> Response:
        self._gate.clear()
        return Response(status_code=204)

    async def fail(self, request: Request) -> Response:
        self.write("fail")
        return Response(status_code=int((await request.body()).decode()))

    async def crash(self, _: Request) -> Response:
        self.write("crash")
        raise RuntimeError("a bug, as arranged")

    async def large(self, _: Request) -> Response:
        self.write("large")

        async def chunks() -> AsyncIterator[bytes]:
            for _ in range(LARGE_CHUNKS):
                yield CHUNK

        return StreamingResponse(chunks())

    async def events(self, _: Request) -> Response:
        """A stream that goes on until its reader goes away."""
        self.write("events")

        async def endless() -> AsyncIterator[bytes]:
            try:
                yield b"data: one\n\n"
                await asyncio.Event().wait()
            finally:
                self.write("events ended")

        return StreamingResponse(endless(), media_type="text/event-stream")

    async def later(self, _: Request) -> Response:
        async def work() -> None:
            await self._gate.wait()
            self.write("later")

        return Response(b"begun", background=BackgroundTask(work))


def rule(scope: Any) -> KeyRule:
    return KeyRule.REQUIRED if scope["path"] == "/strict" else post_and_patch(scope)


def tenant_of(scope: Any) -> str:
    return next((value.decode() for name, value in scope["headers"] if name == b"x-user"), "")


def application(options: Options) -> Any:
    shop = Shop(Path(options.ledger))
    engine = None if options.store == "memory" else create_async_engine(options.store)
    store: IdempotencyStore = MemoryIdempotencyStore() if engine is None else SqlIdempotencyStore(engine, time_limit=timedelta(seconds=2))
    policy = IdempotencyPolicy(
        lease=timedelta(seconds=options.lease_s),
        wait=timedelta(seconds=options.wait_s),
        settle_time_limit=timedelta(seconds=options.settle_s),
        when_unknown=WhenUnknown[options.when_unknown],
    )
    guarding: dict[str, Any] = {"store": store, "tenant_of": tenant_of, "rule": rule, "policy": policy}

    @asynccontextmanager
    async def lifespan(_: Any) -> AsyncIterator[None]:
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(forgetting_expired_keys(store))
            yield
        if engine is not None:
            await engine.dispose()

    posts = {
        "/payments": shop.pay,
        "/strict": shop.pay,
        "/fail": shop.fail,
        "/crash": shop.crash,
        "/large": shop.large,
        "/events": shop.events,
        "/later": shop.later,
    }
    if options.framework == "fastapi":
        api = FastAPI(lifespan=lifespan)
        for path, endpoint in posts.items():
            api.post(path, response_model=None)(endpoint)
        api.get("/open", response_model=None)(shop.open_gate)
        api.get("/close", response_model=None)(shop.close_gate)
        api.add_middleware(IdempotencyMiddleware, **guarding)
        return api
    routes = [Route(path, endpoint, methods=["POST", "PUT"]) for path, endpoint in posts.items()]
    routes.append(Route("/open", shop.open_gate, methods=["GET"]))
    routes.append(Route("/close", shop.close_gate, methods=["GET"]))
    return Starlette(routes=routes, lifespan=lifespan, middleware=[Middleware(IdempotencyMiddleware, **guarding)])


def main() -> None:
    options = Options(**json.loads(sys.argv[1]))
    uvicorn.run(application(options), host="127.0.0.1", port=options.port, log_level="warning", backlog=1024)


if __name__ == "__main__":
    main()
