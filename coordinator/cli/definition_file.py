"""Saga definitions in files: what `saga register`, `saga check` and `saga diff` read.

Python files hold sagas made with the builder, YAML and JSON files what stands in `definition_shape`. Reading never raises for what is
wrong *in* a definition: that is noted with its line, so that everything can be told at once.
"""

import importlib.util
import json
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, NamedTuple

from google.protobuf import json_format
from google.protobuf.descriptor_pb2 import FileDescriptorSet
from google.protobuf.message import DecodeError

from coordinator.cli.definition_shape import Shape, read_shape
from coordinator.cli.definition_text import DefinitionTextError, Entries, Node, Scalar, parse_json, parse_yaml
from participant_sdk.builder import DefinitionError, Saga, describe_place
from participant_sdk.definitions import MessageTypes, UnusableDescriptorsError, find_problems
from saga.v1 import saga_pb2

FILE_BYTES_MAX: Final = 4 * 1024 * 1024
"""Longest definition file; more than a coordinator accepts."""
DESCRIPTORS_BYTES_MAX: Final = 32 * 1024 * 1024
"""Longest file of descriptors: with comments, those of a big company fit."""
SUFFIXES: Final = (".py", ".yaml", ".yml", ".json")
"""Files that hold definitions."""
_MODULE_NAME: Final = "saga_definition_file"
_DESCRIPTORS: Final = "descriptors"
_STEPS: Final = "definition.steps"
_FOLLOWS_FROM_STEPS: Final = re.compile(r"\.(?:kind|after|step_ids\[\d+\]|input|when|output|steps)$")
_REQUEST_KEYS: Final = ("definition", _DESCRIPTORS)


class DefinitionFileError(Exception):
    """There is no definition to be read; says what was expected."""


class FileProblem(NamedTuple):
    """Something that is wrong in a definition file."""

    line: int | None
    """From 1; None where it is not known, as in Python."""
    place: str
    """In words. Example: "step charge, input". Empty: the file as a whole."""
    description: str

    def __str__(self) -> str:
        return f"{self.place}: {self.description}" if self.place else self.description


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundDefinition:
    """A definition that stands in a file, sound or not."""

    file: Path
    definition: saga_pb2.SagaDefinition
    """As far as it could be read."""
    descriptors: FileDescriptorSet = field(default_factory=FileDescriptorSet)
    lines: Mapping[str, int] = field(default_factory=dict)
    """Lines of its fields by their paths; empty for Python."""
    problems: Sequence[FileProblem] = ()
    """What was wrong already when it was read."""
    broken: frozenset[str] = frozenset()
    """Paths of the fields that could not be read."""

    def line_of(self, field_path: str) -> int | None:
        """Where a field stands, or the innermost thing around it that stands somewhere."""
        path = field_path
        while path not in self.lines:
            cut = max(path.rfind("."), path.rfind("["))
            if cut <= 0:
                return None
            path = path[:cut]
        return self.lines[path]

    def place(self, field_path: str, description: str) -> FileProblem:
        """A problem of one of its fields, for people."""
        return FileProblem(self.line_of(field_path), describe_place(self.definition, field_path), description)

    def judge(self) -> list[FileProblem]:
        """Everything that is wrong with it and can be seen without a coordinator, by line; empty: nothing."""
        return sorted([*self.problems, *self._judged()], key=lambda problem: problem.line or 0)

    def _judged(self) -> Iterator[FileProblem]:
        if (self.problems and not self.lines) or _DESCRIPTORS in self.broken:
            return
        try:
            types = MessageTypes(self.descriptors)
        except UnusableDescriptorsError as error:
            yield FileProblem(self.lines.get(_DESCRIPTORS), _DESCRIPTORS, str(error))
            return
        for problem in find_problems(self.definition, types):
            if not self.problems or self._was_read(problem.field):
                yield self.place(problem.field, problem.description)

    def _was_read(self, field_path: str) -> bool:
        """Whether a field can be judged: it was read, or it is missing where nothing else was unreadable that may have been meant.

        What comes before what, and which message is at hand where, is not known while a part of a step could not be read.
        """
        if any(field_path.startswith(path) for path in self.broken):
            return False
        if any(path.startswith(_STEPS) for path in self.broken) and _FOLLOWS_FROM_STEPS.search(field_path):
            return False
        parent = field_path.rpartition(".")[0]
        return field_path in self.lines or not any(path.rpartition(".")[0] == parent for path in self.broken)


