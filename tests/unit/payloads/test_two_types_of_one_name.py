"""A name on the wire is one type: in a participant and in a definition, whatever the classes come from."""

from dataclasses import dataclass

import pytest
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


def test_two_types_of_one_name_are_refused() -> None:
    line, other = payload_type(Line).descriptor, payload_type(OtherLine).descriptor
    with pytest.raises(DescriptorConflictError, match=r"two types that are named orders\.v1\.Line, and differ; name one with @payload"):
        closed_descriptors([line, other])
    with pytest.raises(DescriptorConflictError, match=r"orders\.v1\.Line, and differ"):
        closed_descriptors([payload_type(Basket).descriptor, other])
    elsewhere = FileDescriptorProto(name="orders/v1/orders.proto", package="orders.v1")
    elsewhere.message_type.add(name="Line")
    generated = MessageTypes(FileDescriptorSet(file=[elsewhere])).find_descriptor("orders.v1.Line")
    assert generated is not None
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
