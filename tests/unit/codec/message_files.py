"""Descriptors of the messages that the tests of definitions use."""

from google.protobuf.descriptor_pb2 import FieldDescriptorProto, FileDescriptorProto, FileDescriptorSet

OPTIONAL, REQUIRED, REPEATED = FieldDescriptorProto.LABEL_OPTIONAL, FieldDescriptorProto.LABEL_REQUIRED, FieldDescriptorProto.LABEL_REPEATED
INT32, STRING, MESSAGE = FieldDescriptorProto.TYPE_INT32, FieldDescriptorProto.TYPE_STRING, FieldDescriptorProto.TYPE_MESSAGE


def file_with(name: str, *messages: str, imports: tuple[str, ...] = (), syntax: str = "proto3") -> FileDescriptorProto:
    """A file of package shop.v1 whose messages each have the field `order_id = 1`."""
    file = FileDescriptorProto(name=name, package="shop.v1", syntax=syntax, dependency=imports)
    for message in messages:
        file.message_type.add(name=message).field.add(name="order_id", number=1, type=STRING, label=OPTIONAL)
    return file


def shop_files() -> FileDescriptorSet:
    """shop.v1.PlaceOrder (order_id = 1, prices = 2 packed by default and by name), shop.v1.Reserved, shop.v1.Charged."""
    orders = file_with("shop/v1/orders.proto", "PlaceOrder")
    prices = orders.message_type[0].nested_type.add(name="PricesEntry")
    prices.options.map_entry = True
    prices.field.add(name="key", number=1, type=STRING, label=OPTIONAL)
    prices.field.add(name="value", number=2, type=INT32, label=OPTIONAL)
    orders.message_type[0].field.add(name="prices", number=2, type=MESSAGE, type_name=".shop.v1.PlaceOrder.PricesEntry", label=REPEATED)
    replies = file_with("shop/v1/replies.proto", "Reserved", "Charged", imports=("shop/v1/orders.proto",))
    return FileDescriptorSet(file=[orders, replies])