def find_definitions(file: str, descriptors: Path | None) -> list[FoundDefinition]:
    """The definitions in `file`: those of "sagas.py", "sagas.yaml" or "saga.json"; of "sagas.py:place_order" that variable only, of
    "sagas.yaml:place-order" the definition of that name.

    `descriptors` is a FileDescriptorSet as `buf build -o` and `protoc --descriptor_set_out` write it, for files that name none.

    Raises DefinitionFileError if there is no such file, or no such definition in it.
    """
    path, name = _split(file)
    if path.suffix == ".py":
        return [_of_saga(path, saga) for saga in _sagas_in(path, name)]
    found = list(_read_text(path, descriptors))
    if name:
        found = [each for each in found if each.definition.name == name] or _none_called(name, path, found)
    return found


def read_definitions(file: str, descriptors: Path | None) -> list[FoundDefinition]:
    """The same, all of them well-formed: ready to be judged by a coordinator.

    Raises DefinitionFileError; DefinitionError if a saga of a Python file is no valid definition.
    """
    path, name = _split(file)
    if path.suffix == ".py":
        return [FoundDefinition(file=path, definition=saga.definition(), descriptors=saga.descriptors()) for saga in _sagas_in(path, name)]
    found = find_definitions(file, descriptors)
    if problems := [at_line(path, problem) for each in found for problem in each.problems]:
        raise DefinitionFileError("\n".join(problems))
    return found


def at_line(path: Path, problem: FileProblem) -> str:
    """A problem with its file, as compilers write it. Example: "saga.yaml:12: step charge, kind: …"."""
    return f"{path}:{problem.line}: {problem}" if problem.line is not None else f"{path}: {problem}"


def names_a_file(text: str) -> bool:
    """Whether a text says FILE or FILE:NAME, by its suffix."""
    return _split_text(text)[0].suffix in SUFFIXES


def _split_text(file: str) -> tuple[Path, str]:
    for suffix in SUFFIXES:
        head, colon, name = file.rpartition(f"{suffix}:")
        if colon:
            return Path(head + suffix), name
    return Path(file), ""


def _split(file: str) -> tuple[Path, str]:
    path, name = _split_text(file)
    if not path.is_file():
        raise DefinitionFileError(f"expected a file, found nothing at {path}")
    if path.suffix not in SUFFIXES:
        raise DefinitionFileError(f"expected a .py, .yaml, .yml or .json file, found {path}")
    return path, name


def _none_called(name: str, path: Path, found: Sequence[FoundDefinition]) -> list[FoundDefinition]:
    raise DefinitionFileError(
        f"expected a definition called {name} in {path}, found {', '.join(each.definition.name for each in found) or 'none'}"
    )


# ── Python ───────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────


def _of_saga(path: Path, saga: Saga) -> FoundDefinition:  # type: ignore[type-arg]  # of any input
    try:
        return FoundDefinition(file=path, definition=saga.definition(), descriptors=saga.descriptors())
    except DefinitionError as error:
        problems = [FileProblem(None, f"saga {saga.name!r}", problem) for problem in error.problems]
        return FoundDefinition(file=path, definition=saga_pb2.SagaDefinition(name=saga.name), problems=problems)


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
            raise DefinitionFileError(f"expected a Saga called {name} in {path}, found {', '.join(sorted(found)) or 'none'}")
        return [found[name]]
    if not found:
        raise DefinitionFileError(f"expected at least one Saga at the top of {path}, found none")
    # One saga under two names is one saga.
    return list({id(saga): saga for saga in found.values()}.values())


# ── YAML and JSON ────────────────────────────────────────────────────────────────────────────────────────────────────────────────────


