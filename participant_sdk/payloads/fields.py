"""The fields of dataclasses and Pydantic models: which annotation becomes which field of a message."""

import types
import typing
from collections.abc import Callable, Collection, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from enum import Enum
from typing import Annotated, Any, Final, Literal, NewType, Protocol

from google.protobuf.message import Message

from participant_sdk.payloads.codecs import (
    SCALARS,
    WELL_KNOWN,
    Codec,
    Scalar,
    enum_codec,
    literal_codec,
    message_codec,
    subclass_codec,
)
from participant_sdk.payloads.naming import FIELD_NAME, NUMBER_MAX, WireField, number_of
from participant_sdk.payloads.plans import FieldPlan, Shape

_COLLECTIONS: Final[Mapping[object, Callable[[Any], Collection[object]]]] = {
    list: list,
    tuple: tuple,
    set: set,
    frozenset: frozenset,
    Sequence: tuple,
    Collection: tuple,
    AbstractSet: frozenset,
}
"""What is made of a repeated field, by what is annotated."""
_MAPPINGS: Final = frozenset({dict, Mapping})
_KEY_KINDS: Final = frozenset({"string", "int64", "bool"})
"""What protobuf allows as the key of a map."""
_RESERVED_NUMBERS: Final = range(19_000, 20_000)


@dataclass(frozen=True, slots=True, kw_only=True)
class DeclaredField:
    """A field as its class declares it."""

    name: str
    annotation: object
    default: Callable[[], object] | None
    """Makes its default; None: it must be given."""
    markers: tuple[object, ...] = ()
    """What `Annotated` said of it, where the annotation does not say so any more."""


class TypeResolver(Protocol):
    """Finds codecs for what only the class that has the field knows."""

    def find_codec(self, python_type: object) -> Codec | None:
        """Of a dataclass, a model, or a type of their own; None if it knows none. Raises TypeError if it cannot be carried."""


def plan_field(declared: DeclaredField, resolver: TypeResolver) -> FieldPlan:
    """How a field travels. Raises TypeError, saying what to write in place of what cannot be carried."""
    annotation, markers = _bare(declared.annotation)
    inner, is_optional = _without_none(annotation)
    wire = next((each for each in (*markers, *declared.markers) if isinstance(each, WireField)), WireField())
    plan = _shaped(inner, declared, wire, resolver)
    name = plan.wire_name
    if FIELD_NAME.fullmatch(name) is None:
        raise TypeError(f"a field's name on the wire is a letter, then ASCII letters, digits, underscores; found {name!r}: "
                        f"give it one with Annotated[…, WireField(name=…)]")  # fmt: skip
    if not 1 <= plan.number <= NUMBER_MAX or plan.number in _RESERVED_NUMBERS:
        raise TypeError(f"a field's number is 1 to {NUMBER_MAX}, without 19000 to 19999; found {plan.number}")
    _check_absence(plan, is_optional=is_optional)
    return FieldPlan(
        name=plan.name,
        wire_name=name,
        number=plan.number,
        shape=plan.shape,
        codec=plan.codec,
        key=plan.key,
        collection=plan.collection,
        is_optional=is_optional,
        default=declared.default,
    )


def _shaped(annotation: object, declared: DeclaredField, wire: WireField, resolver: TypeResolver) -> FieldPlan:
    """The plan by what the annotation holds: one value, many, or values by keys."""
    origin, arguments = typing.get_origin(annotation) or annotation, typing.get_args(annotation)
    shape, key, element = Shape.ONE, None, annotation
    collection: Callable[[Any], Collection[object]] = tuple
    if origin in _MAPPINGS:
        if len(arguments) != 2:
            raise TypeError("say what it holds, as in dict[str, int]")
        shape, key, element = Shape.MAP, _key_codec(arguments[0], resolver), arguments[1]
    elif origin in _COLLECTIONS:
        shape, collection, element = Shape.MANY, _COLLECTIONS[origin], _element_of(origin, arguments)
    codec = _codec(element, resolver, is_nested=shape is not Shape.ONE)
    kind = codec.kind if isinstance(codec, Scalar) else "message"
    if shape is Shape.MANY:
        kind = f"repeated {kind}"
    elif key is not None:
        kind = f"map<{key.kind}, {kind}>"
    wire_name = wire.name or declared.name
    return FieldPlan(
        name=declared.name,
        wire_name=wire_name,
        number=wire.number if wire.number is not None else number_of(wire_name, kind),
        shape=shape,
        codec=codec,
        key=key,
        collection=collection,
        is_optional=False,
        default=declared.default,
    )


