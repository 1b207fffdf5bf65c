"""Names that there are not: of variables, fields, messages, enums and functions."""

import re
from typing import Final

from google.protobuf.descriptor import EnumDescriptor

from participant_sdk.definitions.complaints import NEAR_CHARS, RAN, Complaint, Scope, closest, suggest
from participant_sdk.definitions.words import WRITTEN_DURATION, WRITTEN_MOMENT

MACROS: Final = ("all", "exists", "exists_one", "filter", "map")
_OF_TIME: Final = (
    *("getDate", "getDayOfMonth", "getDayOfWeek", "getDayOfYear", "getFullYear", "getHours"),
    *("getMilliseconds", "getMinutes", "getMonth", "getSeconds"),
)
_SHAPES: Final = {
    **{name: f"list.{name}(element, condition), with a name of your choice for the element" for name in MACROS},
    "map": "list.map(element, value), with a name of your choice for the element",
    "has": "has(message.field)",
    **{name: f"text.{name}(part)" for name in ("contains", "endsWith", "startsWith")},
    "matches": "text.matches(pattern)",
    **{name: f"moment.{name}()" for name in _OF_TIME},
    **{name: f"{name}(value)" for name in ("bool", "bytes", "double", "dyn", "int", "size", "string", "type", "uint")},
    "duration": WRITTEN_DURATION,
    "timestamp": WRITTEN_MOMENT,
}
FUNCTIONS: Final = tuple(sorted(_SHAPES))
_SHOWN: Final = ", ".join(sorted(_SHAPES.keys() - {*_OF_TIME, "dyn", "type"}))

_SIZE: Final = "write size(list)"
_NONE_OF_THE_KIND: Final = "there is nothing of the kind in the language: let a participant do it, or put the result into the input"
_NO_CLOCK: Final = "an expression gives the same result each time, so there is no clock and no chance in it; put it into the input"
_FUNCTIONS_ELSEWHERE: Final = {
    **dict.fromkeys(("len", "length", "count", "isEmpty", "is_empty", "empty"), _SIZE),
    **dict.fromkeys(("any", "some", "exist"), "write list.exists(element, condition)"),
    **dict.fromkeys(("every", "forEach", "foreach", "each"), "write list.all(element, condition), or list.map(element, value)"),
    **dict.fromkeys(("find", "where", "select"), "write list.filter(element, condition)"),
    **dict.fromkeys(("includes", "include", "has_key", "containsKey", "indexOf"), "write: value in list, or key in map"),
    **dict.fromkeys(("str", "toString", "to_string", "String"), "write string(value)"),
    **dict.fromkeys(("integer", "parseInt", "toInt"), "write int(value)"),
    **dict.fromkeys(("float", "decimal", "parseFloat"), "write double(value)"),
    **dict.fromkeys(("concat", "append", "push", "extend"), "write + between two texts, or between two lists"),
    **dict.fromkeys(("equals", "eq"), "write =="),
    **dict.fromkeys(("get", "getOrDefault"), 'write message.field, or for a map: "key" in map ? map["key"] : other'),
    **dict.fromkeys(("keys",), "write map.map(key, key), or: key in map"),
    **dict.fromkeys(("values", "items", "entries"), "write map.map(key, map[key])"),
    **dict.fromkeys(("first", "head"), "write list[0]"),
    **dict.fromkeys(("last",), "write list[size(list) - 1]"),
    **dict.fromkeys(("hasattr", "hasField", "HasField", "defined", "isset", "is_set", "which"), "write has(message.field)"),
    **dict.fromkeys(("coalesce", "default", "ifnull", "orValue", "or_"), "write has(message.field) ? message.field : other"),
    **dict.fromkeys(("iif", "cond", "when"), "write condition ? value : other"),
    **dict.fromkeys(("regex", "match", "test"), "write text.matches(pattern)"),
    **dict.fromkeys(("date", "datetime", "Date"), f"write {WRITTEN_MOMENT}"),
    **dict.fromkeys(
        ("days", "hours", "minutes", "seconds", "timedelta"),
        f"a span of time is written {WRITTEN_DURATION}, and asked with getHours(), getMinutes() or getSeconds()",
    ),
    **dict.fromkeys(("now", "today", "utcnow", "random", "uuid", "uuid4", "rand"), _NO_CLOCK),
    **dict.fromkeys(("upper", "lower", "toUpperCase", "toLowerCase", "upperAscii", "lowerAscii", "capitalize"), _NONE_OF_THE_KIND),
    **dict.fromkeys(("trim", "strip", "split", "join", "replace", "substring", "substr", "slice", "format"), _NONE_OF_THE_KIND),
    **dict.fromkeys(("sum", "max", "min", "abs", "round", "ceil", "floor", "sqrt", "pow", "avg", "reduce", "fold"), _NONE_OF_THE_KIND),
    **dict.fromkeys(("sort", "sorted", "reverse", "distinct", "unique", "range", "flatten", "print", "log", "bind"), _NONE_OF_THE_KIND),
}
"""What people write who know another language, and what is written here."""
_VARIABLES_ELSEWHERE: Final = {
    **dict.fromkeys(("True", "TRUE", "yes", "Yes"), "; write true"),
    **dict.fromkeys(("False", "FALSE", "no", "No"), "; write false"),
    **dict.fromkeys(
        ("None", "NULL", "Null", "nil", "undefined", "none"),
        "; only messages and wrappers can be null; whether another field is set is asked with has(message.field)",
    ),
    **dict.fromkeys(("now", "today"), f": {_NO_CLOCK}"),
    **dict.fromkeys(
        ("this", "self", "saga", "request", "req", "payload", "params", "args", "context", "ctx", "event", "message"),
        '; what the saga was started with is called "input", and what a step returned has the id of the step',
    ),
}
_VARIABLES_OF_HOOKS: Final = {
    "output": "only on_success has what the saga returned, if it returns something",
    "error": "only on_failure has what went wrong",
}

