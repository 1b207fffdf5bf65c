"""Types in sentences: how they are named, and how one is made from another."""

import re
from collections.abc import Iterable
from typing import Final

NUMBERS: Final = frozenset({"int", "uint", "double"})
TIMESTAMP: Final = "google.protobuf.Timestamp"
DURATION: Final = "google.protobuf.Duration"
WRITTEN_MOMENT: Final = 'timestamp("2026-01-31T12:00:00Z")'
WRITTEN_DURATION: Final = 'duration("72h")'
_TEXT_OF: Final = frozenset({*NUMBERS, "bool", "bytes", TIMESTAMP, DURATION})
"""What `string(…)` takes."""
_WRITTEN: Final = {
    ("double", "int"): "double(…), or 1.0 for a literal",
    ("uint", "int"): "uint(…), or 1u for a literal",
    ("bool", "int"): "true or false",
    ("bool", "string"): "true or false",
    (TIMESTAMP, "string"): "timestamp(…)",
    (TIMESTAMP, "int"): "timestamp(…), of seconds since 1970",
    (DURATION, "string"): "duration(…)",
    (DURATION, "int"): f"a span of time like {WRITTEN_DURATION}",
    (DURATION, "double"): f"a span of time like {WRITTEN_DURATION}",
}
_CONVERTIBLE: Final = {
    "int": frozenset({"uint", "double", "string", TIMESTAMP}),
    "uint": frozenset({"int", "double", "string"}),
    "double": frozenset({"int", "uint", "string"}),
    "string": _TEXT_OF,
    "bytes": frozenset({"string"}),
}


def with_article(kind: str) -> str:
    """A type as it stands in a sentence."""
    return kind if kind in {"null", "bytes"} else f"{'an' if kind[:1] in 'aeio' else 'a'} {kind}"


def listed(kinds: Iterable[str]) -> str:
    """Types as they stand in a sentence."""
    return " and ".join(with_article(kind) for kind in kinds)


def readable(kinds: str) -> str:
    """Types as people write them; the library's variables for what it has not found out are left out."""
    plain = re.sub(r"wrapper\((\w+)\)", r"\1 or null", kinds).replace("null_type", "null").replace("*error*", "error")
    return re.sub(r"T%\d+", "dyn", re.sub(r"list\(T%\d+\)", "list", re.sub(r"map\(T%\d+, T%\d+\)", "map", plain)))


def split(kinds: str) -> list[str]:
    """Types that are separated by commas, each whole."""
    found, depth, current = [], 0, ""
    for character in kinds:
        depth += {"(": 1, ")": -1}.get(character, 0)
        if character == "," and not depth:
            found.append(current.strip())
            current = ""
        else:
            current += character
    return [*found, current.strip()]


def mixing_advice(kinds: Iterable[str]) -> str:
    """What to do where two types should be one; empty if nothing is known."""
    found = set(kinds)
    if len(found) == 2 and found <= NUMBERS:
        return "; kinds of numbers do not mix, convert one with int(…), uint(…) or double(…): a literal double is 1.0, a uint 1u"
    if len(found) == 2 and "string" in found and found & NUMBERS:
        return "; convert one with string(…), int(…) or double(…)"
    if len(found) == 2 and "string" in found and found & _TEXT_OF:
        return "; convert the other one with string(…)"
    return ""


def write_instead(wanted: str, found: str) -> str:
    """How a value of the wanted type is written or made from the other one; empty if nothing is known."""
    if (wanted, found) in _WRITTEN:
        return f"; write {_WRITTEN[wanted, found]}"
    plain = wanted.removesuffix(" or null")
    if found in _CONVERTIBLE.get(plain, ()):
        return f"; write {plain}(…) to convert it"
    if wanted == f"list({found})":
        return "; write […] around it"
    if found == f"list({wanted})":
        return "; take one of them, like list[0]"
    if found.startswith("map(") and re.fullmatch(r"[\w.]+\.\w+", wanted) and not wanted.startswith("google."):
        return f"; begin with the name of the message: {wanted.rpartition('.')[2]}{{…}}"
    return ""
