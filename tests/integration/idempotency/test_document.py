"""docs/how-to/idempotent-apis.md does what it says: all its snippets are run."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
from google.protobuf.wrappers_pb2 import StringValue

from participant_sdk.closings import wait_for_closings
from participant_sdk.idempotency import KeyRule, MemoryIdempotencyStore, WhenUnknown, refusals
from tests.documents import ROOT
from tests.processes import python_environment

DOCUMENT = ROOT / "docs" / "how-to" / "idempotent-apis.md"
SNIPPET = re.compile(r"<!-- the test-suite runs this: ([\w ]+) -->\n```python\n(.*?)```", re.DOTALL)


def snippet(name: str) -> dict[str, Any]:
    """The names that a snippet makes."""
    source = dict(SNIPPET.findall(DOCUMENT.read_text()))[name]
    names: dict[str, Any] = {"__name__": name}
    exec(compile(source, f"{DOCUMENT.name}: {name}", "exec"), names)
    return names


def test_every_snippet_is_run() -> None:
    text = DOCUMENT.read_text()
    assert text.count("```python\n") == len(SNIPPET.findall(text)) == len({"http", "http client", "rule", "grpc", "policy"})


async def test_http_snippets_do_what_they_say(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    app = snippet("http")["app"]
    async with app.router.lifespan_context(app) as state:
        assert state is None
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://shop") as client:
            await snippet("http client")["pay_twice"](client)
    await wait_for_closings()


async def test_grpc_snippet_does_what_it_says() -> None:
    names = snippet("grpc")
    server = names["make_server"](MemoryIdempotencyStore())
    runs: list[str] = []

    async def pay(request: StringValue, context: Any) -> StringValue:
        runs.append(request.value)
        return StringValue(value=str(len(runs)))

    handler: Any = grpc.unary_unary_rpc_method_handler(pay, StringValue.FromString, StringValue.SerializeToString)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("shop.v1.Shop", {"Pay": handler}),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        await names["pay_twice"](channel)
    await server.stop(None)
    assert runs == ["5"]


def test_rule_and_policy_are_what_they_say() -> None:
    rule = snippet("rule")["rule"]
    asked = [("POST", "/payments"), ("POST", "/uploads/a"), ("PATCH", "/orders"), ("GET", "/payments")]
    found = [rule({"method": method, "path": path}) for method, path in asked]
    assert found == [KeyRule.REQUIRED, KeyRule.IGNORED, KeyRule.OPTIONAL, KeyRule.IGNORED]
    assert snippet("policy")["careful"].when_unknown is WhenUnknown.REFUSE


def test_every_reason_is_in_the_table() -> None:
    reasons = set(re.findall(r'"(IDEMPOTENCY_\w+)"', Path(refusals.__file__).read_text())) | {"IDEMPOTENCY_KEY_REUSED"}
    assert reasons == set(re.findall(r"`(IDEMPOTENCY_\w+)`", DOCUMENT.read_text()))


def test_all_but_the_sql_store_needs_no_extra() -> None:
    code = (
        "import sys, participant_sdk.idempotency as made; made.IdempotencyMiddleware, made.MemoryIdempotencyStore; "
        "print({'sqlalchemy', 'starlette', 'pydantic'} & {*sys.modules}); made.SqlIdempotencyStore; print('sqlalchemy' in sys.modules)"
    )
    ended = subprocess.run([sys.executable, "-c", code], env=python_environment(), capture_output=True, text=True, timeout=60, check=True)
    assert ended.stdout.split("\n")[:2] == ["set()", "True"]
