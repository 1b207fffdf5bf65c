"""Values of a type that does not fit: operators, functions, fields, choices and loops."""

import re
from typing import Final

from google.protobuf.descriptor import EnumDescriptor

from participant_sdk.definitions.complaints import Complaint
from participant_sdk.definitions.name_mistakes import no_such_value, value_meant
from participant_sdk.definitions.words import (
    DURATION,
    NUMBERS,
    TIMESTAMP,
    WRITTEN_DURATION,
    WRITTEN_MOMENT,
    listed,
    mixing_advice,
    readable,
    split,
    with_article,
    write_instead,
)

_OPERATORS: Final = {
    **{f"_{sign}_": sign for sign in ("+", "-", "*", "/", "%", "==", "!=", "<", "<=", ">", ">=", "&&", "||")},
    "-_": "-",
    "!_": "!",
    "_[_]": "[]",
    "@in": "in",
    "_in_": "in",
}
_COMPARISONS: Final = frozenset({"==", "!=", "<", "<=", ">", ">="})
_TAKES: Final = {
    "size": "a string, bytes, a list or a map",
    "string": "a bool, a number, bytes, a google.protobuf.Timestamp or a google.protobuf.Duration",
    "bool": 'a string that is "true" or "false"; compare a number: number != 0',
    "int": "a number, a string, or a google.protobuf.Timestamp",
    "uint": "a number or a string",
    "double": "a number or a string",
    "bytes": "a string",
    "timestamp": 'a string like "2026-01-31T12:00:00Z", or seconds since 1970',
    "duration": 'a string like "1h30m"',
    **dict.fromkeys(("contains", "startsWith", "endsWith", "matches"), "a string, on a string"),
}
_PATH: Final = r"[A-Za-z_][\w.]*(?:\[[^\]]*\][\w.]*)*"


def no_such_overload(complaint: Complaint, match: re.Match[str]) -> str:
    function, given = match.group(1), readable(match.group(2))
    kinds = split(given)
    if function == "_?_:_":
        return _bad_choice(complaint, kinds)
    symbol = _OPERATORS.get(function, "")
    if symbol in {"&&", "||", "!"}:
        return f"{symbol} takes bools, found {listed(kinds)}{_ran_meant(complaint) or _advice_on_bools(symbol, kinds)}"
    if symbol == "[]":
        return _bad_index(kinds)
    if not symbol:
        takes = f"; it takes {_TAKES[function]}" if function in _TAKES else ""
        return f"{function} cannot be applied to ({given}){takes}{_advice_on_call(function, kinds)}"
    enum, path = _enum_compared(complaint, symbol)
    if enum is not None and any("string" in kind for kind in kinds):
        literal = re.search(r"[\"']([\w.]+)[\"']", complaint.right) or re.search(r"[\"']([\w.]+)[\"']\s*$", complaint.left)
        meant = value_meant(enum, literal.group(1) if literal else "", complaint.scope)
        return f'"{path}" is an enum, and no text: compare it with its values, like {meant}'
    return f"{symbol} cannot be applied to {listed(kinds)}{_advice_on_operator(complaint, symbol, kinds)}"


def _bad_choice(complaint: Complaint, kinds: list[str]) -> str:
    if len(kinds) == 3 and kinds[0] != "bool":
        told = "the condition of filter" if complaint.sign == "(" else "the condition before ?"
        return f"{told} must be a bool, found {with_article(kinds[0])}{_ran_meant(complaint)}"
    sides = kinds[1:]
    if len(sides) == 2 and sum(side.startswith("list") for side in sides) == 1:
        return f"both sides of : must have the same type, found {listed(sides)}; write […] around a single entry"
    advice = mixing_advice(sides) or write_instead(*sides) or write_instead(*reversed(sides)) if len(sides) == 2 else ""
    return f"both sides of : must have the same type, found {listed(sides)}{advice}"


def _ran_meant(complaint: Complaint) -> str:
    """If the id of a step stands where a bool is wanted; put behind a description."""
    names = re.findall(r"(?<![\w.])(\w+)\s*$", complaint.left) + re.findall(r"^\W*?(\w+)(?![\w.])", complaint.right)
    step = next((name for name in names if name in complaint.scope.steps()), "")
    return f"; whether step {step} took place is written ran.{step}" if step else ""


def _bad_index(kinds: list[str]) -> str:
    told = f"[] takes a list and an int, or a map and a key of its type, found {listed(kinds)}"
    container = kinds[0]
    if container.startswith(("list(", "map(")) or "." not in container:
        return told
    return f"{told}; a field of a message is written behind a dot: message.field"


def _advice_on_bools(symbol: str, kinds: list[str]) -> str:
    if symbol == "||" and len(set(kinds)) == 1:
        return "; a value for what is not set is written has(message.field) ? message.field : other"
    return ""


def _advice_on_call(function: str, kinds: list[str]) -> str:
    if function == "contains" and kinds[0].startswith("list("):
        return "; whether a list has an entry is written: entry in list"
    if function.startswith("get") and kinds[0] not in {TIMESTAMP, DURATION}:
        return "; it is asked of a google.protobuf.Timestamp or a google.protobuf.Duration"
    return "" if function in _TAKES else mixing_advice(kinds)


