"""Descriptors that come with a definition: what can be used, and which sets are the same set."""

from collections.abc import Callable
from pathlib import Path

import grpc_tools
import pytest
from google.protobuf import timestamp_pb2
from google.protobuf.descriptor_pb2 import FileDescriptorProto, FileDescriptorSet
from google.protobuf.message import DecodeError
from grpc_tools import protoc
from hypothesis import given
from hypothesis import strategies as st

from participant_sdk.definitions.message_types import MessageTypes, UnusableDescriptorsError
from participant_sdk.descriptors import closed_descriptors
from shop.v1 import shop_pb2
from tests.unit.codec.message_files import INT32, OPTIONAL, REPEATED, file_with, shop_files

ROOT = Path(__file__).parents[3]


def content(*files: FileDescriptorProto) -> bytes:
    return MessageTypes(FileDescriptorSet(file=files)).files.SerializeToString(deterministic=True)


def test_message_is_found_by_its_full_name() -> None:
    types = MessageTypes(shop_files())
    assert types.get("shop.v1.PlaceOrder").DESCRIPTOR.full_name == "shop.v1.PlaceOrder"
    assert types.find("shop.v1.Missing") is None
    with pytest.raises(KeyError):
        types.get("shop.v1.Missing")


@pytest.mark.parametrize("name", ["shop.v1", "shop.v1.PlaceOrder.order_id", "", "\0", ".shop.v1.PlaceOrder", "shop/v1/orders.proto"])
def test_name_that_is_no_message_is_not_found(name: str) -> None:
    assert MessageTypes(shop_files()).find(name) is None


def test_types_of_two_definitions_do_not_meet() -> None:
    other = file_with("shop/v1/orders.proto", "Something")
    assert MessageTypes(FileDescriptorSet(file=[other])).find("shop.v1.PlaceOrder") is None
    assert MessageTypes(shop_files()).find("shop.v1.Something") is None


# ── Descriptors that cannot be used ──────────────────────────────────────────────────────────────────────────────────────────────


def broken_type() -> FileDescriptorProto:
    file = file_with("a.proto", "A")
    file.message_type[0].field.add(name="b", number=2, type=11, type_name=".shop.v1.Nowhere", label=OPTIONAL)
    return file


def parted_oneof() -> FileDescriptorProto:
    file = file_with("a.proto", "A")
    file.message_type[0].oneof_decl.add(name="pay")
    for number, name in enumerate(("card", "note", "cash"), start=1):
        field = file.message_type[0].field.add(name=name, number=number, type=9, label=1)
        if name != "note":
            field.oneof_index = 0
    return file


def repeated_default() -> FileDescriptorProto:
    """The library for expressions dies of it."""
    file = file_with("a.proto", "A", syntax="proto2")
    nested = file.message_type[0].nested_type.add(name="B")
    nested.field.add(name="tags", number=2, type=INT32, label=REPEATED, default_value="1")
    return file


@pytest.mark.parametrize(
    ("files", "told"),
    [
        ([file_with("a.proto", imports=("b.proto",))], "imports are missing: b.proto"),
        ([file_with("a.proto", imports=("b.proto",)), file_with("b.proto", imports=("a.proto",))], "in a circle"),
        ([file_with("a.proto", imports=("a.proto",))], "in a circle"),
        ([file_with("a.proto", "A"), file_with("a.proto", "A")], "given twice"),
        ([file_with("a.proto", "A"), file_with("b.proto", "A")], "b.proto cannot be used"),
        ([file_with("a.proto", "A", "A")], "a.proto cannot be used"),
        ([file_with("a.proto", "not a name")], "a.proto cannot be used"),
        ([broken_type()], "a.proto cannot be used"),
        ([file_with("a.proto", "A", syntax="proto7")], "a.proto cannot be used"),
        ([repeated_default()], "a.proto cannot be used: field 'tags' is repeated and has a default value"),
        ([parted_oneof()], "a.proto cannot be used: the fields of a oneof of message 'A' do not follow each other"),
    ],
)
def test_unusable_descriptors_are_refused(files: list[FileDescriptorProto], told: str) -> None:
    with pytest.raises(UnusableDescriptorsError, match=told):
        MessageTypes(FileDescriptorSet(file=files))


@pytest.mark.parametrize("garbage", [b"\x0a\x01\xff", b"\x12\x01\xff", b"\x1a\x01\xff", b"\x22\x0b\x0a\x01B\x12\x06\x0a\x01\xff\x52\x01x"])
def test_names_that_are_no_text_are_refused(garbage: bytes) -> None:
    file = file_with("a.proto", "A")
    file.MergeFromString(garbage)
    with pytest.raises(UnusableDescriptorsError):
        MessageTypes(FileDescriptorSet(file=[file]))


@given(st.binary(max_size=200))
def test_garbage_is_used_or_refused_but_never_breaks(garbage: bytes) -> None:
    file = file_with("a.proto", "A")
    try:
        file.MergeFromString(garbage)
    except DecodeError:  # what cannot be decoded never arrives
        return
    try:
        MessageTypes(FileDescriptorSet(file=[file]))
    except UnusableDescriptorsError:
        return