def _element_of(origin: object, arguments: tuple[object, ...]) -> object:
    if origin is tuple:
        if len(arguments) != 2 or arguments[1] is not Ellipsis:
            raise TypeError("only tuples of any length can be carried, as tuple[int, ...]; make a dataclass of one with fixed places")
        return arguments[0]
    if len(arguments) != 1:
        raise TypeError("say what it holds, as in list[str]")
    return arguments[0]


def _codec(annotation: object, resolver: TypeResolver, *, is_nested: bool) -> Codec:
    bare, _ = _bare(annotation)
    if typing.get_origin(bare) is Literal:
        return literal_codec(typing.get_args(bare))
    origin = typing.get_origin(bare) or bare
    if is_nested and (origin in _COLLECTIONS or origin in _MAPPINGS):
        raise TypeError("a list of lists cannot be carried: make a dataclass of the inner one")
    if _is_union(bare):
        what = "None is no value in a list or dict" if is_nested else "it can be one type, or that type or None"
        raise TypeError(f"{what}; found {bare}: make a dataclass with one optional field for each")
    if isinstance(bare, type):
        found = _class_codec(bare, resolver)
        if found is not None:
            return found
    else:
        found = resolver.find_codec(bare)
        if found is not None:
            return found
    raise TypeError(f"{_shown(bare)} cannot be carried: see the table of docs/payloads.md for what can")


def _class_codec(python_type: type, resolver: TypeResolver) -> Codec | None:
    exact: Codec | None = SCALARS.get(python_type) or WELL_KNOWN.get(python_type)
    if exact is not None:
        return exact
    if issubclass(python_type, Enum):
        return enum_codec(python_type)
    if issubclass(python_type, Message) and python_type is not Message:
        return message_codec(python_type)
    own = resolver.find_codec(python_type)
    if own is not None:
        return own
    for base in (str, int, float, bytes):
        if issubclass(python_type, base):
            return subclass_codec(python_type, base)
    return None


def _key_codec(annotation: object, resolver: TypeResolver) -> Scalar:
    codec = _codec(annotation, resolver, is_nested=True)
    if not isinstance(codec, Scalar) or codec.kind not in _KEY_KINDS:
        raise TypeError(f"the keys of a dict are texts, whole numbers or bools on the wire; found {_shown(annotation)}")
    return codec


def _check_absence(plan: FieldPlan, *, is_optional: bool) -> None:
    """What is left out on the wire must mean one thing (a message cannot tell an empty list from none)."""
    if plan.shape is not Shape.ONE:
        if is_optional:
            raise TypeError("a list, set, tuple or dict cannot be told from None on the wire: leave `| None` out, empty says it")
        if plan.default is not None and plan.default():
            raise TypeError("an empty list, set, tuple or dict is carried by leaving it out, so its default must be empty")
    elif is_optional and plan.default is not None and plan.default() is not None:
        raise TypeError("None is carried by leaving the field out, so the default of a field that may be None must be None")


def _bare(annotation: object) -> tuple[object, tuple[object, ...]]:
    """Without Annotated, NewType and type aliases, and what Annotated said."""
    markers: tuple[object, ...] = ()
    while True:
        if typing.get_origin(annotation) is Annotated:
            annotation, *said = typing.get_args(annotation)
            markers = (*markers, *said)
        elif isinstance(annotation, NewType):
            annotation = annotation.__supertype__
        elif type(annotation).__name__ == "TypeAliasType":
            annotation = annotation.__value__  # type: ignore[attr-defined]  # what `type X = …` makes, from Python 3.12 on
        else:
            return annotation, markers


def _without_none(annotation: object) -> tuple[object, bool]:
    if not _is_union(annotation):
        return annotation, False
    members = [member for member in typing.get_args(annotation) if member is not type(None)]
    if len(members) == 1:
        inner, _ = _bare(members[0])
        return inner, True
    return annotation, False


def _is_union(annotation: object) -> bool:
    return typing.get_origin(annotation) in {typing.Union, types.UnionType}


def _shown(annotation: object) -> str:
    return annotation.__name__ if isinstance(annotation, type) else str(annotation)