def _read_text(path: Path, descriptors: Path | None) -> Iterator[FoundDefinition]:
    """Every document of the file; a text that cannot be read is a definition with nothing but a problem."""
    try:
        text = _read_bytes(path, FILE_BYTES_MAX).decode("utf-8-sig")
        documents = [parse_json(text)] if path.suffix == ".json" else parse_yaml(text)
    except UnicodeDecodeError as error:
        documents, problem = [], FileProblem(None, "", f"expected UTF-8, found byte 0x{error.object[error.start]:02x} at {error.start}")
    except DefinitionTextError as error:
        documents, problem = [], FileProblem(error.line, "", str(error))
    else:
        problem = FileProblem(1, "", "expected a definition, found an empty file")
    if not documents:
        yield FoundDefinition(file=path, definition=saga_pb2.SagaDefinition(), problems=[problem])
    for document in documents:
        yield _read_document(path, text, document, descriptors)


def _read_document(path: Path, text: str, document: Node, descriptors: Path | None) -> FoundDefinition:
    inner = document.find(_REQUEST_KEYS[0]) if isinstance(document, Entries) else None
    if isinstance(document, Entries) and inner is not None:
        shape = read_shape(inner)
        shape.problems.extend(read_shape(document, besides=frozenset(_REQUEST_KEYS)).problems)
    else:
        shape = read_shape(document, besides=frozenset({_DESCRIPTORS}))
    found, problem = _descriptors_of(path, text, document, descriptors)
    placed = [FileProblem(each.line, describe_place(shape.definition, each.field), each.description) for each in shape.problems]
    return FoundDefinition(
        file=path,
        definition=shape.definition,
        descriptors=found,
        lines=_with_line_of_descriptors(shape, document),
        problems=[*placed, *([problem] if problem is not None else [])],
        broken=frozenset([*(each.field for each in shape.problems), *([_DESCRIPTORS] if problem is not None else [])]),
    )


def _with_line_of_descriptors(shape: Shape, document: Node) -> dict[str, int]:
    named = document.find(_DESCRIPTORS) if isinstance(document, Entries) else None
    return shape.lines if named is None else {**shape.lines, _DESCRIPTORS: named.line}


def _descriptors_of(path: Path, text: str, document: Node, given: Path | None) -> tuple[FileDescriptorSet, FileProblem | None]:
    """The message types: those that were given, else those that the file names or holds."""
    if given is not None:
        return read_descriptors(given), None
    named = document.find(_DESCRIPTORS) if isinstance(document, Entries) else None
    if named is None or (isinstance(named, Scalar) and named.is_null):
        expected = "expected message types: say `descriptors: FILE.binpb` in the file, or --descriptors FILE.binpb (see buf build -o)"
        return FileDescriptorSet(), FileProblem(document.line, _DESCRIPTORS, expected)
    try:
        if isinstance(named, Scalar):
            return read_descriptors(path.parent / named.text), None
        return _inline_descriptors(path, text), None
    except DefinitionFileError as error:
        return FileDescriptorSet(), FileProblem(named.line, _DESCRIPTORS, str(error))


def _inline_descriptors(path: Path, text: str) -> FileDescriptorSet:
    """What a RegisterDefinitionRequest in protobuf's JSON holds."""
    if path.suffix != ".json":
        raise DefinitionFileError("expected the path of a FileDescriptorSet, found a list or a mapping")
    try:
        return json_format.ParseDict(json.loads(text)[_DESCRIPTORS], FileDescriptorSet())
    except (json_format.ParseError, TypeError, ValueError) as error:
        raise DefinitionFileError(f"expected a FileDescriptorSet in protobuf's JSON: {error}") from error


def read_descriptors(path: Path) -> FileDescriptorSet:
    """A FileDescriptorSet as buf and protoc write it, without what everybody has. Raises DefinitionFileError."""
    try:
        read = FileDescriptorSet.FromString(_read_bytes(path, DESCRIPTORS_BYTES_MAX))
    except DecodeError as error:
        raise DefinitionFileError(f"{path} is no FileDescriptorSet: {error}; make one with buf build -o FILE.binpb") from error
    needed = [file for file in read.file if not file.name.startswith("google/protobuf/")]
    return FileDescriptorSet(file=needed)


def _read_bytes(path: Path, bytes_max: int) -> bytes:
    try:
        with path.open("rb") as file:
            content = file.read(bytes_max + 1)
    except OSError as error:
        raise DefinitionFileError(f"{path} cannot be read: {error.strerror}") from error
    if len(content) > bytes_max:
        raise DefinitionFileError(f"{path} is too long: expected at most {bytes_max} bytes")
    return content
