"""What `saga register FILE` reads: sagas of a Python file, or a definition in protobuf's JSON."""

import importlib.util
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from google.protobuf import json_format
from google.protobuf.descriptor_pb2 import FileDescriptorSet
from google.protobuf.message import DecodeError

from participant_sdk.builder import Saga
from saga.v1 import coordinator_pb2, saga_pb2

_MODULE_NAME: Final = "saga_definition_file"


class DefinitionFileError(Exception):
    """There is no definition to be read; says what was expected."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadDefinition:
    """A definition that is ready to be registered."""

    definition: saga_pb2.SagaDefinition
    descriptors: FileDescriptorSet


def read_definitions(file: str, descriptors: Path | None) -> list[ReadDefinition]:
    """The definitions in `file`: "place_order.py", "place_order.py:place_order" or "place_order.json".

    `descriptors` is a FileDescriptorSet as `buf build -o` and `protoc --descriptor_set_out` write it, for JSON without one.

    Raises DefinitionFileError; DefinitionError if a saga is no valid definition.
    """
    path_text, _, name = file.partition(":")
    path = Path(path_text)
    if not path.is_file():
        raise DefinitionFileError(f"expected a file, found nothing at {path}")
    if path.suffix == ".py":
        return [ReadDefinition(definition=saga.definition(), descriptors=saga.descriptors()) for saga in _sagas_in(path, name)]
    if path.suffix == ".json":
        return [_read_json(path, descriptors)]
    raise DefinitionFileError(f"expected a .py or .json file, found {path}")


def _sagas_in(path: Path, name: str) -> list[Saga]:  # type: ignore[type-arg]  # sagas of any input
    # As `python file.py` would: what lies beside the file, and what lies where we are, can be imported.
    for folder in (str(path.resolve().parent), str(Path.cwd())):
        if folder not in sys.path:
            sys.path.insert(0, folder)
    spec = importlib.util.spec_from_file_location(_MODULE_NAME, path)
    if spec is None or spec.loader is None:
        raise DefinitionFileError(f"expected a Python file, found {path}")
    module = importlib.util.module_from_spec(spec)
    sys.modules[_MODULE_NAME] = module
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        raise DefinitionFileError(f"{path} cannot be imported: {type(error).__name__}: {error}") from error
    found = {variable: value for variable, value in vars(module).items() if isinstance(value, Saga)}
    if name:
        if name not in found:
            raise DefinitionFileError(f"expected a Saga called {name} in {path}, found {sorted(found) or 'none'}")
        return [found[name]]
    if not found:
        raise DefinitionFileError(f"expected at least one Saga at the top of {path}, found none")
    # One saga under two names is one saga.
    return list({id(saga): saga for saga in found.values()}.values())


def _read_json(path: Path, descriptors: Path | None) -> ReadDefinition:
    text = path.read_text(encoding="utf-8")
    if descriptors is None:
        request = coordinator_pb2.RegisterDefinitionRequest()
        try:
            json_format.Parse(text, request)
        except json_format.ParseError as error:
            raise DefinitionFileError(
                f"{path} is no RegisterDefinitionRequest in JSON: {error}; for a definition alone add --descriptors FILE.binpb"
            ) from error
        return ReadDefinition(definition=request.definition, descriptors=request.descriptors)
    definition = saga_pb2.SagaDefinition()
    try:
        json_format.Parse(text, definition)
    except json_format.ParseError as error:
        raise DefinitionFileError(f"{path} is no SagaDefinition in JSON: {error}") from error
    return ReadDefinition(definition=definition, descriptors=_read_descriptors(descriptors))


def _read_descriptors(path: Path) -> FileDescriptorSet:
    try:
        read = FileDescriptorSet.FromString(path.read_bytes())
    except (OSError, DecodeError) as error:
        raise DefinitionFileError(f"{path} is no FileDescriptorSet: {error}; make one with buf build -o FILE.binpb") from error
    # Everybody has these; buf and protoc put them in nevertheless.
    needed = [file for file in read.file if not file.name.startswith("google/protobuf/")]
    return FileDescriptorSet(file=needed)
