"""Why an expression failed when it was evaluated, in words."""

import re
from typing import Final

_CODE: Final = re.compile(r"^[A-Z_]+: |\s*\[[A-Z_]+\]$")
_REASONS: Final = (
    (re.compile(r"Key not found in map : (.*)", re.DOTALL), "the map has no key {0}; ask first, with: {0} in the map"),
    (re.compile(r"Index error: index=(-?\d+) size=(\d+)"), "the list has no element {0}, its size is {1}; ask for size(…) first"),
    (re.compile(r"Iteration budget exceeded"), "its loops take more than 10,000 turns"),
    (
        re.compile(r"No matching overloads found : (.*null_type.*)", re.DOTALL),
        "{0}: a value is null; a field of google.protobuf.StringValue and its like is null until it is set: ask first with has(…)",
    ),
    (
        re.compile(r"unable to find descriptor for type URL: ?(.*)", re.DOTALL),
        "the google.protobuf.Any holds a type that did not come with the definition: {0}",
    ),
    (re.compile(r"conversion error from 'null_type' to '(.*?)'"), "expected a value of type {0}, found null; ask first with has(…)"),
    (re.compile(r"bad_alloc"), "it needs too much memory"),
)


def explain_failure(complaint: str) -> str:
    """What the library says, without its codes, and with what to do where that is known."""
    plain = plain_complaint(complaint)
    for pattern, words in _REASONS:
        match = pattern.search(plain)
        if match is not None:
            return words.format(*(group.strip() or "no type" for group in match.groups()))
    return plain or "the library does not say why"


def plain_complaint(complaint: str) -> str:
    """What the library says, without the quotation marks and codes around it."""
    plain = complaint.strip()
    if plain[:1] in {"'", '"'} and plain[-1:] == plain[:1]:
        plain = plain[1:-1]
    return _CODE.sub("", plain)
