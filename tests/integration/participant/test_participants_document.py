"""docs/participants.md does what it says about middleware, and about a gRPC server that is there already."""

import asyncio
import re
from datetime import timedelta
from typing import Any

import grpc
from google.protobuf.wrappers_pb2 import StringValue

from participant_sdk import NoBarrier, Saga, StepKind
from participant_sdk.testing import SagaKit
from tests.documents import ROOT
from tests.integration.participant.scripted_coordinator import ScriptedCoordinator, served

DOCUMENT = (ROOT / "docs" / "participants.md").read_text(encoding="utf-8")


def names_of(snippet: str) -> dict[str, Any]:
    (code,) = re.findall(rf"<!-- the test-suite runs this: {snippet} -->\n```python\n(.*?)```", DOCUMENT, re.DOTALL)
    names: dict[str, Any] = {"__name__": f"participants_{snippet}"}
    exec(compile(code, "docs/participants.md", "exec", dont_inherit=True), names)
    return names


async def test_middleware_is_around_the_handler(saga_kit: SagaKit) -> None:
    names = names_of("middleware")
    saga_kit.serve(names["Rates"](NoBarrier(), valid_for=timedelta(days=2)))
    for name in ("shop-quote", "elsewhere"):
        quote = Saga(name, input=StringValue)
        quote.returns(quote.step(names["Rates"].quote, kind=StepKind.READ_ONLY))
        run = await saga_kit.run(quote, StringValue(value="a bicycle"))
        if name == "shop-quote":
            run.then_completed(StringValue(value="a bicycle for shop within 2 days, 0:00:00"))
        else:
            run.then_compensated(because="NOT_ALLOWED")


async def test_participant_is_hosted_in_a_server_that_is_there() -> None:
    coordinator, rates = ScriptedCoordinator(), names_of("middleware")["Rates"](NoBarrier(), valid_for=timedelta(days=2))
    orders = grpc.method_handlers_generic_handler("orders.Orders", {})
    async with served(coordinator) as address:
        hosting = asyncio.ensure_future(names_of("hosted")["serve_beside_orders"](orders, rates, address))
        request = await asyncio.wait_for(coordinator.registered(), 10)
        assert request.description.name == "rates"
        async with grpc.aio.insecure_channel(request.target) as channel:
            await asyncio.wait_for(channel.channel_ready(), 10)
        hosting.cancel()
        await asyncio.gather(hosting, return_exceptions=True)