LOOPS: Final = frozenset({*MACROS, *(name for name, words in _FUNCTIONS_ELSEWHERE.items() if "element" in words)})
"""What is, or looks like, a function with a variable for each element."""
_OF_STEPS: Final = {
    **dict.fromkeys(("ran", "status", "state", "succeeded", "success", "done"), "whether step {0} took place is written ran.{0}"),
    **dict.fromkeys(("output", "result", "response", "outputs"), 'its fields are read directly: "{0}" is what step {0} returned'),
}
"""What people look for in a step."""


def no_such_field(complaint: Complaint, match: re.Match[str]) -> str:
    field, type_name = match.groups()
    descriptor = complaint.scope.types.find_descriptor(type_name)
    if descriptor is None:
        return f'{type_name} has no field "{field}"'
    names = [each.name for each in descriptor.fields]
    step = re.search(r"(?<![\w.])(\w+)\s*$", complaint.left)
    if step and step.group(1) in complaint.scope.steps() and field in _OF_STEPS and not closest(field, names):
        return f'{type_name} has no field "{field}"; {_OF_STEPS[field].format(step.group(1))}'
    if not names:
        return f'{type_name} has no field "{field}": it has no fields'
    oneof = descriptor.oneofs_by_name.get(field)
    if oneof is not None:
        members = [member.name for member in oneof.fields]
        return f'{type_name} has no field "{field}", this is a oneof: ask which is set with has(…) of {", ".join(members)}'
    return f'{type_name} has no field "{field}"{suggest(field, names, called="its fields are")}'


def no_such_name(complaint: Complaint, match: re.Match[str]) -> str:
    name, scope = match.group(1), complaint.scope
    following = _following(complaint, name)
    if name == "ran" or name.startswith(RAN):
        return _no_such_run(scope, name)
    if complaint.sign == "(" or following.startswith("("):
        return _no_such_function(name)
    if following.startswith("{"):
        return _no_such_message(scope, name)
    enum = _enum_meant(scope, name, following)
    if enum:
        return enum
    if following.startswith(":") and re.search(r"[{,]\s*$", complaint.left):
        return f'the keys of a map are texts in quotation marks, like "{name}"; a message begins with its name, like Name{{{name}: …}}'
    first, dot, _ = name.partition(".")
    if dot and first[:1].isupper() and first.lower() not in scope.offered():
        return _no_such_message(scope, name)
    return _no_such_variable(scope, first, name if dot else _path_at(complaint, first))


def _no_such_variable(scope: Scope, first: str, path: str) -> str:
    offered = scope.offered()
    told, known = f'there is no variable "{first}" here', f"there is: {', '.join(offered)}"
    names = path.split(".")
    inner = next((".".join(names[place:]) for place, name in enumerate(names) if place and name in offered), "")
    if first in _VARIABLES_OF_HOOKS:
        return f"{told}: {_VARIABLES_OF_HOOKS[first]}; {known}"
    if first in _VARIABLES_ELSEWHERE and not inner:
        return told + _VARIABLES_ELSEWHERE[first]
    meant = inner or closest(first, offered) or _owner_of(scope, first)
    if meant:
        return f'{told}; did you mean "{meant}"? {known}'
    later = closest(first, scope.later())
    return f'{told}, and step "{later}" does not come before this; {known}' if later else f"{told}; {known}"