# ── Files of google.protobuf need not be sent ────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "name", ["any", "api", "descriptor", "duration", "empty", "field_mask", "source_context", "struct", "timestamp", "type", "wrappers"]
)
def test_import_of_google_protobuf_need_not_be_sent(name: str) -> None:
    MessageTypes(FileDescriptorSet(file=[file_with("a.proto", "A", imports=(f"google/protobuf/{name}.proto",))]))


def test_sending_google_protobuf_too_makes_no_other_definition() -> None:
    own = file_with("a.proto", "A", imports=("google/protobuf/timestamp.proto",))
    sent = FileDescriptorProto.FromString(timestamp_pb2.DESCRIPTOR.serialized_pb)
    assert content(own) == content(sent, own)


def test_own_google_protobuf_of_a_caller_is_not_believed() -> None:
    forged = FileDescriptorProto(name="google/protobuf/timestamp.proto", package="google.protobuf", syntax="proto3")
    forged.message_type.add(name="Forged")
    types = MessageTypes(FileDescriptorSet(file=[forged]))
    assert types.find("google.protobuf.Timestamp") is not None
    assert types.find("google.protobuf.Forged") is None


# ── The same set ─────────────────────────────────────────────────────────────────────────────────────────────────────────────────


def with_comments(file: FileDescriptorProto) -> None:
    file.source_code_info.location.add(path=[4, 0], leading_comments="An order.")


def with_json_names(file: FileDescriptorProto) -> None:
    for message in file.message_type:
        message.field[0].json_name = "orderId"
        for nested in message.nested_type:
            nested.field[0].json_name = "key"


@pytest.mark.parametrize("change", [with_comments, with_json_names])
def test_what_compilers_differ_in_makes_no_other_set(change: Callable[[FileDescriptorProto], None]) -> None:
    files, changed = shop_files().file, shop_files().file
    for file in changed:
        change(file)
    assert content(*files) == content(*changed)


def test_order_of_the_files_makes_no_other_set() -> None:
    assert content(*shop_files().file) == content(*reversed(shop_files().file))


def test_own_json_name_is_part_of_the_type() -> None:
    renamed = shop_files()
    renamed.file[0].message_type[0].field[0].json_name = "number"
    assert content(*shop_files().file) != content(*renamed.file)


@pytest.mark.parametrize(
    ("field", "json_name"),
    [("order_id", "orderId"), ("a__b", "aB"), ("_a", "A"), ("a_", "a"), ("a_1b", "a1b"), ("orderID_x", "orderIDX"), ("x", "x")],
)
def test_default_json_name_is_what_protoc_writes(tmp_path: Path, field: str, json_name: str) -> None:
    (tmp_path / "a.proto").write_text(f'syntax = "proto3"; package shop.v1; message A {{ int32 {field} = 1; }}')
    compiled = tmp_path / "a.binpb"
    assert protoc.main(["protoc", f"-I{tmp_path}", f"--descriptor_set_out={compiled}", "a.proto"]) == 0
    (by_protoc,) = FileDescriptorSet.FromString(compiled.read_bytes()).file
    assert by_protoc.message_type[0].field[0].json_name == json_name
    by_hand = FileDescriptorProto(name="a.proto", package="shop.v1", syntax="proto3")
    by_hand.message_type.add(name="A").field.add(name=field, number=1, type=INT32, label=OPTIONAL)
    assert content(by_protoc) == content(by_hand)


def test_descriptors_of_protoc_and_of_python_are_the_same_set(tmp_path: Path) -> None:
    compiled = tmp_path / "shop.binpb"
    includes = [ROOT / "examples" / "shop" / "protos", Path(grpc_tools.__file__).parent / "_proto"]
    command = ["protoc", *(f"-I{path}" for path in includes), "--include_imports", "--include_source_info"]
    assert protoc.main([*command, f"--descriptor_set_out={compiled}", "shop/v1/shop.proto"]) == 0
    by_protoc = FileDescriptorSet.FromString(compiled.read_bytes())
    by_python = closed_descriptors([shop_pb2.PlaceOrder.DESCRIPTOR])
    assert content(*by_protoc.file) == content(*by_python.file)


def test_normal_form_is_a_fixed_point() -> None:
    once = MessageTypes(shop_files()).files
    assert MessageTypes(once).files == once


def test_what_was_given_is_not_changed() -> None:
    given_files = shop_files()
    with_comments(given_files.file[0])
    before = given_files.SerializeToString(deterministic=True)
    MessageTypes(given_files)
    assert given_files.SerializeToString(deterministic=True) == before


def test_repeated_label_is_part_of_the_type() -> None:
    changed = shop_files()
    changed.file[1].message_type[0].field[0].label = REPEATED
    assert content(*shop_files().file) != content(*changed.file)
