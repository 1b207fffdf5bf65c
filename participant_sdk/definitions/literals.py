"""Values that are written out in an expression and cannot be meant: found when it is registered, not when it runs."""

import re
from collections.abc import Iterator, Sequence
from functools import cache
from importlib import import_module
from typing import Any, Final

from google.protobuf.descriptor import FieldDescriptor

from participant_sdk.definitions.expression_tree import Call, Constant, NewMap, NewMessage, Node, Tree, walk
from participant_sdk.definitions.message_types import MessageTypes
from participant_sdk.definitions.mixtures import Flaw
from participant_sdk.definitions.patterns import WEIGHT_MAX, weight_of
from participant_sdk.definitions.run_time import plain_complaint

PATTERN_CHARS_MAX: Final = 500
_TIME_ZONE: Final = re.compile(r"UTC|[+-]?\d\d:\d\d|[A-Za-z]+(?:/[A-Za-z0-9_+-]+){1,2}")
_INT32: Final = (-(2**31), 2**31 - 1)
_UINT32: Final = (0, 2**32 - 1)
_BOUNDS: Final = {
    **dict.fromkeys((FieldDescriptor.TYPE_INT32, FieldDescriptor.TYPE_SINT32, FieldDescriptor.TYPE_SFIXED32), _INT32),
    **dict.fromkeys((FieldDescriptor.TYPE_UINT32, FieldDescriptor.TYPE_FIXED32), _UINT32),
}
"""Of fields that take less than the language has."""
_READ_FROM_TEXT: Final = {
    "bool": '"true" or "false"',
    "timestamp": 'a moment like "2026-01-31T12:00:00Z"',
    "duration": 'a duration like "1h30m" or "2.5s", in h, m, s and ms',
    "int": "a whole number",
    "uint": "a whole number from 0",
    "double": "a number",
}


def find_wrong_literals(tree: Tree, types: MessageTypes) -> Iterator[Flaw]:
    """Every literal of the expression that cannot work."""
    for node in walk(tree.root):
        match node:
            case NewMessage():
                yield from _find_in_message(node, tree, types)
            case NewMap():
                yield from _find_in_keys(node)
            case Call():
                for wrong in _find_in_call(node, tree):
                    yield Flaw(node, wrong)


def _find_in_call(node: Call, tree: Tree) -> Iterator[str]:
    function, last = node.function, node.arguments[-1] if node.arguments else node
    if function == "matches":
        yield from _find_in_pattern(last)
    elif function.startswith("get") and len(node.arguments) == 2:
        yield from _find_in_time_zone(function, last)
    elif function in _READ_FROM_TEXT and isinstance(last, Constant):
        yield from _find_in_text(function, last.value)
    elif function in {"_/_", "_%_"} and isinstance(last, Constant) and last.value == 0 and not isinstance(last.value, float):
        yield "nothing can be divided by 0"
    elif function == "_[_]" and _is_negative(last) and len(tree.type_of(node.arguments[0]).parts) == 1:
        yield "a list is counted from 0, and has nothing before that; its last entry is list[size(list) - 1]"


def _is_negative(node: Node) -> bool:
    return isinstance(node, Constant) and isinstance(node.value, int) and node.value < 0


def _find_in_keys(node: NewMap) -> Iterator[Flaw]:
    seen: set[object] = set()
    for key, _ in node.entries:
        if isinstance(key, Constant):
            if (type(key.value), key.value) in seen:
                yield Flaw(key, f"the key {key.value!r} stands in this map already")
            seen.add((type(key.value), key.value))