def _advice_on_operator(complaint: Complaint, symbol: str, kinds: list[str]) -> str:
    found = set(kinds)
    if "null" in found and symbol in _COMPARISONS:
        return "; only messages and wrappers can be null; whether another field is set is asked with has(message.field)"
    if found & {TIMESTAMP, DURATION}:
        return _advice_on_time(symbol, kinds)
    if found <= {"bool", *NUMBERS} and kinds[0] == "bool" and re.search(r"[<>]=?[^<>=]+$", complaint.left):
        return "; comparisons do not chain: write a < b && b < c"
    if "bool" in found and symbol in {"==", "!="}:
        return "; write true or false" if found <= {"bool", "string", *NUMBERS} else _ran_meant(complaint)
    if symbol == "in":
        return "; a part of a text is found with text.contains(part)" if kinds == ["string", "string"] else _advice_on_in(kinds)
    if symbol == "%" and kinds[0] == "string":
        return "; texts are put together with +"
    if symbol == "+" and len(kinds) == 2 and f"list({kinds[1]})" == kinds[0]:
        return "; write […] around a single entry"
    return mixing_advice(kinds)


def _advice_on_in(kinds: list[str]) -> str:
    return "" if kinds[-1].startswith(("list(", "map(")) else "; it looks into a list, or for a key into a map"


def _advice_on_time(symbol: str, kinds: list[str]) -> str:
    other = next((kind for kind in kinds if kind not in {TIMESTAMP, DURATION}), "")
    if symbol == "+" and "string" in kinds and kinds[0] == "string":
        return "; convert the other one with string(…)"
    if symbol in {"*", "/", "%"}:
        return "; durations are only added and compared; getHours(), getMinutes() and getSeconds() make a number of one"
    if other in {*NUMBERS, "string"}:
        is_moment = TIMESTAMP in kinds and symbol in _COMPARISONS
        return f"; a moment is written {WRITTEN_MOMENT}" if is_moment else f"; a span of time is written {WRITTEN_DURATION}"
    return f"; a span of time is written {WRITTEN_DURATION}" if kinds == [TIMESTAMP, TIMESTAMP] else ""


def _enum_compared(complaint: Complaint, symbol: str) -> tuple[EnumDescriptor | None, str]:
    """The enum on one side of an operator, and what is written there."""
    left = re.search(rf"({_PATH})\s*$", complaint.left)
    right = re.match(rf"\s*({_PATH})", (complaint.sign + complaint.right)[len(symbol) :])
    for side in (left, right):
        field = complaint.scope.find_field(side.group(1)) if side else None
        if side and field is not None and field.enum_type is not None:
            return field.enum_type, side.group(1)
    return None, ""


def wrong_field_type(complaint: Complaint, match: re.Match[str]) -> str:
    field, expected, found = match.group(1), readable(match.group(2)), readable(match.group(3))
    enum = _enum_of_field(complaint, field) if expected == "int" else None
    if enum is not None:
        literal = re.match(r"\s*[\"']([\w.]+)[\"']", complaint.right)
        meant = value_meant(enum, literal.group(1) if literal else "", complaint.scope)
        return f'field "{field}" is an enum: expected {meant} or the like, found {with_article(found)}'
    advice = "; leave the field out instead" if found == "null" else write_instead(expected, found) or _ran_meant_for(complaint, expected)
    return f'field "{field}" takes {with_article(expected)}, found {with_article(found)}{advice}'


def _ran_meant_for(complaint: Complaint, expected: str) -> str:
    return _ran_meant(complaint) if expected == "bool" else ""


def _enum_of_field(complaint: Complaint, field: str) -> EnumDescriptor | None:
    """The enum of a field of that name, in a message that the expression names."""
    for message in complaint.scope.messages():
        found = message.fields_by_name.get(field)
        if found is not None and found.enum_type is not None and re.search(rf"\b{message.name}\s*\{{", complaint.text):
            return found.enum_type
    return None


def no_selection(complaint: Complaint, match: re.Match[str]) -> str:
    kind = readable(match.group(1))
    name = (re.match(r"\s*(\w+)", complaint.right) or ["", ""])[1]
    if "error" in kind:
        return no_such_value(complaint) or "what stands before the dot has no fields"
    path = re.search(rf"({_PATH})$", complaint.left)
    field = complaint.scope.find_field(path.group(1)) if path else None
    if path and field is not None and field.enum_type is not None and not field.is_repeated:
        meant = value_meant(field.enum_type, name, complaint.scope)
        return f'"{path.group(1)}" is an enum, which has no fields; compare it with its values: {path.group(1)} == {meant}'
    return f"what stands before the dot is {with_article(kind)}, which has no fields{_advice_on_selection(kind, name)}"


def _advice_on_selection(kind: str, name: str) -> str:
    if name in {"length", "size", "count", "len"} and (kind == "string" or kind.startswith("list(")):
        return "; how many there are is written size(…)"
    if kind.startswith("list(") and "." not in kind:
        return "; take one of them, like list[0]"
    if kind.startswith("list("):
        return f"; take one of them, like list[0].{name}, or all: list.map(element, element.{name})"
    if kind.endswith(" or null"):
        return "; it is read as it is, without .value" if name == "value" else ""
    if kind == TIMESTAMP:
        return "; ask it with getFullYear(), getMonth(), getDate(), getHours() and the like"
    return "; ask it with getHours(), getMinutes(), getSeconds() or getMilliseconds()" if kind == DURATION else ""


def bad_loop(complaint: Complaint, match: re.Match[str]) -> str:
    kind = readable(match.group(1))
    macro = re.search(r"\.\s*(all|exists_one|exists|filter|map)\s*\(", complaint.sign + complaint.right)
    return f"{macro.group(1) if macro else 'a loop'} takes a list or a map, found {with_article(kind)}"
