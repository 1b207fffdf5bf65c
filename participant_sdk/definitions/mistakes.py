"""What is wrong with an expression, in words: the library's complaints with what was expected, what there is, and what to write instead."""

import re
from collections.abc import Callable
from typing import Final

from participant_sdk.definitions.complaints import Complaint, Scope, excerpt
from participant_sdk.definitions.name_mistakes import LOOPS, no_such_field, no_such_name, no_such_value
from participant_sdk.definitions.syntax_mistakes import bad_macro, bad_syntax
from participant_sdk.definitions.type_mistakes import bad_loop, no_selection, no_such_overload, wrong_field_type

MISTAKES_MAX: Final = 5
"""Mistakes that are told of one expression; most of what follows the first ones follows from them."""
NESTING_MAX: Final = 32
"""Levels that the library reads."""
_CONSEQUENCE: Final = "*error*"
"""How the library names the type of what it has complained of already."""


def find_mistakes(text: str, complaint: str, scope: Scope) -> list[str]:
    """Every mistake in what the library says of an expression, as a description with the place."""
    found = _COMPLAINT.findall(complaint)
    if not found:
        reason = "it is nested too deep" if "recursion" in complaint else complaint.strip()
        return [f"{reason}{excerpt(text)}"]
    complaints = [
        Complaint(text=text, line=int(line), column=int(column), words=words.strip(), scope=scope) for line, column, words in found
    ]
    complaints.sort(key=lambda one: (one.line, one.column))
    told: dict[str, None] = {}
    for one in _worth_telling(complaints):
        told[f"{_explain(one)}{excerpt(text, one.line, _mark_of(one))}"] = None
        if len(told) == MISTAKES_MAX:
            break
    return list(told)


def _worth_telling(complaints: list[Complaint]) -> list[Complaint]:
    """Those that are no consequence of others."""
    unreadable = [one for one in complaints if "Syntax error" in one.words]
    if unreadable:
        return unreadable[:1]
    known = [one for one in complaints if not one.words.startswith("maximum number of")] or complaints  # there are more than these
    causes = [one for one in known if _CONSEQUENCE not in one.words or _is_wrong_value(one)] or known
    # Where a function is wrong, or called in a wrong way, what would be the variable of its loop or the name before its dot is nothing.
    causes = [one for one in causes if not re.search(r"(?<![\w.])ran\.\w+$", one.left) or one.sign != "("]  # ran is told itself
    calls = [one for one in causes if "undeclared reference" in one.words and one.sign == "("]
    return [one for one in causes if not any(_is_part_of(one, call) for call in calls if call is not one)]


def _is_part_of(one: Complaint, call: Complaint) -> bool:
    if one.line != call.line or "undeclared reference" not in one.words:
        return False
    name = re.escape(one.words.split("'")[1].partition(".")[0])
    if one.column < call.column:
        return re.search(rf"(?<![\w.]){name}\.\w+$", call.left) is not None
    looped = re.search(r"\w+$", call.left)
    if looped is None or looped.group() not in LOOPS:
        return False
    return re.match(rf"[^()]*\b{name}\s*(?:,|\)|\.|=>|->|:)", call.right) is not None


def _is_wrong_value(one: Complaint) -> bool:
    """Whether it is about the value of an enum: that it is unknown, the library tells in no other way."""
    return "operand of a select" in one.words and bool(no_such_value(one))


def _explain(complaint: Complaint) -> str:
    for pattern, explain in _EXPLANATIONS:
        match = pattern.search(complaint.words)
        if match is not None:
            return explain(complaint, match)
    return complaint.words


def _too_deep(_: Complaint, __: re.Match[str]) -> str:
    return f"nested or chained too deep: expected at most {NESTING_MAX} levels; take it apart, or group a long chain with parentheses"


def _bad_has(_: Complaint, __: re.Match[str]) -> str:
    return "has() asks whether a field is set, and takes its name: has(input.note)"


def _bad_number(_: Complaint, match: re.Match[str]) -> str:
    return f"this number is too large for {'a uint' if match.group(1) == 'uint' else f'an {match.group(1)}'}, which has 64 bits"


def _bad_sign(_: Complaint, match: re.Match[str]) -> str:
    return f"{match.group(1)} is not part of the language that is understood here; ask with has(…) whether a field is set"


_COMPLAINT: Final = re.compile(r"ERROR: <input>:(-?\d+):(-?\d+): (.*?)(?=\n \| |\nERROR: <input>|\s\[[A-Z_]+\]\s*$|\Z)", re.DOTALL)
_Explanation = Callable[[Complaint, re.Match[str]], str]
_EXPLANATIONS: Final[tuple[tuple[re.Pattern[str], _Explanation], ...]] = (
    (re.compile(r"undefined field '(.*?)' not found in struct '(.*?)'"), no_such_field),
    (re.compile(r"undeclared reference to '(.*?)'"), no_such_name),
    (re.compile(r"no matching overload for '(.*?)' applied to '\((.*)\)'"), no_such_overload),
    (re.compile(r"expected type of field '(.*?)' is '(.*?)' but provided type is '(.*)'"), wrong_field_type),
    (re.compile(r"expression of type '(.*)' cannot be the operand of a select"), no_selection),
    (re.compile(r"expression of type '(.*)' cannot be the range of a comprehension"), bad_loop),
    (re.compile(r"(\w+)\(\) variable name must be"), bad_macro),
    (re.compile(r"invalid (u?int) literal"), _bad_number),
    (re.compile(r"has\(\) argument must be"), _bad_has),
    (re.compile(r"recursion (?:depth|limit)"), _too_deep),
    (re.compile(r"unsupported syntax '(.*?)'"), _bad_sign),
    (re.compile(r"Syntax error: (.*)", re.DOTALL), bad_syntax),
)


def _mark_of(complaint: Complaint) -> int:
    """The column of the name or value that is wrong. The library points at the sign before or behind it."""
    sign, left, right, words = complaint.sign, complaint.left, complaint.right, complaint.words
    is_field, is_value = "undefined field" in words, "expected type of field" in words
    if (sign == "." and is_field) or (sign == ":" and is_value):
        return complaint.column + 1 + len(right) - len(right.lstrip())
    quoted = words.split("'")[1] if "'" in words else ""
    if sign == "(" and is_field:  # has(input.note)
        field = re.search(rf"\.\s*({re.escape(quoted)})\b", right)
        return complaint.column + 1 + field.start(1) if field else complaint.column
    if sign == "(" and quoted and right.lstrip().startswith(quoted):  # has(ran.step)
        return complaint.column + 1 + len(right) - len(right.lstrip())
    if (sign == ":" and is_field) or (sign in {".", "("} and "undeclared reference" in words):
        name = re.search(r"\w+\s*$" if sign == "(" else r"[\w.]+\s*$", left)
        return complaint.column - len(left) + name.start() if name else complaint.column
    return complaint.column
