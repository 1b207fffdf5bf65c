"""Definitions over the messages of the shop: what a test does not say is plain and right."""

from collections.abc import Iterable

from google.protobuf.descriptor_pb2 import FileDescriptorSet

from coordinator.codec.definitions import CompiledDefinition, compile_definition
from saga.v1 import saga_pb2
from tests.unit.codec.message_files import shop_files

ORDER, RESERVED, CHARGED = "shop.v1.PlaceOrder", "shop.v1.Reserved", "shop.v1.Charged"


def step(step_id: str, *, after: Iterable[str] | None = None, output_type: str = RESERVED, **fields: object) -> saga_pb2.StepDefinition:
    made = saga_pb2.StepDefinition(
        id=step_id,
        **{"action": "inventory.reserve", "input_type": ORDER, "output_type": output_type, **fields},  # type: ignore[arg-type]
    )
    if after is not None:
        made.after.CopyFrom(saga_pb2.StepOrder(step_ids=after))
    return made


def definition(*steps: saga_pb2.StepDefinition, **fields: object) -> saga_pb2.SagaDefinition:
    plain = {"name": "place-order", "version": 1, "input_type": ORDER, "steps": steps or (step("reserve"),)}
    return saga_pb2.SagaDefinition(**{**plain, **fields})  # type: ignore[arg-type]


def compiled(made: saga_pb2.SagaDefinition, files: FileDescriptorSet | None = None) -> CompiledDefinition:
    return compile_definition(made, files or shop_files())
