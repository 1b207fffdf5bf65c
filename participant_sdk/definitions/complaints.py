"""What the library complains of, and where: the raw form of a mistake, and how its place is shown."""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from itertools import islice
from typing import Final

from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor

from participant_sdk.definitions.message_types import MessageTypes

NAMES_SHOWN_MAX: Final = 20
NAMES_COMPARED_MAX: Final = 1_000
"""Names that a wrong one is compared with, 5 µs each. Who sends very many messages gets no better suggestion than that."""
EXCERPT_CHARS_MAX: Final = 100
"""Of the line with the mistake; a longer one is cut around it."""
NEAR_CHARS: Final = 200
"""Around a place that are looked at for what may have been meant: looking costs the square of it."""
RAN: Final = "ran."


@dataclass(frozen=True, slots=True, kw_only=True)
class Scope:
    """What an expression may refer to."""

    container: str
    """Package whose messages need no package."""
    variables: Mapping[str, str]
    """Message types by the names of the variables; empty for the bools `ran.<step>`."""
    types: MessageTypes
    available: frozenset[str] | None = None
    """Variables with a message that can be read here, and so are worth to be offered. None: all."""

    def offered(self) -> list[str]:
        """Names that an expression may begin with here, in order."""
        names = {name for name in self.variables if not name.startswith(RAN) and self._is_available(name)}
        return sorted(names | ({RAN.removesuffix(".")} if self.steps() else set()))

    def steps(self) -> list[str]:
        """Ids of the steps that come before, in order."""
        steps = (name.removeprefix(RAN) for name in self.variables if name.startswith(RAN))
        return sorted(step for step in steps if self._is_available(step))

    def later(self) -> list[str]:
        """Ids of the steps that there are, and that cannot be read here."""
        return sorted(name for name in self.variables if not name.startswith(RAN) and not self._is_available(name))

    def _is_available(self, name: str) -> bool:
        return self.available is None or name in self.available

    def enums(self) -> Iterator[EnumDescriptor]:
        """Those that came with the definition, up to a bound."""
        return islice(self.types.enums(), NAMES_COMPARED_MAX)

    def messages(self) -> Iterator[Descriptor]:
        """Those that came with the definition, up to a bound."""
        return islice(self.types.messages(), NAMES_COMPARED_MAX)

    def shorten(self, full_name: str) -> str:
        """How a message or an enum is written here."""
        return full_name.removeprefix(f"{self.container}.") if self.container else full_name

    def find_field(self, path: str) -> FieldDescriptor | None:
        """The field that a path like "input.lines[0].sku" ends at; None if that is not known.

        The variable of a loop is not known: then it is any field of that name, in what came with the definition.
        """
        first, *names = re.sub(r"\[[^\]]*\]", "", path).split(".")
        if not names:
            return None
        if first not in self.variables:
            fields = (message.fields_by_name.get(names[-1]) for message in self.messages())
            return next((field for field in fields if field is not None), None)
        message, field = self.types.find_descriptor(self.variables[first]), None
        for name in names:
            field = message.fields_by_name.get(name) if message is not None else None
            message = field.message_type if field is not None else None
        return field


@dataclass(frozen=True, slots=True, kw_only=True)
class Complaint:
    """One thing that the library says of an expression."""

    text: str
    """The whole expression."""
    line: int
    """From 1; 0 or less: the library does not say where."""
    column: int
    """From 1. The library points at the sign before or behind what is meant."""
    words: str
    scope: Scope

    @property
    def code(self) -> str:
        """The line that it is about; empty if that is not known."""
        lines = self.text.split("\n")
        return lines[self.line - 1] if 1 <= self.line <= len(lines) else ""

    @property
    def left(self) -> str:
        """What stands before the place on its line, as far as it is near."""
        return self.code[: max(0, self.column - 1)][-NEAR_CHARS:]

    @property
    def preceding(self) -> str:
        """As `left`, with the lines before."""
        lines = self.text.split("\n")[: max(0, self.line - 1)]
        return "\n".join([*lines, self.code[: max(0, self.column - 1)]])[-NEAR_CHARS:]

    @property
    def sign(self) -> str:
        """The character at the place."""
        return self.code[self.column - 1 : self.column] if self.column >= 1 else ""

    @property
    def right(self) -> str:
        """What stands behind that, as far as it is near."""
        return self.code[max(0, self.column) :][:NEAR_CHARS]


def excerpt(text: str, line: int = 0, column: int = 0) -> str:
    """The expression, or its line with a mark below the place; lines of their own, to be put behind a description."""
    lines = text.split("\n")
    if not 1 <= line <= len(lines) or column < 1:
        shown = text if len(text) <= EXCERPT_CHARS_MAX else text[: EXCERPT_CHARS_MAX - 1] + "…"
        return f", in: {shown}" if "\n" not in shown else "".join(f"\n    {one}" for one in shown.split("\n"))
    whole = lines[line - 1].expandtabs(1)
    begin = max(0, min(column - 1 - EXCERPT_CHARS_MAX // 2, len(whole) - EXCERPT_CHARS_MAX))
    shown = whole[begin : begin + EXCERPT_CHARS_MAX]
    before, after = "…" if begin else "", "…" if begin + EXCERPT_CHARS_MAX < len(whole) else ""
    mark = " " * (len(before) + column - 1 - begin) + "^"
    return f" (line {line}, column {column})\n    {before}{shown}{after}\n    {mark}"


def excerpt_at(text: str, place: int) -> str:
    """As `excerpt`, of what stands at a place counted from 0; a name directly before a brace or parenthesis belongs to it."""
    if text[place : place + 1] in {"{", "("}:
        name = re.search(r"[\w.]+$", text[:place])
        place = name.start() if name else place
    return excerpt(text, text.count("\n", 0, place) + 1, place - text.rfind("\n", 0, place))


def closest(wrong: str, known: Iterable[str]) -> str:
    """The name that may have been meant; empty: none is like it. Names that differ in capitals and underscores only are alike."""
    names = sorted(islice(known, NAMES_COMPARED_MAX))
    alike = [name for name in names if _plain(name) == _plain(wrong)]
    return next(iter(alike or get_close_matches(wrong, names, n=1, cutoff=0.6)), "")


def suggest(wrong: str, known: Iterable[str], *, called: str = "there is") -> str:
    """What may have been meant, and what there is; put behind a description. Empty if there is nothing."""
    names = sorted(islice(known, NAMES_COMPARED_MAX))
    close = closest(wrong, names)
    meant = f'; did you mean "{close}"?' if close else ";"
    shown = ", ".join(names[:NAMES_SHOWN_MAX]) + (", …" if len(names) > NAMES_SHOWN_MAX else "")
    return f"{meant} {called}: {shown}" if names else ""


def _plain(name: str) -> str:
    return name.replace("_", "").lower()
