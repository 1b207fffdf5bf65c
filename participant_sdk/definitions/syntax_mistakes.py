"""What cannot be read at all, and what those meant who know another language."""

import re
from typing import Final

from participant_sdk.definitions.complaints import Complaint

_CHOICE: Final = "a choice is written condition ? value : other"
_ONLY_A_VALUE: Final = "an expression is one value: nothing is assigned, returned or ended in it"
_WORDS: Final = {
    "and": "write && instead of and",
    "or": "write || instead of or",
    "not": "write ! instead of not, before the whole: !(value in list)",
    "is": "write == instead of is",
    "in": "write it in small letters: value in list",
    "like": "compare texts with text.startsWith(part), endsWith, contains or matches",
    "between": "write low <= value && value <= high",
    **dict.fromkeys(("if", "else", "then", "elif", "case"), _CHOICE),
    **dict.fromkeys(("for", "lambda", "function"), "something of each element is written list.map(element, value)"),
    **dict.fromkeys(("return", "let", "var", "const", "def", "select"), _ONLY_A_VALUE),
    "new": "write a message without new: Name{field: value}",
}
"""Words of other languages, in small letters."""
_UNKNOWN_SIGNS: Final = {
    "&": "write && to combine bools",
    "|": "write || to combine bools",
    "~": "write ! for the opposite of a bool, and text.matches(pattern) for a pattern",
    "^": "there is no such operator",
    "#": "a remark begins with //",
    ";": "one field is separated from the next by a comma, and an expression does not end with a sign",
    "$": "variables are written without it, and without braces: input.name",
    "@": "variables are written without it",
    "\\": "outside of texts there is none",
    **dict.fromkeys("“”„‘’«»", "texts stand in plain quotation marks: \"…\" or '…'"),  # noqa: RUF001 - that is the point
}
_LAST_TWO: Final = {
    "<>": "write != for what is not equal",
    "->": "fields are read with a dot, and a function of each element is written list.map(element, value)",
    "**": "there is no power",
    "++": "nothing is counted up in an expression; write + 1",
    "/*": "a remark begins with //",
    "??": "a value for what is not set is written has(message.field) ? message.field : other",
    "//": "a remark begins with //",
}
_EQUAL_SIGNS: Final = {
    "=>": "write >= to compare; what is done with each element is written without an arrow: list.map(element, value)",
    "=<": "write <= to compare",
    "=~": "write text.matches(pattern)",
}


_TEXT: Final = r"[\"'].*"
_HINTS: Final = tuple(
    (re.compile(found, re.DOTALL), re.compile(left), words)
    for found, left, words in (
        (_TEXT, r"\b[a-zA-Z]+$", 'a text cannot hold values: put it together with +, like "Dear " + input.name'),
        (_TEXT, r"[\"']\s*$", "texts are put together with +"),
        (_TEXT, r"[\w.]\s*\{(?:[^{}]*,)?\s*$", "the fields of a message are written without quotation marks: Name{field: value}"),
        (r"\w+", r"[\"']$", "a quotation mark inside of a text is written \\' or \\\", or the text is put into marks of the other kind"),
        (r"ms|[smhd]", r"\d$", 'a span of time is written duration("72h")'),
        (r"_?\d+", r"\d\s*,?$", "numbers are written without separators: 1000"),
        (r"\.\d+", r"", "an entry of a list is written list[0]"),
        (r":", r"\[[^\]{}]*$", "an entry of a list is written list[0], and there are no parts from one place to another"),
        (r"\*", r"\[\s*$", "something of each element is written list.map(element, value)"),
        (r"/", r"", "a pattern is a text in quotation marks"),
        (r"`.*", r"", "names are written without quotation marks"),
        (r",", r"\bin\s*\([^()]*$", "a list is written in brackets: [1, 2]"),
        (r"\}", r"\{\s*\{[^{}]*$", "variables are written without braces: input.name"),
        (r"\}", r"[\w.]\{(?:[^{}]*,)?\s*\w+\s*$", "a field is written with its value: Name{field: value}"),
    )
)
"""What was found, what stands before it, and what to write instead."""


