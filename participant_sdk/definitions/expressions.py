"""Expressions of a definition: compiled once, with a descriptor pool of their own, and evaluated on bytes.

Google's library does the work (`cel-expr-python`, extra `definitions`). It is loaded when the first expression is compiled: it takes some
50 MB on disk, and who only serves actions needs none of it.

Measured for `ReserveStock{sku: input.sku, quantity: input.quantity}`: 0.2 ms to compile it and 0.5 ms more for the first one of a package
(its types are read then; environments are shared for that reason: 100 KB each), 8 µs to evaluate it, reading the input and writing the
result included.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from typing import Any, Final, TypeVar

from google.protobuf.message import EncodeError, Message

from participant_sdk.definitions.complaints import Scope, excerpt, excerpt_at
from participant_sdk.definitions.expression_tree import Node, Tree, TreeTooLargeError, loops_nested, read_tree, read_unchecked
from participant_sdk.definitions.literals import find_wrong_literals
from participant_sdk.definitions.message_types import RESULT_FIELDS, RESULT_TYPE, MessageTypes
from participant_sdk.definitions.mistakes import MISTAKES_MAX, find_mistakes
from participant_sdk.definitions.mixtures import ANYTHING, Want, find_mixtures, want_of
from participant_sdk.definitions.name_mistakes import MACROS
from participant_sdk.definitions.run_time import explain_failure
from participant_sdk.definitions.words import with_article
from participant_sdk.definitions.work import Work

EXPRESSION_CHARS_MAX: Final = 4_000
"""Of one expression. The worst one takes some 20 ms to compile."""
RESULT_BYTES_MAX: Final = 1024 * 1024
"""Of what an expression returns."""
LOOPS_NESTED_MAX: Final = 3
"""Of macros like map and filter within each other."""
DESCRIPTOR_BYTES_READ_MAX: Final = 16 * 1024 * 1024
"""Of a definition, all packages of its input types together: for each of them the library reads the descriptors again. A MiB takes 0.07 s
and 8 MiB of memory."""
BOOL: Final = "bool"
"""Stands where the full name of a message does, for a variable or a result."""
DYN: Final = "dyn"
"""Stands where the full name of a message does, for a variable of which the type is not known."""
SHOWN_CHARS_MAX: Final = 200
"""Of an expression in an error."""

_ADVICE: Final = {
    (DYN, BOOL): "; compare it with a value of a known type",
    ("bool or null", BOOL): "; compare it with true, since it may be null",
}
_Read = TypeVar("_Read")
_MACRO: Final = re.compile(rf"\b(?:{'|'.join(MACROS)})\b")


class MistakesError(ValueError):
    """The expression cannot be used; carries every mistake that was found in it."""

    def __init__(self, mistakes: list[str]) -> None:
        super().__init__("\n".join(mistakes))
        self.mistakes = mistakes


class EvaluationError(Exception):
    """The expression cannot be evaluated with these values. The message names the expression and what went wrong, for people."""


@cache
def can_check_expressions() -> bool:
    """Whether the library for expressions is installed (extra `definitions`). Without it only `input` and ids of steps are checked."""
    return find_spec("cel_expr_python") is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What an expression is to return."""

    type_name: str
    """Full name of the message, or BOOL; empty: any message."""
    because: str
    """Who wants it. Example: "inventory.reserve takes it"."""


