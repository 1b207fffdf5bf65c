"""A service of a team that knows nothing of sagas: its messages and methods, as descriptors only. There is no generated code for it."""

from typing import Any, Final

from google.protobuf import text_format
from google.protobuf.descriptor_pb2 import FileDescriptorProto, FileDescriptorSet
from google.protobuf.message import Message

from participant_sdk.definitions.message_types import MessageTypes

SERVICE: Final = "warehouse.v1.Warehouse"
RESERVE: Final = f"{SERVICE}/Reserve"
RELEASE: Final = f"{SERVICE}/Release"
WATCH: Final = f"{SERVICE}/Watch"

_MESSAGES: Final = """
    name: "warehouse/v1/messages.proto" package: "warehouse.v1" syntax: "proto3"
    message_type {
      name: "ReserveRequest"
      field { name: "order_id" number: 1 type: TYPE_STRING label: LABEL_OPTIONAL }
      field { name: "sku" number: 2 type: TYPE_STRING label: LABEL_OPTIONAL }
      field { name: "pieces" number: 3 type: TYPE_INT32 label: LABEL_OPTIONAL }
      field { name: "request_id" number: 20 type: TYPE_STRING label: LABEL_OPTIONAL }
      field { name: "tags" number: 21 type: TYPE_STRING label: LABEL_REPEATED }
    }
    message_type {
      name: "ReserveReply"
      field { name: "reservation_id" number: 1 type: TYPE_STRING label: LABEL_OPTIONAL }
    }
    message_type {
      name: "ReleaseRequest"
      field { name: "reservation_id" number: 1 type: TYPE_STRING label: LABEL_OPTIONAL }
      field { name: "order_id" number: 2 type: TYPE_STRING label: LABEL_OPTIONAL }
      field { name: "reserve_key" number: 3 type: TYPE_STRING label: LABEL_OPTIONAL }
    }
"""
_SERVICE: Final = """
    name: "warehouse/v1/warehouse.proto" package: "warehouse.v1" syntax: "proto3"
    dependency: "google/protobuf/empty.proto" dependency: "warehouse/v1/messages.proto"
    service {
      name: "Warehouse"
      method { name: "Reserve" input_type: ".warehouse.v1.ReserveRequest" output_type: ".warehouse.v1.ReserveReply" }
      method { name: "Release" input_type: ".warehouse.v1.ReleaseRequest" output_type: ".google.protobuf.Empty" }
      method { name: "Cancel" input_type: ".warehouse.v1.ReserveRequest" output_type: ".google.protobuf.Empty" }
      method {
        name: "Watch" input_type: ".warehouse.v1.ReserveRequest" output_type: ".warehouse.v1.ReserveReply" server_streaming: true
      }
    }
"""
_ORDERS: Final = """
    name: "orders/v1/orders.proto" package: "orders.v1" syntax: "proto3" dependency: "warehouse/v1/messages.proto"
    message_type {
      name: "PlaceOrder"
      field { name: "first" number: 1 type: TYPE_MESSAGE type_name: ".warehouse.v1.ReserveRequest" label: LABEL_OPTIONAL }
      field { name: "second" number: 2 type: TYPE_MESSAGE type_name: ".warehouse.v1.ReserveRequest" label: LABEL_OPTIONAL }
    }
"""


def warehouse_files() -> FileDescriptorSet:
    """What the team of the warehouse would hand out."""
    return FileDescriptorSet(file=[_file(_MESSAGES), _file(_SERVICE)])


def message(name: str, **fields: Any) -> Message:
    """A message of the warehouse, or of those who order there. Example: message("ReserveRequest", sku="bicycle")."""
    return message_class(name)(**fields)


def message_class(name: str) -> type[Message]:
    """The class of such a message."""
    return TYPES.get(f"orders.v1.{name}" if name == "PlaceOrder" else f"warehouse.v1.{name}")


def _file(text: str) -> FileDescriptorProto:
    return text_format.Parse(text, FileDescriptorProto())


TYPES: Final = MessageTypes(FileDescriptorSet(file=[*warehouse_files().file, _file(_ORDERS)]))