def _find_in_message(node: NewMessage, tree: Tree, types: MessageTypes) -> Iterator[Flaw]:
    message = types.find_descriptor(node.type_name)
    for place, (name, value) in enumerate(node.fields):
        field = message.fields_by_name.get(name) if message is not None else None
        if field is None:
            continue
        if name in (other for other, _ in node.fields[:place]):
            yield Flaw(value, f'field "{name}" is given already; each is given once')
        rival = _rival_of(field, value, node.fields[:place], tree)
        if rival:
            yield Flaw(value, f'"{name}" and "{rival}" are alternatives of one oneof: only one of them can be given')
        if isinstance(value, Constant) and type(value.value) is int:
            yield from (Flaw(value, wrong) for wrong in _find_in_number(field, value.value))


def _rival_of(field: FieldDescriptor, value: Node, before: Sequence[tuple[str, Node]], tree: Tree) -> str:
    """Another field of the same oneof that this one makes useless; empty: there is none. What may be null gives way to it."""
    if field.containing_oneof is None or _may_be_null(value, tree):
        return ""
    rivals = {member.name for member in field.containing_oneof.fields} - {field.name}
    return next((name for name, _ in before if name in rivals), "")


def _may_be_null(value: Node, tree: Tree) -> bool:
    found = tree.type_of(value)
    return found.text in {"null", "dyn"} or found.is_nullable or any(_is_null(part) for part in walk(value))


def _is_null(node: Node) -> bool:
    return isinstance(node, Constant) and node.value is None


def _find_in_number(field: FieldDescriptor, number: int) -> Iterator[str]:
    enum = field.enum_type
    if enum is not None and not field.is_repeated and number not in enum.values_by_number:
        known = ", ".join(f"{enum.name}.{one.name}" for one in enum.values[:20])
        yield f'field "{field.name}": {enum.full_name} has no value with the number {number}; there is: {known}'
    least, most = _BOUNDS.get(field.type, (number, number))
    if not least <= number <= most:
        yield f'field "{field.name}" takes {least} to {most}, found {number}'


def _find_in_pattern(pattern: Node) -> Iterator[str]:
    if not isinstance(pattern, Constant) or not isinstance(pattern.value, str):
        yield "the pattern of matches must be written out as a text: what is searched with must be known when it is registered"
        return
    if len(pattern.value) > PATTERN_CHARS_MAX:
        yield f"expected a pattern of at most {PATTERN_CHARS_MAX} characters, found {len(pattern.value)}"
        return
    if weight_of(pattern.value) > WEIGHT_MAX:
        yield (
            f"the pattern {pattern.value!r} of matches becomes too large; count less than {{100}}, "
            r"and write ranges like [a-z] instead of classes like \pL, and no \Q"
        )
        return
    wrong = _evaluate('"".matches(text)', pattern.value)
    if wrong:
        yield f"the pattern {pattern.value!r} of matches cannot be used: {wrong.removeprefix('invalid regular expression: ')}"


def _find_in_time_zone(function: str, zone: Node) -> Iterator[str]:
    # The library looks zones up as files and keeps every name for ever: none may come from an input.
    if not isinstance(zone, Constant) or not isinstance(zone.value, str) or not _TIME_ZONE.fullmatch(zone.value):
        found = f", found {zone.value!r}" if isinstance(zone, Constant) else ""
        yield f'the time zone of {function} must be written out, like "Europe/Berlin" or "+01:00"{found}'
    elif _evaluate("timestamp(0).getHours(text)", zone.value):
        yield f'there is no time zone "{zone.value}"'


def _find_in_text(function: str, value: object) -> Iterator[str]:
    if isinstance(value, str) and _evaluate(f"{function}(text)", value):
        yield f"{function} expects {_READ_FROM_TEXT[function]}, found {value!r}"


def _evaluate(expression: str, text: str) -> str:
    """What is wrong with it; empty: nothing."""
    found = _compiled(expression).eval(data={"text": text})
    return plain_complaint(str(found.value())) if found.type() == import_module("cel_expr_python.cel").Type.ERROR else ""


@cache
def _compiled(expression: str) -> Any:
    library = import_module("cel_expr_python.cel")
    return library.NewEnv(variables={"text": library.Type.STRING}).compile(expression)