class Program:
    """A compiled expression."""

    def __init__(
        self, text: str, *, program: Any, result: type[Message] | None, readers: Mapping[str, type[Message] | None], work: Work
    ) -> None:
        self.text: Final = text
        self.result: Final = str(result.DESCRIPTOR.full_name) if result is not None else BOOL
        """Full name of the message that it returns, or BOOL."""
        self.variables: Final = tuple(readers)
        """What `evaluate` must be given: nothing else is read."""
        self._program = program
        self._readers = tuple(readers.items())
        self._work = work
        self._class = result
        self._field = RESULT_FIELDS.get(self.result, "")

    def evaluate(self, values: Mapping[str, bytes | bool]) -> bytes:
        """The message that it returns, in its deterministic serialisation. `values`: serialised messages, and bools, by variable.

        Raises EvaluationError, and nothing else.
        """
        try:
            message = self._run(values)
            if self._field:
                message = self._unwrap(message)
            found = self._serialise(message)
        except EvaluationError:
            raise
        except EncodeError as error:
            raise EvaluationError(self._told(f"the result is no complete {self.result}: {error}")) from error
        except Exception as error:  # the library raises what it likes, MemoryError of C++ included; a saga must never stop by it
            raise EvaluationError(self._told(explain_failure(str(error)))) from error
        if len(found) > RESULT_BYTES_MAX:
            raise EvaluationError(self._told(f"expected a result of at most {RESULT_BYTES_MAX} bytes, found {len(found)}"))
        return found

    def decide(self, values: Mapping[str, bytes | bool]) -> bool:
        """The bool that it returns. Raises EvaluationError, and nothing else."""
        try:
            found = self._run(values)
        except EvaluationError:
            raise
        except Exception as error:  # as above
            raise EvaluationError(self._told(explain_failure(str(error)))) from error
        if not isinstance(found, bool):
            raise EvaluationError(self._told(f"expected a bool, found {_named(found)}"))
        return found

    def _serialise(self, message: Any) -> bytes:
        if type(message) is not self._class:
            raise EvaluationError(self._told(f"expected {with_article(self.result)}, found {_named(message)}"))
        found: bytes = message.SerializeToString(deterministic=True)
        return found

    def _run(self, values: Mapping[str, bytes | bool]) -> Any:
        size = 0
        known: dict[str, object] = {}
        for name, message_class in self._readers:
            value = values[name]
            if message_class is None or isinstance(value, bool):
                known[name] = value
            else:
                size += len(value)
                known[name] = message_class.FromString(value)
        if size > self._work.always_fine_bytes and self._work.is_too_much_for(known):
            raise EvaluationError(self._told(f"it is too much work for an input of {size} bytes: its lists are too long, or its texts"))
        found = self._program.eval(data=known)
        value = found.value()
        # An error is a value too. Asking each value for its type costs a third of the whole evaluation.
        if not isinstance(value, Message | bool) and found.type() == _library().Type.ERROR:
            raise EvaluationError(self._told(explain_failure(str(value))))
        return value

    def _unwrap(self, holder: Any) -> Any:
        if not isinstance(holder, Message):
            raise EvaluationError(self._told(f"expected {with_article(self.result)}, found {_named(holder)}"))
        if not holder.HasField(self._field):
            raise EvaluationError(self._told(f"expected a {self.result}, found null"))
        return getattr(holder, self._field)

    def _told(self, what: str) -> str:
        shown = self.text if len(self.text) <= SHOWN_CHARS_MAX else f"{self.text[:SHOWN_CHARS_MAX]}…"
        return f"expression {shown!r} failed: {what}"


