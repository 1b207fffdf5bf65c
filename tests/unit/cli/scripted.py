"""What the coordinator that only answers is filled with for the command line."""

from collections.abc import Awaitable, Callable
from typing import TypeAlias

from click.testing import Result

from participant_sdk.descriptors import closed_descriptors
from participant_sdk.ids import new_saga_id
from saga.v1 import coordinator_pb2, saga_pb2
from shop.v1.shop_pb2 import PlaceOrder
from tests.unit.client.fake_coordinator import FakeCoordinator

Invoke: TypeAlias = Callable[..., Awaitable[Result]]


def put_definition(coordinator: FakeCoordinator) -> saga_pb2.SagaDefinition:
    """The definition `place-order`, with the step `charge`, as it is kept: what a test changes in it holds."""
    charge = saga_pb2.StepDefinition(
        id="charge",
        action="payments.charge",
        kind=saga_pb2.STEP_KIND_COMPENSATABLE,
        input="input",
        input_type="shop.v1.PlaceOrder",
        output_type="shop.v1.PaymentCharged",
    )
    definition = saga_pb2.SagaDefinition(name="place-order", version=1, input_type="shop.v1.PlaceOrder", steps=[charge])
    stored = coordinator_pb2.GetDefinitionResponse(definition=definition, descriptors=closed_descriptors([PlaceOrder.DESCRIPTOR]))
    coordinator.definitions.append(stored)
    return stored.definition


async def put_saga(coordinator: FakeCoordinator) -> str:
    """A saga of that definition, which runs; its id."""
    saga_id = new_saga_id()
    saga = saga_pb2.Saga(id=saga_id, definition=saga_pb2.DefinitionReference(name="place-order", version=1))
    saga.input.Pack(PlaceOrder(order_id="42"))
    coordinator.sagas[saga_id] = saga
    await coordinator.move(saga_id, saga_pb2.SAGA_STATUS_RUNNING, saga_started=saga_pb2.SagaStarted(input=saga.input))
    return saga_id
