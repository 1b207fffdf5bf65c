"""Descriptors of message types, closed over everything that they import."""

from collections.abc import Iterable
from typing import Final

from google.protobuf.descriptor import Descriptor, FileDescriptor
from google.protobuf.descriptor_pb2 import FileDescriptorSet

WELL_KNOWN_PREFIX: Final = "google/protobuf/"
"""Files that everybody has; they are left out."""


def closed_descriptors(messages: Iterable[Descriptor]) -> FileDescriptorSet:
    """The files of `messages` and all that they import, each once and after its imports; google.protobuf is left out."""
    ordered: dict[str, FileDescriptor] = {}
    for message in messages:
        _add_after_imports(message.file, ordered)
    closed = FileDescriptorSet()
    for file in ordered.values():
        file.CopyToProto(closed.file.add())
    return closed


def _add_after_imports(file: FileDescriptor, ordered: dict[str, FileDescriptor]) -> None:
    if file.name in ordered or file.name.startswith(WELL_KNOWN_PREFIX):
        return
    for imported in file.dependencies:
        _add_after_imports(imported, ordered)
    ordered[file.name] = file
