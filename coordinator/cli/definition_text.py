"""YAML and JSON as trees that know their lines. Nothing is interpreted here: what a text means is for whoever knows the field to say.

YAML is read as the plain subset that a definition needs: no tags, no anchors and aliases (which can make a gigabyte of a kilobyte).
A word without quotes stays the word that it is, so that `no` is a label and not a boolean.
"""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, NamedTuple, NoReturn, TypeAlias

import yaml

DEPTH_MAX: Final = 32
"""Nesting at most. A definition needs 6; the descriptors of messages inside messages some more."""
NODES_MAX: Final = 200_000
"""Values at most in one file. 256 steps with all that can be said about each are 10,000."""


class DefinitionTextError(Exception):
    """The text is not the YAML or JSON that can be read; says where and what was expected."""

    def __init__(self, line: int, message: str) -> None:
        super().__init__(message)
        self.line = line
        """From 1."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scalar:
    """One value as it was written: a number and a word are texts too."""

    line: int
    """From 1."""
    text: str
    is_quoted: bool
    """Whether it was clearly meant as a text: in quotes, or as a block."""

    @property
    def is_null(self) -> bool:
        """Whether nothing was written, or null in so many words."""
        return not self.is_quoted and self.text in {"", "~", "null", "Null", "NULL"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Items:
    """A list."""

    line: int
    items: tuple["Node", ...]


class Entry(NamedTuple):
    """One key of a mapping, with its line."""

    key: str
    line: int
    value: "Node"


@dataclass(frozen=True, slots=True, kw_only=True)
class Entries:
    """A mapping, in the order of the text; no key is there twice."""

    line: int
    entries: tuple[Entry, ...]

    def find(self, key: str) -> "Node | None":
        """What the key stands for; None without it."""
        return next((entry.value for entry in self.entries if entry.key == key), None)


Node: TypeAlias = Scalar | Items | Entries


def parse_yaml(text: str) -> list[Node]:
    """The documents of a YAML file. Raises DefinitionTextError."""
    try:
        return list(_Yaml(text).documents())
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise DefinitionTextError(mark.line + 1 if mark else 1, f"no YAML: {_yaml_reason(error)}") from error
    except yaml.YAMLError as error:
        raise DefinitionTextError(1, f"no YAML: {error}") from error


def parse_json(text: str) -> Node:
    """The value of a JSON file. Raises DefinitionTextError."""
    try:
        json.loads(text, parse_constant=_refuse_constant)  # judges it, with the best words for what is wrong
    except json.JSONDecodeError as error:
        raise DefinitionTextError(error.lineno, f"no JSON: {error.msg}, column {error.colno}") from error
    except (ValueError, RecursionError) as error:
        raise DefinitionTextError(1, f"no JSON that can be read: {error}") from error
    return _Json(text).value(1)


def _yaml_reason(error: yaml.MarkedYAMLError) -> str:
    reason = f"{error.problem}" + (f" ({error.context})" if error.context else "")
    if error.problem and "mapping values are not allowed" in error.problem:
        reason += "; a text with ': ' in it, such as an expression, needs quotes around it, or stands below `|`"
    return reason


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number")


class _Count:
    """Stops a text that has too much in it."""

    def __init__(self) -> None:
        self._nodes = 0

    def check(self, line: int, depth: int) -> None:
        self._nodes += 1
        if self._nodes > NODES_MAX:
            raise DefinitionTextError(line, f"expected at most {NODES_MAX} values in one file")
        if depth > DEPTH_MAX:
            raise DefinitionTextError(line, f"expected at most {DEPTH_MAX} values inside one another")


class _Yaml:
    """Makes nodes of the events of a YAML parser. Events hold no objects and expand no aliases."""

    def __init__(self, text: str) -> None:
        # The parser in C where it is there: it reads a long file in a tenth of the time.
        self._events: Final[Iterator[yaml.Event]] = yaml.parse(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
        self._count: Final = _Count()

    def documents(self) -> Iterator[Node]:
        for event in self._events:
            if isinstance(event, yaml.DocumentStartEvent):
                yield self._node(next(self._events), 1)

    def _node(self, event: yaml.Event, depth: int) -> Node:
        line = event.start_mark.line + 1 if event.start_mark is not None else 1
        self._count.check(line, depth)
        if isinstance(event, yaml.AliasEvent):
            raise DefinitionTextError(line, f"the alias *{event.anchor} is not followed; write out what it stands for")
        if (tag := getattr(event, "tag", None)) not in {None, "!"}:
            raise DefinitionTextError(line, f"expected no tags, found {tag}")
        if isinstance(event, yaml.ScalarEvent):
            return Scalar(line=line, text=_unicode(event.value, line), is_quoted=bool(event.style))
        if isinstance(event, yaml.SequenceStartEvent):
            return Items(line=line, items=tuple(self._until(yaml.SequenceEndEvent, depth)))
        return Entries(line=line, entries=tuple(self._entries(depth)))

    def _until(self, end: type[yaml.Event], depth: int) -> Iterator[Node]:
        while not isinstance(event := next(self._events), end):
            yield self._node(event, depth + 1)

    def _entries(self, depth: int) -> Iterator[Entry]:
        seen: dict[str, int] = {}
        inside = self._until(yaml.MappingEndEvent, depth)
        for key in inside:
            if not isinstance(key, Scalar):
                raise DefinitionTextError(key.line, "expected a word as a key, found a list or a mapping")
            _check_key(seen, key.text, key.line)
            yield Entry(key.text, key.line, next(inside))


class _Json:
    """Makes nodes of a text that is known to be JSON: only where things are is still to be found."""

    _LEXEME: Final = re.compile(r'\s*([\[\]{},:]|"(?:[^"\\]|\\.)*"|[^\s\[\]{},:"]+)', re.DOTALL)

    def __init__(self, text: str) -> None:
        self._lexemes: Final = self._LEXEME.finditer(text)
        self._text: Final = text
        self._line, self._read_to = 1, 0
        self._count: Final = _Count()

    def value(self, depth: int) -> Node:
        return self._node(self._next(), depth)

    def _node(self, lexeme: str, depth: int) -> Node:
        line = self._line
        self._count.check(line, depth)
        if lexeme == "[":
            return Items(line=line, items=tuple(self._items(depth)))
        if lexeme == "{":
            return Entries(line=line, entries=tuple(self._entries(depth)))
        if lexeme.startswith('"'):
            return Scalar(line=line, text=_unicode(json.loads(lexeme), line), is_quoted=True)
        return Scalar(line=line, text=lexeme, is_quoted=False)

    def _items(self, depth: int) -> Iterator[Node]:
        while (lexeme := self._next()) != "]":
            if lexeme != ",":
                yield self._node(lexeme, depth + 1)

    def _entries(self, depth: int) -> Iterator[Entry]:
        seen: dict[str, int] = {}
        while (lexeme := self._next()) != "}":
            if lexeme == ",":
                continue
            key, line = json.loads(lexeme), self._line
            _check_key(seen, key, line)
            self._next()  # the colon
            yield Entry(_unicode(key, line), line, self.value(depth + 1))

    def _next(self) -> str:
        found = next(self._lexemes)
        self._line += self._text.count("\n", self._read_to, found.start(1))
        self._read_to = found.start(1)
        return found[1]


def _check_key(seen: dict[str, int], key: str, line: int) -> None:
    if key in seen:
        raise DefinitionTextError(line, f"{key!r} is there twice, first in line {seen[key]}; keep one")
    seen[key] = line


def _unicode(text: str, line: int) -> str:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise DefinitionTextError(line, "expected Unicode text, found half of a character (a lone surrogate)") from error
    return text
