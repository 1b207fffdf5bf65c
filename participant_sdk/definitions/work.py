"""How much work an expression can be, so that none can stop a node.

The library itself stops after 10,000 turns of all loops together. That alone bounds nothing that matters: it adds to lists by copying them
(10,000 turns of `map` took 1.7 s), and one turn may copy a megabyte. So each evaluation over a large input is judged first: from the tree
of the expression and the sizes of what it reads follows an upper bound of its time, and what is above WORK_NS_MAX is refused. Small inputs,
which is nearly all, are known to be fine when the expression is compiled, and cost nothing.

The bound of a loop over `n` elements that are `b` bytes together is n times the bound of a turn over nothing, plus the bound of one turn
over all `b` bytes: every bound is a polynomial without negative coefficients, so the worst share of `b` gives all of it to one element.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any, Final, NamedTuple

from google.protobuf.message import Message

from participant_sdk.definitions.expression_tree import Call, Constant, Loop, Name, NewList, NewMap, NewMessage, Node, Select, parts_of
from participant_sdk.definitions.patterns import WEIGHT_MAX, weight_of

WORK_NS_MAX: Final = 50_000_000
"""Longest evaluation that is begun, by the bound. Half of that and less was measured for the worst that passes."""
SMALL_BYTES: Final = 512
"""An expression that is too much work for an input of this size is refused when it is registered."""
SMALL_COUNT: Final = 16
TURNS_MAX: Final = 10_000
"""Of all loops together in one evaluation, by the library."""
_SIZES: Final = (65_536, 4_096, 512)
"""Sizes that are tried for what is always fine, in bytes."""
_SHAPES: Final = ((65_536, 1_000), (16_384, 250), (4_096, 64))
"""Sizes and counts of elements that are tried for what is fine as soon as the elements are counted."""
_VISITS_MAX: Final = 5_000
"""Messages and lists that one judgement looks into to count elements, 1 to 2 µs each; beyond it every byte is taken for an element."""
_FIXED_COUNT_MAX: Final = 64
_FIXED_DEPTH_MAX: Final = 4

# Measured, in ns, and doubled.
_NODE_NS: Final = 60
_CALL_NS: Final = 600
_BYTE_NS: Final = 2.0
_MATCH_NS: Final = 10_000
_MATCH_WEIGHT_NS: Final = 2_000
_MATCH_BYTE_NS: Final = 4.0
_MATCH_WEIGHT_BYTE_NS: Final = 0.3
"""A pattern is compiled each time, and searching a byte takes the longer the larger it is."""
_SEARCH_BYTE_NS: Final = 0.3
"""Per byte searched and byte searched for: the library compares at every place."""
_ELEMENT_NS: Final = 60
_MESSAGE_NS: Final = 400
"""To copy a message into another one."""
_APPEND_NS: Final = 20
"""Per element that is there already: a list that grows is copied at each turn."""
_READ_NS: Final = 100
_ENTRY_ELEMENTS: Final = 6
"""Elements that an entry of a map counts as: it takes so much longer to read."""
_SCALAR_BYTES: Final = 32


class Extent(NamedTuple):
    """How large a value is at most."""

    size: float
    """Bytes, with everything in it; what occurs twice counts twice."""
    elements: float
    """Elements of its lists and maps and messages in it, at any depth."""
    turns: float
    """Of a loop over it."""


_SCALAR: Final = Extent(_SCALAR_BYTES, 0, 0)
_NOTHING: Final = Extent(0, 0, 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Cost:
    ns: float
    extent: Extent
    real: object = None
    """The value itself where it is at hand: then its extent need not be guessed."""


class Work:
    """Judges one expression."""

    def __init__(self, root: Node, variables: tuple[str, ...]) -> None:
        self._root = root
        self._variables = variables
        fitting = (size for size in _SIZES if self._ns_of(size, size) <= WORK_NS_MAX)
        self.always_fine_bytes: Final = next(fitting, 0)
        """Inputs of this size together are never too much, whatever is in them."""
        shapes = (shape for shape in _SHAPES if shape[0] > self.always_fine_bytes and self._ns_of(*shape) <= WORK_NS_MAX)
        self._fine_shape: Final = next(shapes, (0, 0))
        self.is_hopeless: Final = (
            self.always_fine_bytes < SMALL_BYTES and not any(self._fine_shape) and self._ns_of(SMALL_BYTES, SMALL_COUNT) > WORK_NS_MAX
        )
        """Whether even a small input is too much."""

    def is_too_much_for(self, values: Mapping[str, object]) -> bool:
        """Whether an evaluation with these values may take too long. `values`: messages and bools by the names of the variables."""
        judge = _Judge()
        known = {name: _Cost(ns=_NODE_NS, extent=judge.extent_of(value, _SCALAR_BYTES), real=value) for name, value in values.items()}
        size, count = sum(cost.extent.size for cost in known.values()), sum(cost.extent.elements for cost in known.values())
        if size <= self._fine_shape[0] and count <= self._fine_shape[1]:
            return False
        return self._total_ns(judge, known) > WORK_NS_MAX

    def _ns_of(self, size: int, count: int) -> float:
        extent = Extent(size, count, count)
        return self._total_ns(_Judge(), dict.fromkeys(self._variables, _Cost(ns=_NODE_NS, extent=extent)))

    def _total_ns(self, judge: "_Judge", known: Mapping[str, _Cost]) -> float:
        read = sum(_touch(cost.extent) + cost.extent.elements * _READ_NS for cost in known.values())
        judged = judge.judge(self._root, known)
        return read + judged.ns + 2 * _touch(judged.extent) + judged.extent.elements * _MESSAGE_NS


class _Judge:
    """One judgement; bounds its own work too."""

    def __init__(self) -> None:
        self._visits_left = _VISITS_MAX

    def judge(self, node: Node, known: Mapping[str, _Cost], times: float = 1.0) -> _Cost:
        """What a node costs at most. `times`: how often it is evaluated, because it stands in loops."""
        match node:
            case Constant():
                return _Cost(ns=_NODE_NS, extent=self.extent_of(node.value, _SCALAR_BYTES), real=node.value)
            case Name():
                return known.get(node.name, _Cost(ns=_NODE_NS, extent=_SCALAR))
            case Select():
                return self._judge_select(node, known, times)
            case Call(function="_[_]"):
                container, key = (self.judge(argument, known, times) for argument in node.arguments)
                ns = container.ns + key.ns + _CALL_NS + _touch(key.extent)
                return _Cost(ns=ns, extent=self._element_of(container))
            case Call():
                return _judge_call(node.function, [self.judge(argument, known, times) for argument in node.arguments])
            case Loop():
                return self._judge_loop(node, known, times)
            case NewList() | NewMap() | NewMessage():
                return _judge_new(node, [self.judge(part, known, times) for part in parts_of(node)])

    def extent_of(self, value: object, size_max: float) -> Extent:
        """How large a value is. `size_max`: bytes of what it is taken from."""
        if isinstance(value, Message):
            size = value.ByteSize()
            elements = self._count_in(value, size)
            return Extent(size, elements, elements if _is_opaque(value) else 0)
        if isinstance(value, str):
            return Extent(len(value.encode(errors="surrogatepass")), 0, 0)
        if isinstance(value, bytes):
            return Extent(len(value), 0, 0)
        if value is None or isinstance(value, bool | int | float):
            return _SCALAR
        if isinstance(value, Mapping | Sequence):
            return Extent(size_max, self._count_in(value, size_max), len(value))
        return Extent(size_max, size_max, size_max)

    def _element_of(self, container: _Cost) -> Extent:
        """The largest that can be taken out of a list or map. To look at all of them is worth it: a loop may look up one in each turn."""
        real = container.real
        if not isinstance(real, Mapping | Sequence) or isinstance(real, str | bytes) or len(real) > self._visits_left:
            return _part_of(container.extent)
        self._visits_left -= len(real)
        elements = real.values() if isinstance(real, Mapping) else real
        largest = max((_size_of(element) for element in elements), default=0)
        return Extent(largest, largest, largest)

    def _judge_select(self, node: Select, known: Mapping[str, _Cost], times: float) -> _Cost:
        operand = self.judge(node.operand, known, times)
        ns = operand.ns + _NODE_NS
        if node.is_test:
            return _Cost(ns=ns, extent=_SCALAR)
        if isinstance(operand.real, Message) and not _is_opaque(operand.real):
            value = getattr(operand.real, node.field)
            extent = self.extent_of(value, operand.extent.size)
            return _Cost(ns=ns + (extent.size if isinstance(value, str | bytes) else 0), extent=extent, real=value)
        return _Cost(ns=ns + operand.extent.size, extent=_part_of(operand.extent))

    def _judge_loop(self, loop: Loop, known: Mapping[str, _Cost], times: float) -> _Cost:
        over = self.judge(loop.over, known, times)
        start = self.judge(loop.start, known, times)
        turns = min(over.extent.turns, TURNS_MAX / times)  # on the average: the library counts the turns of all loops together
        empty = self._judge_turn(loop, known, _NOTHING, max(1.0, times * turns))
        full = self._judge_turn(loop, known, _part_of(over.extent), times)
        ns = over.ns + start.ns + turns * (empty.ns + _ELEMENT_NS) + full.ns
        if not isinstance(loop.start, NewList):
            return _Cost(ns=ns, extent=_SCALAR)
        size = turns * empty.extent.size + full.extent.size
        elements = turns * empty.extent.elements + full.extent.elements
        longest = min(over.extent.turns, TURNS_MAX)
        return _Cost(ns=ns + turns * longest * _APPEND_NS, extent=Extent(size, elements, longest))

    def _judge_turn(self, loop: Loop, known: Mapping[str, _Cost], element: Extent, times: float) -> _Cost:
        inside = {
            **known,
            loop.variable: _Cost(ns=_NODE_NS, extent=element),
            loop.collected: _Cost(ns=_NODE_NS, extent=_NOTHING),  # what was collected is counted once, after the loop
        }
        condition, step = self.judge(loop.condition, inside, times), self.judge(loop.step, inside, times)
        return replace(step, ns=condition.ns + step.ns)

    def _count_in(self, value: object, size: float) -> float:
        """Elements and messages in a message, list or map; `size`, its bytes, if they are too many to look at."""
        counted, waiting = 0.0, [value]
        while waiting:
            one = waiting.pop()
            self._visits_left -= 1
            if self._visits_left < 0:
                return size
            if isinstance(one, Message):
                parts: list[object] = [
                    content for field, content in one.ListFields() if field.message_type is not None or field.is_repeated
                ]
                counted += len(parts)
                waiting += parts
            elif isinstance(one, Mapping | Sequence):
                elements = one.values() if isinstance(one, Mapping) else one
                fixed = _fixed_count(next(iter(elements), None))
                counted += len(one) * ((_ENTRY_ELEMENTS if isinstance(one, Mapping) else 2) + (fixed or 0))
                if fixed is None:
                    waiting += islice(elements, self._visits_left + 1)
        return counted


def _judge_new(node: NewList | NewMap | NewMessage, parts: list[_Cost]) -> _Cost:
    made, ns = _sum_of(parts), _ns_of(parts)
    if isinstance(node, NewMessage):
        copying = _CALL_NS + _touch(made) + _MESSAGE_NS * made.elements
        return _Cost(ns=ns + copying, extent=Extent(made.size, made.elements + 1, 0))
    each = _ELEMENT_NS if isinstance(node, NewList) else _CALL_NS
    return _Cost(ns=ns + each * len(parts), extent=Extent(made.size, made.elements + len(parts), len(parts)))


def _size_of(value: object) -> int:
    if isinstance(value, Message):
        return int(value.ByteSize())
    return 4 * len(value) if isinstance(value, str) else len(value) if isinstance(value, bytes) else _SCALAR_BYTES


def _part_of(whole: Extent) -> Extent:
    return Extent(whole.size, whole.elements, whole.elements)


def _is_opaque(message: Message) -> bool:
    """Whether the language sees something else than a message with these fields."""
    return str(message.DESCRIPTOR.full_name).startswith("google.protobuf.")


def _judge_call(function: str, arguments: list[_Cost]) -> _Cost:
    ns = _ns_of(arguments) + _NODE_NS
    extents = [argument.extent for argument in arguments]
    read = sum(_touch(extent) for extent in extents)
    match function:
        case "_?_:_":
            return _Cost(ns=ns, extent=_largest(extents[1:]))
        case "_+_":
            made = _sum_of(arguments)
            return _Cost(ns=ns + _CALL_NS + made.size + made.elements * _ELEMENT_NS, extent=made)
        case "dyn":
            return replace(arguments[0], ns=ns)
        case "string" | "bytes":
            return _Cost(ns=ns + _CALL_NS + read, extent=extents[0])
        case "contains":
            return _Cost(ns=ns + _CALL_NS + read + extents[0].size * extents[-1].size * _SEARCH_BYTE_NS, extent=_SCALAR)
        case "matches":
            pattern = arguments[-1].real
            weight = weight_of(pattern) if isinstance(pattern, str) else WEIGHT_MAX
            compiling, searching = _MATCH_NS + weight * _MATCH_WEIGHT_NS, _MATCH_BYTE_NS + weight * _MATCH_WEIGHT_BYTE_NS
            return _Cost(ns=ns + compiling + extents[0].size * searching, extent=_SCALAR)
        case "_&&_" | "_||_" | "!_" | "@not_strictly_false" | "type":
            return _Cost(ns=ns, extent=_SCALAR)
        case "@in" if isinstance(arguments[1].real, Mapping):
            return _Cost(ns=ns + _CALL_NS + _touch(extents[0]), extent=_SCALAR)
        case "size" if not isinstance(arguments[0].real, str | bytes | None):
            return _Cost(ns=ns, extent=_SCALAR)
        case _:
            return _Cost(ns=ns + _CALL_NS + read, extent=_SCALAR)


def _ns_of(parts: list[_Cost]) -> float:
    return sum(part.ns for part in parts)


def _sum_of(parts: list[_Cost]) -> Extent:
    extents = [part.extent for part in parts]
    return Extent(sum(each.size for each in extents), sum(each.elements for each in extents), sum(each.turns for each in extents))


def _largest(extents: list[Extent]) -> Extent:
    return Extent(*(max(sizes) for sizes in zip(*extents, strict=True)))


def _touch(extent: Extent) -> float:
    return extent.size * _BYTE_NS + extent.elements * _ELEMENT_NS


def _fixed_count(element: object) -> int | None:
    """How many messages are in every element of that kind at most; None: it depends."""
    return _fixed_count_of(element.DESCRIPTOR.fields, depth=0) if isinstance(element, Message) else 0


def _fixed_count_of(fields: Iterable[Any], depth: int) -> int | None:
    found = 0
    for field in fields:
        if field.is_repeated or depth > _FIXED_DEPTH_MAX:
            return None
        if field.message_type is not None:
            below = _fixed_count_of(field.message_type.fields, depth + 1)
            if below is None or found + below >= _FIXED_COUNT_MAX:
                return None
            found += 1 + below
    return found