def bad_syntax(complaint: Complaint, match: re.Match[str]) -> str:
    words = match.group(1)
    mismatched = re.search(r"(?:mismatched|extraneous) input '(.*?)' expecting (.*)", words, re.DOTALL)
    if mismatched:
        token = mismatched.group(1)
        told = f"expected {_expected(mismatched.group(2))}, found {_token(token)}"
        return f"{told}{_advice(complaint, '' if token == '<EOF>' else token)}"  # noqa: S105 - it is no password
    missing = re.search(r"missing '(.*?)' at '(.*)'", words, re.DOTALL)
    if missing:
        return f'expected "{missing.group(1)}" before {_token(missing.group(2))}{_advice(complaint, "")}'
    unread = re.search(r"token recognition error at: '(.*)'", words, re.DOTALL)
    if unread:
        return _unknown_sign(complaint, unread.group(1).strip())
    if "no viable alternative" not in words:
        return f"this cannot be read: {words}"
    return f"this cannot be read{_advice(complaint, complaint.sign) or _advice_on_dot(complaint)}"


def bad_macro(complaint: Complaint, match: re.Match[str]) -> str:
    name = match.group(1)
    return f"{name} is written list.{name}(element, …), with a name of your choice for the element and nothing else there"


def _unknown_sign(complaint: Complaint, token: str) -> str:
    if token.startswith(('"', "'")):
        return "this text has no end: the closing quotation mark is missing"
    if token.startswith("="):
        before, pair = complaint.preceding[-2:], token[:1] + complaint.right[:1]
        if before in {"==", "!="}:
            return f"write {before} with two signs"
        told = _EQUAL_SIGNS.get(pair, "write == to compare, and : between a field and its value")
        return f'"{token[:1]}" means nothing here; {told}{_advice_on_call(complaint)}'
    advice = _UNKNOWN_SIGNS.get(token[:1])
    return f'"{token}" means nothing here; {advice}' if advice else f'"{token}" means nothing here'


def _advice(complaint: Complaint, token: str) -> str:
    """What was probably meant, put behind a description; empty: nobody knows."""
    before = complaint.preceding.rstrip()
    last_word = (re.search(r"(\w+)$", before) or [""])[0]
    first_word = (re.match(r"\s*(if)\s*\(", complaint.text) or ["", ""])[1]
    for word in (token, last_word, first_word):
        if word.lower() in _WORDS and word != "in":
            return f"; {_WORDS[word.lower()]}"
    pair = before[-1:] + token[:1]
    if token and pair in _LAST_TWO:
        return f"; {_LAST_TWO[pair]}"
    if "?." in before:
        return f"; {_LAST_TWO['??']}"
    if re.search(r"(?<!-)--(?!-)", before):
        return f"; {_LAST_TWO['//']}"
    for found, left, words in _HINTS:
        if found.fullmatch(token) and left.search(complaint.preceding):
            return f"; {words}"
    if token != ":":  # noqa: S105 - it is no password
        return ""
    return f"; {_ONLY_A_VALUE}" if complaint.right.startswith("=") else _advice_on_call(complaint)


def _advice_on_call(complaint: Complaint) -> str:
    """If a message is written as the call of a class."""
    return "; a message is written with braces: Name{field: value}" if re.search(r"\b[A-Z]\w*\([^()]*$", complaint.preceding) else ""


def _advice_on_dot(complaint: Complaint) -> str:
    if re.search(r"\d\.$", complaint.preceding):
        return "; a digit is missing behind the point: 1.0"
    return "; the name of a field is missing behind the dot" if complaint.preceding.rstrip().endswith(".") else ""


def _expected(tokens: str) -> str:
    if "IDENTIFIER" in tokens and "STRING" in tokens:
        return "a value"
    if "IDENTIFIER" in tokens:
        return "a name"
    return " or ".join(_token(token.strip(" '")) for token in tokens.strip("{}").split("', '"))


def _token(token: str) -> str:
    if token == "<EOF>":  # noqa: S105 - it is no password
        return "the end"
    return token if token.startswith(('"', "'")) else f'"{token}"'
