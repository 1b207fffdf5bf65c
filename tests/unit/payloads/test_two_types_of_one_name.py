"""A name on the wire is one type: in a participant and in a definition, whatever the classes come from."""

from dataclasses import dataclass

import pytest
from google.protobuf.descriptor import Descriptor
from google.protobuf.descriptor_pb2 import FileDescriptorProto, FileDescriptorSet

from participant_sdk import DefinitionError, Participant, ParticipantDefinitionError, Saga, StepContext, action
from participant_sdk.definitions import MessageTypes
from participant_sdk.descriptors import DescriptorConflictError, closed_descriptors
from participant_sdk.payloads import payload, payload_type
from saga.v1 import coordinator_pb2
from tests.unit.payloads.orders import Line


@payload("orders.v1.Line")
@dataclass
class OtherLine:
    code: int


@payload("orders.v1.Basket")
@dataclass
class Basket:
    line: Line


def test_equal_files_of_two_pools_are_one() -> None:
    """A stored definition brings its types along, without the comments and names that compilers differ in."""
    generated = coordinator_pb2.GetSagaRequest.DESCRIPTOR
    stored = MessageTypes(closed_descriptors([generated])).find_descriptor("saga.v1.GetSagaRequest")
    assert stored is not None
    assert stored.file is not generated.file
    assert closed_descriptors([stored, generated]).file[-1].name == "saga/v1/coordinator.proto"


def typed(file: FileDescriptorProto, name: str) -> Descriptor:
    """A message type in a file and a pool of their own."""
    file.message_type.add(name=name)
    found = MessageTypes(FileDescriptorSet(file=[file])).find_descriptor(f"{file.package}.{name}".removeprefix("."))
    assert found is not None
    return found


def test_two_types_of_one_name_are_refused() -> None:
    line, other = payload_type(Line).descriptor, payload_type(OtherLine).descriptor
    with pytest.raises(DescriptorConflictError, match=r"two types that are named orders\.v1\.Line, and differ; name one with @payload"):
        closed_descriptors([line, other])
    with pytest.raises(DescriptorConflictError, match=r"orders\.v1\.Line, and differ"):
        closed_descriptors([payload_type(Basket).descriptor, other])
    one, another = (typed(FileDescriptorProto(name="a.proto"), name) for name in ("One", "Another"))
    with pytest.raises(DescriptorConflictError, match=r"types of two files that are both called a\.proto, and differ"):
        closed_descriptors([one, another])
    generated = typed(FileDescriptorProto(name="orders/v1/orders.proto", package="orders.v1"), "Line")
    with pytest.raises(DescriptorConflictError, match=r"orders\.v1\.Line, in orders/v1/orders\.proto and in orders\.v1\.Line\.payload"):
        closed_descriptors([generated, line])


def test_participant_and_saga_of_two_types_of_one_name_are_refused() -> None:
    with pytest.raises(ParticipantDefinitionError, match=r"its actions take or return two types that are named orders\.v1\.Line"):

        class Shelf(Participant, name="shelf"):
            @action
            async def put(self, request: Line, step: StepContext) -> Line:
                return request

            @action
            async def take(self, request: OtherLine, step: StepContext) -> OtherLine:
                return request

    saga = Saga("carry", input=Line)
    saga.step("shelf.put", "input", request=OtherLine, response=Line)
    with pytest.raises(DefinitionError, match=r"two types that are named orders\.v1\.Line, and differ"):
        saga.definition()
