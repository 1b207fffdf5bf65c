"""The tree of a compiled expression: which variables it reads, what it calls, where it loops.

The library gives a tree only in serialised form, as a `cel.expr.CheckedExpr` or a `cel.expr.ParsedExpr`, and ships no classes for them: the
part that is read here is described below. Source: checked.proto and syntax.proto of the specification of the Common Expression Language.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any, Final

from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.descriptor_pb2 import DescriptorProto, FieldDescriptorProto, FileDescriptorProto
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message import DecodeError, Message
from google.protobuf.message_factory import GetMessageClass

from participant_sdk.definitions.value_types import ValueType, type_of_result

NODES_MAX: Final = 1_000
"""Places of a tree. What a person writes has 10 to 100; a tree of this size is read and judged in some 10 ms."""


class TreeTooLargeError(ValueError):
    """The expression has more than NODES_MAX places, or is nested too deep to be read. The message says which, for people."""


# Every node has the number by which its type and its place are found in the `Tree`.


@dataclass(frozen=True, slots=True, kw_only=True)
class Constant:
    """A literal, or the value of an enum."""

    id: int
    value: bool | int | float | str | bytes | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Name:
    """A variable: of the saga, or of the loop that it stands in."""

    id: int
    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Select:
    """A field of a message, or an entry of a map by its name."""

    id: int
    operand: "Node"
    field: str
    is_test: bool
    """Whether it only asks with has()."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """A function or an operator."""

    id: int
    function: str
    """Operators have names like "_+_"."""
    arguments: tuple["Node", ...]
    """The receiver of a method is the first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NewList:
    """A list written out."""

    id: int
    elements: tuple["Node", ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class NewMap:
    """A map written out."""

    id: int
    entries: tuple[tuple["Node", "Node"], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class NewMessage:
    """A message written out."""

    id: int
    type_name: str
    """Full name."""
    fields: tuple[tuple[str, "Node"], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Loop:
    """What the macros all, exists, exists_one, filter and map become."""

    id: int
    variable: str
    over: "Node"
    collected: str
    """Name of the value that is carried from one turn to the next."""
    start: "Node"
    """What is carried into the first turn; a list for filter and map."""
    condition: "Node"
    step: "Node"
    result: "Node"


Node = Constant | Name | Select | Call | NewList | NewMap | NewMessage | Loop


class Tree:
    """A whole expression, with the types of its parts."""

    def __init__(self, checked: Any) -> None:
        names = {key: entry.name for key, entry in checked.reference_map.items() if not entry.overload_id}
        constants = {key: entry.value for key, entry in checked.reference_map.items() if entry.HasField("value")}
        self.root: Final = _Reader(names, constants).read(checked.expr)
        self.type: Final = type_of_result(checked.type_map[checked.expr.id])
        self.names: Final = frozenset(_free_names(self.root, frozenset()))
        """Every variable that it reads, by its full name; the variables of its own loops are none."""
        self._types = checked.type_map
        self._places = checked.source_info.positions

    def type_of(self, node: Node) -> ValueType:
        """The type of a part, as far as it is known without evaluating it."""
        return type_of_result(self._types[node.id])

    def place_of(self, node: Node) -> int:
        """Where a part begins in the text, counted in characters from 0. A name before a brace or a parenthesis is not counted in."""
        return min((self._places[part.id] for part in walk(node) if part.id in self._places), default=0)


def read_tree(serialised: bytes) -> Tree:
    """Reads what the library made of an expression. Raises TreeTooLargeError."""
    return Tree(_read("CheckedExpr", serialised))


def read_unchecked(serialised: bytes) -> Node:
    """Reads what the library made of an expression that it has only parsed: names are as they were written. Raises TreeTooLargeError."""
    return _Reader({}, {}).read(_read("ParsedExpr", serialised).expr)


def _read(name: str, serialised: bytes) -> Any:
    try:
        return _tree_class(name).FromString(AnyMessage.FromString(serialised).value)
    except DecodeError as error:  # the only reason: messages nest deeper than protobuf reads
        raise TreeTooLargeError("it is nested too deep; take it apart") from error


def parts_of(node: Node) -> tuple[Node, ...]:
    """The nodes directly below."""
    match node:
        case Constant() | Name():
            return ()
        case Select():
            return (node.operand,)
        case Call():
            return node.arguments
        case NewList():
            return node.elements
        case NewMap():
            return tuple(part for entry in node.entries for part in entry)
        case NewMessage():
            return tuple(value for _, value in node.fields)
        case Loop():
            return (node.over, node.start, node.condition, node.step, node.result)


def walk(node: Node) -> Iterator[Node]:
    """The node and all below it."""
    yield node
    for part in parts_of(node):
        yield from walk(part)


def loops_nested(node: Node) -> int:
    """How many loops stand within each other at most. A loop over what another loop returns is not within it."""
    below = max((loops_nested(part) for part in parts_of(node)), default=0)
    if isinstance(node, Loop):
        return max(loops_nested(node.over), 1 + max(loops_nested(node.condition), loops_nested(node.step)))
    return below


def _free_names(node: Node, bound: frozenset[str]) -> Iterator[str]:
    if isinstance(node, Name) and node.name not in bound:
        yield node.name
    if not isinstance(node, Loop):
        for part in parts_of(node):
            yield from _free_names(part, bound)
        return
    inside = bound | {node.variable, node.collected}
    for outer in (node.over, node.start):
        yield from _free_names(outer, bound)
    for inner in (node.condition, node.step, node.result):
        yield from _free_names(inner, inside)


class _Reader:
    def __init__(self, names: dict[int, str], constants: dict[int, Any]) -> None:
        self._names = names
        self._constants = constants
        self._left = NODES_MAX

    def read(self, expression: Any) -> Node:
        self._left -= 1
        if self._left < 0:
            raise TreeTooLargeError(f"it has more than {NODES_MAX} names, literals and operators; take it apart")
        if expression.id in self._constants:
            return Constant(id=expression.id, value=_constant_of(self._constants[expression.id]))
        kind = expression.WhichOneof("kind")
        return getattr(self, f"_{kind}")(expression, getattr(expression, kind))  # type: ignore[no-any-return]

    def _const_expr(self, expression: Any, constant: Any) -> Node:
        return Constant(id=expression.id, value=_constant_of(constant))

    def _ident_expr(self, expression: Any, ident: Any) -> Node:
        return Name(id=expression.id, name=self._names.get(expression.id, ident.name))

    def _select_expr(self, expression: Any, select: Any) -> Node:
        if expression.id in self._names:  # a name with dots, like `ran.reserve`
            return Name(id=expression.id, name=self._names[expression.id])
        return Select(id=expression.id, operand=self.read(select.operand), field=select.field, is_test=select.test_only)

    def _call_expr(self, expression: Any, call: Any) -> Node:
        receiver = (self.read(call.target),) if call.HasField("target") else ()
        return Call(id=expression.id, function=call.function, arguments=(*receiver, *(self.read(argument) for argument in call.args)))

    def _list_expr(self, expression: Any, created: Any) -> Node:
        return NewList(id=expression.id, elements=tuple(self.read(element) for element in created.elements))

    def _struct_expr(self, expression: Any, created: Any) -> Node:
        if not created.message_name:
            entries = tuple((self.read(entry.map_key), self.read(entry.value)) for entry in created.entries)
            return NewMap(id=expression.id, entries=entries)
        name = self._names.get(expression.id, created.message_name)
        fields = tuple((entry.field_key, self.read(entry.value)) for entry in created.entries)
        return NewMessage(id=expression.id, type_name=name, fields=fields)

    def _comprehension_expr(self, expression: Any, loop: Any) -> Node:
        return Loop(
            id=expression.id,
            variable=loop.iter_var,
            over=self.read(loop.iter_range),
            collected=loop.accu_var,
            start=self.read(loop.accu_init),
            condition=self.read(loop.loop_condition),
            step=self.read(loop.loop_step),
            result=self.read(loop.result),
        )


def _constant_of(constant: Any) -> bool | int | float | str | bytes | None:
    kind = constant.WhichOneof("kind")
    return None if kind in (None, "null_value") else getattr(constant, kind)


_SCALARS: Final = {"bool": 8, "bytes": 12, "double": 1, "int32": 5, "int64": 3, "string": 9, "uint64": 4}
_SHAPES: Final[dict[str, tuple[str, ...]]] = {
    "CheckedExpr": ("2 references reference_map", "3 types type_map", "4 Expr expr", "5 SourceInfo source_info"),
    "ParsedExpr": ("2 Expr expr",),
    "Reference": ("1 string name", "3 *string overload_id", "4 Constant value"),
    "SourceInfo": ("4 places positions",),
    "Places": ("1 int64 key", "2 int32 value"),
    "References": ("1 int64 key", "2 Reference value"),
    "Types": ("1 int64 key", "2 Type value"),
    "Constant": (
        *("1 |int64 null_value", "2 |bool bool_value", "3 |int64 int64_value", "4 |uint64 uint64_value"),
        *("5 |double double_value", "6 |string string_value", "7 |bytes bytes_value"),
    ),
    "Expr": (
        *("2 int64 id", "3 |Constant const_expr", "4 |Ident ident_expr", "5 |Select select_expr", "6 |Call call_expr"),
        *("7 |CreateList list_expr", "8 |CreateStruct struct_expr", "9 |Comprehension comprehension_expr"),
    ),
    "Ident": ("1 string name",),
    "Select": ("1 Expr operand", "2 string field", "3 bool test_only"),
    "Call": ("1 Expr target", "2 string function", "3 *Expr args"),
    "CreateList": ("1 *Expr elements",),
    "CreateStruct": ("1 string message_name", "2 *Entry entries"),
    "Entry": ("1 int64 id", "2 string field_key", "3 Expr map_key", "4 Expr value"),
    "Comprehension": (
        *("1 string iter_var", "2 Expr iter_range", "3 string accu_var", "4 Expr accu_init"),
        *("5 Expr loop_condition", "6 Expr loop_step", "7 Expr result"),
    ),
    "Type": (
        *("1 |Nothing dyn", "2 |int32 null", "3 |int32 primitive", "4 |int32 wrapper", "5 |int32 well_known", "6 |ListType list_type"),
        *("7 |MapType map_type", "9 |string message_type", "11 |Type type"),
    ),
    "ListType": ("1 Type elem_type",),
    "MapType": ("1 Type key_type", "2 Type value_type"),
    "Nothing": (),
}
"""Fields as "number type name"; `*` repeats, `|` is one of the alternatives."""
_MAPS: Final = {"references": "References", "types": "Types", "places": "Places"}


@cache
def _tree_class(name: str) -> type[Message]:
    return GetMessageClass(_tree_pool().FindMessageTypeByName(f"tree.{name}"))


@cache
def _tree_pool() -> DescriptorPool:
    file = FileDescriptorProto(name="cel_tree.proto", package="tree", syntax="proto3")
    for name, fields in _SHAPES.items():
        message = file.message_type.add(name=name)
        for field in fields:
            _add_field(message, field)
    pool = DescriptorPool()
    pool.AddSerializedFile(file.SerializeToString())
    return pool


def _add_field(message: DescriptorProto, text: str) -> None:
    number, kind, name = text.split()
    type_name = kind.lstrip("*|")
    field = message.field.add(name=name, number=int(number), label=FieldDescriptorProto.LABEL_OPTIONAL)
    if kind.startswith("*") or type_name in _MAPS:
        field.label = FieldDescriptorProto.LABEL_REPEATED
    if kind.startswith("|"):
        if not message.oneof_decl:
            message.oneof_decl.add(name="kind")
        field.oneof_index = 0
    if type_name in _SCALARS:
        field.type = FieldDescriptorProto.Type.ValueType(_SCALARS[type_name])
    elif type_name in _MAPS:
        field.type, field.type_name = FieldDescriptorProto.TYPE_MESSAGE, f".tree.{message.name}.{name.title().replace('_', '')}Entry"
        entry = message.nested_type.add(name=f"{name.title().replace('_', '')}Entry")
        entry.options.map_entry = True
        for part in _SHAPES[_MAPS[type_name]]:
            _add_field(entry, part)
    else:
        field.type, field.type_name = FieldDescriptorProto.TYPE_MESSAGE, f".tree.{type_name}"
