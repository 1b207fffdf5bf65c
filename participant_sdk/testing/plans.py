"""What a test has run: a saga of the builder, or a definition that came from elsewhere."""

from dataclasses import dataclass
from typing import Any, TypeAlias

from google.protobuf.descriptor_pb2 import FileDescriptorSet

from participant_sdk.builder import Saga
from saga.v1 import saga_pb2


@dataclass(frozen=True, slots=True)
class Definition:
    """A definition with its message types, as it stands in a file or at a coordinator."""

    message: saga_pb2.SagaDefinition
    descriptors: FileDescriptorSet

    @property
    def title(self) -> str:
        """Example: "place-order v2"."""
        return f"{self.message.name} v{self.message.version}"

    def calls(self) -> list[saga_pb2.StepDefinition | saga_pb2.HookDefinition]:
        """Its steps, then its hooks."""
        message = self.message
        calls: list[saga_pb2.StepDefinition | saga_pb2.HookDefinition] = [*message.steps]
        calls += [message.on_success] if message.HasField("on_success") else []
        calls += [message.on_failure] if message.HasField("on_failure") else []
        return calls


Plan: TypeAlias = Saga[Any] | Definition


def definition_of(plan: Plan) -> Definition:
    """The definition on the wire. Raises DefinitionError with everything that is wrong with a saga of the builder."""
    return plan if isinstance(plan, Definition) else Definition(plan.definition(), plan.descriptors())