class Expressions:
    """Compiles the expressions of one definition."""

    def __init__(self, types: MessageTypes) -> None:
        self._types = types
        self._environments_max: Final = max(1, DESCRIPTOR_BYTES_READ_MAX // max(1, types.files.ByteSize()))
        self._environments: dict[tuple[str, frozenset[tuple[str, str]]], Any] = {}

    def compile(self, text: str, *, scope: Scope, wanted: Wanted | None) -> Program:
        """Compiles an expression; `wanted`: None if that is not known. Raises MistakesError."""
        if not text.isascii():
            _check_encodable(text)
        if len(text) > EXPRESSION_CHARS_MAX:
            raise MistakesError([f"expected at most {EXPRESSION_CHARS_MAX} characters, found {len(text)}"])
        environment = self._environment(scope)
        if len(_MACRO.findall(text)) > LOOPS_NESTED_MAX:  # types can grow with 2^depth: look at the depth before they are made
            parsed = _compile(environment, text, scope, is_checked=False)
            _check_loops(_read_with(read_unchecked, text, parsed), text)
        program = _compile(environment, text, scope)
        tree = _read_with(read_tree, text, program)
        _check_loops(tree.root, text)
        result = self._result_of(tree, wanted, text)
        self._check_values(tree, wanted, text)
        readers = {name: self._reader(scope.variables[name]) for name in sorted(tree.names & scope.variables.keys())}
        work = Work(tree.root, tuple(readers))
        if work.is_hopeless:
            raise MistakesError([f"it is too much work, even for a small input: take loops apart, or make lists shorter{excerpt(text)}"])
        if result in RESULT_FIELDS:
            program = self._compile_held(environment, text, result, wanted, scope, tree.type.text)
        return Program(text, program=program, result=self._types.find(result), readers=readers, work=work)

    def _check_values(self, tree: Tree, wanted: Wanted | None, text: str) -> None:
        """Finds what the library would find only when the expression is evaluated."""
        flaws = (*find_wrong_literals(tree, self._types), *find_mixtures(tree, self._types, _want_of(wanted)))
        told = dict.fromkeys(f"{flaw.description}{excerpt_at(text, tree.place_of(flaw.node))}" for flaw in flaws)
        if told:
            raise MistakesError(list(told)[:MISTAKES_MAX])

    def _environment(self, scope: Scope) -> Any:
        key = scope.container, frozenset(scope.variables.items())
        if key not in self._environments:
            if len(self._environments) >= self._environments_max:
                raise MistakesError(
                    [f"expected input types from at most {self._environments_max} packages, for so many message types; send fewer of them"]
                )
            library = _library()
            variables = {name: _type_of(library, type_name) for name, type_name in scope.variables.items()}
            try:
                self._environments[key] = library.NewEnv(self._types.pool, variables=variables, container=scope.container)
            except Exception as error:  # descriptors that Python can read and the library cannot
                raise MistakesError([f"the message types cannot be used in expressions: {error}"]) from error
        return self._environments[key]

    def _compile_held(self, environment: Any, text: str, result: str, wanted: Wanted | None, scope: Scope, found: str) -> Any:
        """Well-known types become values of the language and lose their type, nanoseconds for one: held by a message they keep them."""
        held = f".{RESULT_TYPE}{{{RESULT_FIELDS[result]}: (\n{text}\n)}}"
        try:
            return _compile(environment, held, scope)
        except MistakesError as error:
            because = f", because {wanted.because}" if wanted is not None else ""
            raise MistakesError([f"expected a {result}{because}; the expression is {with_article(found)}{excerpt(text)}"]) from error

    def _result_of(self, tree: Tree, wanted: Wanted | None, text: str) -> str:
        found = tree.type
        if wanted is None:
            return found.message or BOOL
        if wanted.type_name in RESULT_FIELDS:
            return wanted.type_name  # the type is checked when it is put into its field
        if wanted.type_name == BOOL and found.text == BOOL:
            return BOOL
        if found.message and wanted.type_name in ("", found.message):
            return found.message
        expected = wanted.type_name or "message"
        advice = _ADVICE.get((found.text, wanted.type_name), "")
        if found.text == "type":
            advice = "; a message is written with braces: Name{}"
        elif wanted.type_name == BOOL and "//" in text:
            advice = "; what stands behind // is a remark"
        raise MistakesError(
            [f"expected a {expected}, because {wanted.because}; the expression is {with_article(found.text)}{advice}{excerpt(text)}"]
        )

    def _reader(self, type_name: str) -> type[Message] | None:
        return None if type_name in (BOOL, DYN) else self._types.get(type_name)


def _want_of(wanted: Wanted | None) -> Want | None:
    if wanted is None:
        return ANYTHING
    return want_of(wanted.type_name, wanted.because) if wanted.type_name not in ("", BOOL) else None


def _check_encodable(text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise MistakesError([f"expected text that can be encoded, found a lone surrogate at place {error.start + 1}"]) from error


def _check_loops(root: Node, text: str) -> None:
    nested = loops_nested(root)
    if nested > LOOPS_NESTED_MAX:
        raise MistakesError(
            [f"expected at most {LOOPS_NESTED_MAX} loops (map, filter, all, exists) within each other, found {nested}{excerpt(text)}"]
        )


def _read_with(read: Callable[[bytes], _Read], text: str, program: Any) -> _Read:
    try:
        return read(program.serialize())
    except TreeTooLargeError as error:
        raise MistakesError([f"{error}{excerpt(text)}"]) from error


def _compile(environment: Any, text: str, scope: Scope, *, is_checked: bool = True) -> Any:
    try:
        return environment.compile(text, disable_check=not is_checked)
    except Exception as error:  # RuntimeError for every mistake, and whatever else the library may raise for odd texts
        raise MistakesError(find_mistakes(text, str(error), scope)) from error


def _type_of(library: Any, type_name: str) -> Any:
    if type_name == BOOL:
        return library.Type.BOOL
    return library.Type.DYN if type_name == DYN else library.Type(type_name)


def _named(value: object) -> str:
    if value is None:
        return "null"
    return str(value.DESCRIPTOR.full_name) if isinstance(value, Message) else f"a {type(value).__name__}"


@cache
def _library() -> Any:
    return import_module("cel_expr_python.cel")