def _owner_of(scope: Scope, field: str) -> str:
    """The field of that name of a variable, written in full; empty: none has it."""
    for variable in sorted(set(scope.offered()) & scope.variables.keys(), key=lambda name: (name != "input", name)):
        if scope.find_field(f"{variable}.{field}") is not None:
            return f"{variable}.{field}"
    return ""


def _enum_meant(scope: Scope, name: str, following: str) -> str:
    """Whether a value of an enum was meant; empty: no."""
    *path, value = (name + (re.match(r"(?:\.\w+)*", following) or [""])[0]).split(".")
    for enum in scope.enums():
        written = scope.shorten(enum.full_name)
        if name in enum.values_by_name:
            return f'there is no variable "{name}"; the value of an enum is written with the name of the enum: {written}.{name}'
        if path and path[-1].lower() == enum.name.lower() and (path[-1] != enum.name or value in enum.values_by_name):
            meant = closest(value, enum.values_by_name) or enum.values[-1].name
            return f'there is no enum "{".".join(path)}"; did you mean "{written}.{meant}"?'
    return ""


def _no_such_function(name: str) -> str:
    if name in _SHAPES:
        return f"{name} is written {_SHAPES[name]}"
    if name in _FUNCTIONS_ELSEWHERE:
        return f'there is no function "{name}"; {_FUNCTIONS_ELSEWHERE[name]}'
    close = closest(name, FUNCTIONS)
    meant = f'; did you mean "{close}"?' if close else ";"
    field = "; a field is read by its name, without get" if re.match(r"get[A-Z]", name) else ""
    return f'there is no function "{name}"{field}{meant} there are: {_SHOWN}; and for moments and durations: {", ".join(_OF_TIME)}'


def _no_such_run(scope: Scope, name: str) -> str:
    known = scope.steps()
    if name == "ran":
        return "ran is no value of its own: write ran.<id of a step>" + (f", like ran.{known[0]}" if known else "")
    wrong = name.removeprefix(RAN)
    return f'"{name}" asks for a step "{wrong}" that does not come before this{suggest(wrong, known)}'


def _no_such_message(scope: Scope, name: str) -> str:
    known = [
        scope.shorten(message.full_name)
        for message in scope.messages()
        if not message.full_name.startswith("google.") and not message.GetOptions().map_entry
    ]
    where = f" in package {scope.container}" if scope.container and "." not in name else ""
    others = "; a message of another package needs its full name" if where else ""
    if scope.types.find(f"google.protobuf.{name}") is not None:
        return f'there is no message "{name}"{where}; did you mean "google.protobuf.{name}"?{others.removeprefix(";")}'
    same = [full_name for full_name in known if full_name.rpartition(".")[2] == name.rpartition(".")[2]]
    if len(same) == 1:
        return f'there is no message "{name}"{where}; did you mean "{same[0]}"? there is: {", ".join(sorted(known)[:20])}{others}'
    return f'there is no message "{name}"{where}{suggest(name, known)}{others}'


def no_such_value(complaint: Complaint) -> str:
    """If a value was asked of an enum that it has not; empty: it is something else."""
    wrong = re.match(r"\s*\.\s*(\w+)", complaint.sign + complaint.right)
    before = re.search(r"([\w.]+)$", complaint.left)
    if not wrong or not before:
        return ""
    name = wrong.group(1)
    enum = next((enum for enum in complaint.scope.enums() if f".{enum.full_name}".endswith(f".{before.group(1)}")), None)
    return f'enum {enum.full_name} has no value "{name}"{suggest(name, enum.values_by_name)}' if enum is not None else ""


def value_meant(enum: EnumDescriptor, literal: str, scope: Scope) -> str:
    """The value of an enum that is like a text, as it is written here; any if none is."""
    wrong = literal.rpartition(".")[2].upper()
    alike = [name for name in enum.values_by_name if wrong and (name == wrong or name.endswith(f"_{wrong}"))]
    meant = next(iter(alike), "") or closest(wrong, enum.values_by_name) or enum.values[-1].name
    return f"{scope.shorten(enum.full_name)}.{meant}"


def _path_at(complaint: Complaint, first: str) -> str:
    """The name with the names behind it."""
    found = re.search(
        rf"(?<![\w.]){re.escape(first)}(?:\.\w+)*", complaint.code[max(0, complaint.column - 1 - len(first)) :][: len(first) + NEAR_CHARS]
    )
    return found.group() if found else first


def _following(complaint: Complaint, name: str) -> str:
    """What stands behind the name, without blanks."""
    place = complaint.code.find(name, max(0, complaint.column - 1 - len(name)))
    return complaint.code[place + len(name) :].lstrip() if place >= 0 else ""
