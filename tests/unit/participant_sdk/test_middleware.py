"""What runs around handlers: its order, what it sees, and what it may not do."""

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractContextManager, asynccontextmanager, contextmanager, nullcontext, suppress
from contextvars import ContextVar
from datetime import timedelta
from typing import Any

import pytest
from google.protobuf.wrappers_pb2 import StringValue

from participant_sdk import (
    MiddlewareMisusedError,
    NoBarrier,
    Participant,
    Rejected,
    RetryLater,
    RetryPolicy,
    Saga,
    StepContext,
    StepKind,
    action,
)
from participant_sdk.middleware import Direction, HandlerRun, Middleware, around, around_plain
from participant_sdk.testing import SagaKit, step_context, stub

tenant: ContextVar[str] = ContextVar("tenant")


class Orders(Participant, name="orders"):
    def __init__(self, *middleware: Middleware) -> None:
        super().__init__(barrier=NoBarrier(), middleware=middleware)
        self.seen: list[str] = []

    @action
    async def place(self, request: StringValue, step: StepContext) -> StringValue:
        self.seen.append(f"place for {tenant.get('nobody')}")
        return request

    @place.compensation
    async def withdraw(self, request: StringValue, placed: StringValue | None, step: StepContext) -> None:
        self.seen.append(f"withdraw for {tenant.get('nobody')}")
        if request.value == "broken":
            raise OSError("the printer is on fire")

    @action
    def print(self, request: StringValue, step: StepContext) -> StringValue:
        self.seen.append(f"print for {tenant.get('nobody')}")
        return request


refuse = stub("payments.charge", request=StringValue, response=StringValue).rejects("DECLINED")


def saga(*, then_refused: bool = False) -> Saga[StringValue]:
    made = Saga("orders", input=StringValue)
    made.step(Orders.place, compensate_retry=RetryPolicy(max_attempts=2))
    if then_refused:
        made.step("payments.charge", request=StringValue, response=StringValue, kind=StepKind.PIVOT)
    else:
        made.step(Orders.print, kind=StepKind.RETRIABLE)
    return made


@contextmanager
def for_tenant(run: HandlerRun) -> Iterator[None]:
    assert isinstance(run.request, StringValue)
    token = tenant.set(run.request.value)
    try:
        yield
    finally:
        tenant.reset(token)


async def test_context_variable_is_there_in_every_handler_and_nowhere_else(saga_kit: SagaKit) -> None:
    orders = Orders(for_tenant)
    saga_kit.serve(orders)
    (await saga_kit.run(saga(), StringValue(value="ann"))).then_completed()
    assert orders.seen == ["place for ann", "print for ann"]
    assert tenant.get("nobody") == "nobody"


async def test_middleware_sees_runs_in_their_order_and_the_first_is_outermost(saga_kit: SagaKit) -> None:
    told: list[str] = []

    def telling(name: str) -> Middleware:
        @contextmanager
        def tell(run: HandlerRun) -> Iterator[None]:
            told.append(f"{name} begins {run.direction} {run.action.qualified_name}")
            yield
            told.append(f"{name} ends")

        return tell

    @asynccontextmanager
    async def awaits(run: HandlerRun) -> AsyncIterator[None]:
        told.append(f"awaits in {run.step.step_id} {run.output}".strip())
        yield

    saga_kit.serve(Orders(telling("outer"), telling("inner"), awaits), refuse)
    (await saga_kit.run(saga(then_refused=True), StringValue(value="ann"))).then_compensated(because="DECLINED")
    assert told == [
        *("outer begins execute orders.place", "inner begins execute orders.place", "awaits in place None", "inner ends", "outer ends"),
        *("outer begins compensate orders.place", "inner begins compensate orders.place", 'awaits in place value: "ann"'),
        *("inner ends", "outer ends"),
    ]


async def test_middleware_may_refuse_and_postpone(saga_kit: SagaKit) -> None:
    asked = 0

    @contextmanager
    def guard(run: HandlerRun) -> Iterator[None]:
        nonlocal asked
        asked += 1
        if asked == 1:
            raise RetryLater(timedelta(seconds=5))
        if asked == 2:
            raise Rejected("NOT_ALLOWED")
        yield

    orders = Orders(guard)
    saga_kit.serve(orders)
    run = await saga_kit.run(saga(), StringValue(value="ann"))
    run.then_compensated(because="NOT_ALLOWED").then_attempts("place", 2)
    assert orders.seen == []


@contextmanager
def swallowing(run: HandlerRun) -> Iterator[None]:
    with suppress(OSError):
        yield


async def test_undo_whose_error_is_swallowed_is_not_taken_for_done(saga_kit: SagaKit) -> None:
    saga_kit.serve(Orders(swallowing), refuse)
    run = await saga_kit.run(saga(then_refused=True), StringValue(value="broken"))
    run.then_needs_person(step="place")
    assert "swallowed what its handler raised" in run.story()


def run_of(handler_of: Any = Orders.place) -> HandlerRun:
    return HandlerRun(action=handler_of, direction=Direction.EXECUTE, request=StringValue(), output=None, step=step_context())


async def test_error_that_is_swallowed_is_an_error() -> None:
    with pytest.raises(MiddlewareMisusedError, match=r"a middleware of orders\.place swallowed"):
        async with around([swallowing], run_of()):
            raise OSError
    with pytest.raises(MiddlewareMisusedError), around_plain([swallowing], run_of()):
        raise OSError


async def test_error_may_be_turned_into_another() -> None:
    @contextmanager
    def translating(run: HandlerRun) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise Rejected("NO_PRINTER") from error

    with pytest.raises(Rejected):
        async with around([translating, lambda _: nullcontext()], run_of()):
            raise OSError


@pytest.mark.parametrize(
    ("made", "said"),
    [
        (lambda _: None, "a middleware returns a context manager, found NoneType"),
        (lambda _: nullcontext, "a middleware returns a context manager, found ABCMeta"),
    ],
)
async def test_what_is_no_context_manager_is_refused(made: Callable[[HandlerRun], AbstractContextManager[None]], said: str) -> None:
    with pytest.raises(MiddlewareMisusedError, match=said):
        async with around([made], run_of()):
            pytest.fail("the handler must not run")
    with pytest.raises(MiddlewareMisusedError, match=said), around_plain([made], run_of()):
        pytest.fail("the handler must not run")


def test_asynchronous_one_is_refused_around_a_plain_handler() -> None:
    @asynccontextmanager
    async def awaits(run: HandlerRun) -> AsyncIterator[None]:
        yield

    said = "cannot run around a plain `def` handler"
    with pytest.raises(MiddlewareMisusedError, match=said), around_plain([awaits], run_of(Orders.print)):
        pytest.fail("the handler must not run")
