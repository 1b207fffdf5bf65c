"""Definitions over the messages of the shop: what a test does not say is plain and right."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from google.protobuf.descriptor_pb2 import FileDescriptorSet

from coordinator.codec.definitions import CompiledDefinition, compile_definition
from coordinator.core.values import Failure, Payload
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


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownValues:
    """What a saga knows: implements `Values`."""

    input: Payload
    outputs: Mapping[int, Payload] = field(default_factory=dict)
    output: Payload | None = None
    failure: Failure | None = None

    def output_of(self, index: int) -> Payload | None:
        return self.outputs.get(index)


def known_values(
    order: bytes = b"",
    *,
    outputs: Mapping[int, Payload] | None = None,
    output: Payload | None = None,
    failure: Failure | None = None,
) -> KnownValues:
    return KnownValues(input=Payload(ORDER, order), outputs=outputs or {}, output=output, failure=failure)
