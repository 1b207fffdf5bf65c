"""What dataclasses and Pydantic models, and their fields, are called on the wire."""

import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, TypeVar

TypeT = TypeVar("TypeT", bound=type)

_NAME_ATTRIBUTE: Final = "__payload_name__"
_FULL_NAME: Final = re.compile(r"[A-Za-z][A-Za-z0-9_]*(\.[A-Za-z][A-Za-z0-9_]*)*")
FIELD_NAME: Final = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,63}")
NUMBER_MAX: Final = 2**18 - 1
"""Largest field number whose tag has three bytes."""
_NUMBER_MIN: Final = 20_000
"""The smallest derived number: beyond those that people give by hand, and the ones that protobuf keeps for itself."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WireField:
    """What a field is called on the wire, where that is not what it is called in Python: `Annotated[int, WireField(name="amount")]`."""

    name: str | None = None
    """As it was called when it was first released: a field that is renamed in Python keeps it. None: as in Python."""
    number: int | None = None
    """Its number, 1 to 262143 without 19000 to 19999. None: derived from name and type; give one only if two fields clash, or if the
    message has to fit a `.proto` file that is there."""


def payload(name: str) -> Callable[[TypeT], TypeT]:
    """Names a dataclass or a Pydantic model on the wire: `@payload("shop.v1.ReserveStock")`, above `@dataclass`.

    Without it the name is that of its module and class. Give one where the class may move, or where several services have a class of
    their own for the same message. Raises ValueError if it is no name that protobuf knows.
    """
    if _FULL_NAME.fullmatch(name) is None:
        raise ValueError(f"a payload's name is identifiers of ASCII letters, digits and underscores with dots between; found {name!r}")

    def named(python_type: TypeT) -> TypeT:
        setattr(python_type, _NAME_ATTRIBUTE, name)
        return python_type

    return named


def name_of(python_type: type) -> str:
    """Its full name on the wire. Raises TypeError if it has none that is sure to stay."""
    given = vars(python_type).get(_NAME_ATTRIBUTE)
    if isinstance(given, str):
        return given
    advice = 'name it with @payload("shop.v1.SomeName")'
    module, qualified = python_type.__module__, python_type.__qualname__
    if module == "__main__":
        raise TypeError(f"{qualified} is defined in the module that is run, whose name is not that of its file: move it, or {advice}")
    if "<locals>" in qualified:
        raise TypeError(f"{qualified} is defined inside of a function: move it to the top of its module, or {advice}")
    name = f"{module}.{qualified.replace('.', '_')}"
    if _FULL_NAME.fullmatch(name) is None:
        raise TypeError(f"{name} is no name that protobuf knows, of ASCII letters, digits and underscores: {advice}")
    return name


def json_name(name: str) -> str:
    """What protobuf calls a field in JSON; two fields of a message must not share it."""
    first, *rest = name.split("_")
    return first + "".join(part[:1].upper() + part[1:] for part in rest)


def number_of(name: str, kind: str) -> int:
    """The number of a field, derived from what it is and not from where it stands.

    So fields may be added, removed and put into another order; and one whose type changes is another field, which is missing in what was
    written before, and is never misread.
    """
    digest = hashlib.blake2b(f"{name}:{kind}".encode(), digest_size=8).digest()
    return _NUMBER_MIN + int.from_bytes(digest, "big") % (NUMBER_MAX - _NUMBER_MIN + 1)
