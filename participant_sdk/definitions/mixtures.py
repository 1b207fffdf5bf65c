"""Values of a wrong type that the library lets pass until they are evaluated, because they stand where it knows no type.

For the library a list of an int and a text is a list of dyn, and dyn fits everywhere. So what is written out is judged again here, with
the type that is wanted where it stands: a list in a field of a message, both sides of a choice, what a loop collects, what `dyn(…)` hides.
Left alone is what cannot be known: what is read from a google.protobuf.Struct, Value, ListValue or Any, and what is put into one, where
lists and maps may hold anything that JSON can. Where nobody wants a type, entries must agree with each other; `dyn([…])` says that they
need not.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final, NamedTuple

from participant_sdk.definitions.expression_tree import (
    Call,
    Constant,
    Loop,
    Name,
    NewList,
    NewMap,
    NewMessage,
    Node,
    Select,
    Tree,
    parts_of,
)
from participant_sdk.definitions.message_types import MessageTypes
from participant_sdk.definitions.value_types import DYN, JSON, ValueType, fits, is_known, type_of_field, type_of_message
from participant_sdk.definitions.words import listed, mixing_advice, with_article, write_instead


class Flaw(NamedTuple):
    """Something in an expression that compiles and cannot work."""

    node: Node
    """Where it is."""
    description: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Want:
    """What is wanted at a place."""

    type: ValueType
    words: str
    """Who wants it. Example: 'field "prices" takes a list(shop.v1.Money)'."""
    part: str = ""
    """What it is a part of that; empty: it is the whole."""
    is_null_fine: bool = True
    """Whether null may stand for nothing: in a field, not in a list."""


ANYTHING: Final = Want(type=DYN, words="")
"""At a place of which the type is not known."""
_COMPARED: Final = frozenset({"_==_", "_!=_"})
_KEYS: Final = frozenset({"dyn", "bool", "int", "uint", "string", "google.protobuf.Any"})


def want_of(type_name: str, because: str) -> Want:
    """What is wanted of a whole expression that is to return a message of that name."""
    return Want(type=type_of_message(type_name), words=f"expected a {type_name}, because {because}", is_null_fine=False)


def find_mixtures(tree: Tree, types: MessageTypes, wanted: Want | None) -> Iterator[Flaw]:
    """Every such value. `wanted`: of the whole expression; None: no type of its own."""
    return _Finder(tree, types).find(tree.root, wanted)


@dataclass(frozen=True, slots=True)
class _Finder:
    tree: Tree
    types: MessageTypes

    def find(self, node: Node, want: Want | None) -> Iterator[Flaw]:
        match node:
            case Constant() | Name():
                yield from self._judge(node, want)
            case Select():
                yield from self.find(node.operand, None)
                yield from self._judge(node, want)
            case NewMessage():
                yield from self._find_in_message(node)
                yield from self._judge(node, want)
            case NewList():
                yield from self._find_in_list(node, want)
            case NewMap():
                yield from self._find_in_map(node, want)
            case Call():
                yield from self._find_in_call(node, want)
            case Loop():
                yield from self._find_in_loop(node, want)

    def _judge(self, node: Node, want: Want | None) -> Iterator[Flaw]:
        if want is None:
            return
        found = self.tree.type_of(node)
        if found.text == "null" and want.is_null_fine:
            return  # the library says where a whole field cannot be null
        if not fits(want.type, found):
            yield Flaw(node, _told(want, found))

    def _find_in_message(self, node: NewMessage) -> Iterator[Flaw]:
        message = self.types.find_descriptor(node.type_name)
        for name, value in node.fields:
            field = message.fields_by_name.get(name) if message is not None else None
            if field is None:
                yield from self.find(value, None)
            else:
                wanted = type_of_field(field)
                yield from self.find(value, Want(type=wanted, words=f'field "{name}" takes {with_article(wanted.text)}'))

    def _find_in_list(self, node: NewList, want: Want | None) -> Iterator[Flaw]:
        if want is None:
            yield from self._find_differences(node.elements, "the entries of a list")
        elif want.type in (DYN, JSON):
            yield from self._find_each(node.elements, replace(want, part="an entry"))
        elif len(want.type.parts) == 1:
            part = replace(want, type=want.type.parts[0], part="an entry", is_null_fine=False)
            yield from self._find_each(node.elements, part)
        else:
            yield Flaw(node, _told(want, self.tree.type_of(node)))

    def _find_in_map(self, node: NewMap, want: Want | None) -> Iterator[Flaw]:
        keys, values = tuple(key for key, _ in node.entries), tuple(value for _, value in node.entries)
        if want is None:
            yield from self._find_differences(keys, "the keys of a map")
            yield from self._find_differences(values, "the values of a map")
        elif want.type == DYN:
            yield from self._find_each((*keys, *values), want)
        elif want.type == JSON or len(want.type.parts) == 2:
            key, value = (ValueType(text="string"), JSON) if want.type == JSON else want.type.parts
            yield from self._find_each(keys, replace(want, type=key, part="a key", is_null_fine=False))
            yield from self._find_each(values, replace(want, type=value, part="a value", is_null_fine=value == JSON))
        else:
            yield Flaw(node, _told(want, self.tree.type_of(node)))

    def _find_each(self, nodes: Sequence[Node], want: Want) -> Iterator[Flaw]:
        for node in nodes:
            yield from self.find(node, want)

    def _find_differences(self, nodes: Sequence[Node], words: str) -> Iterator[Flaw]:
        """Parts that nobody wants anything of, except that they agree."""
        first: ValueType | None = None
        for node in nodes:
            yield from self.find(node, None)
            found = self.tree.type_of(node)
            if first is None or (first.text == "null" and _agree(first, found)):
                first = found
            elif not _agree(first, found):
                told = f"{words} must have the same type, found {listed([first.text, found.text])}{mixing_advice([first.text, found.text])}"
                yield Flaw(node, told)
                return

    def _find_in_call(self, node: Call, want: Want | None) -> Iterator[Flaw]:
        arguments = node.arguments
        match node.function:
            case "_?_:_":
                yield from self.find(arguments[0], None)
                yield from self._find_each(arguments[1:], want) if want is not None else self._find_parts(arguments[1:])
            case "dyn":
                yield from self.find(arguments[0], want or ANYTHING)
            case "_+_" if self._is_list(node):
                yield from self._find_each(arguments, want) if want is not None else self._find_parts(arguments)
            case function if function in _COMPARED:
                yield from self._find_in_comparison(arguments)
            case "@in":
                yield from self._find_in_search(node)
            case _:
                yield from self._find_parts(arguments)
                yield from self._judge(node, want)

    def _find_in_search(self, node: Call) -> Iterator[Flaw]:
        wanted, container = node.arguments
        found = self.tree.type_of(wanted)
        yield from self.find(wanted, None)
        yield from self.find(container, ANYTHING if not is_known(found) else None)
        if len(self.tree.type_of(container).parts) == 2 and found.text not in _KEYS:
            yield Flaw(wanted, f"the keys of a map are texts, whole numbers or bools, and never {with_article(found.text)}")

    def _find_in_comparison(self, arguments: Sequence[Node]) -> Iterator[Flaw]:
        for argument, other in zip(arguments, reversed(arguments), strict=True):
            is_any = bool(parts_of(other)) and not is_known(self.tree.type_of(other))  # what is empty says nothing
            yield from self.find(argument, ANYTHING if is_any else None)

    def _find_in_loop(self, node: Loop, want: Want | None) -> Iterator[Flaw]:
        yield from self.find(node.over, None)
        yield from self.find(node.condition, None)
        collects = isinstance(node.start, NewList)
        yield from self.find(node.step, want if collects else None)
        if not collects:
            yield from self._judge(node, want)

    def _find_parts(self, nodes: Sequence[Node]) -> Iterator[Flaw]:
        for node in nodes:
            yield from self.find(node, None)

    def _is_list(self, node: Node) -> bool:
        return len(self.tree.type_of(node).parts) == 1 or any(isinstance(part, NewList) for part in parts_of(node))


def _agree(one: ValueType, other: ValueType) -> bool:
    for this, that in ((one, other), (other, one)):
        if this.text == "null":
            return bool(that.message) or that.text in {"null", "dyn"}
    return fits(one, other)


def _told(want: Want, found: ValueType) -> str:
    advice = write_instead(want.type.text, found.text)
    if found.text == "null":
        advice = "; leave it out instead" if want.part else "; null is no message"
    subject = f"{want.part} that is " if want.part else ""
    return f"{want.words}, found {subject}{with_article(found.text)}{advice}"
