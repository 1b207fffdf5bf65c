"""One of each: what a field may hold, as a dataclass and as a Pydantic model."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum, IntEnum, StrEnum
from ipaddress import IPv4Address
from typing import Annotated, Literal, NewType
from uuid import UUID

from google.protobuf.struct_pb2 import Struct
from google.protobuf.wrappers_pb2 import StringValue
from pydantic import AnyUrl, BaseModel, ConfigDict, Field

from participant_sdk.payloads import WireField, payload

Sku = NewType("Sku", str)


class Status(StrEnum):
    OPEN = "open"
    PAID = "paid"


class Priority(IntEnum):
    LOW = 1
    HIGH = 2


class Mixed(Enum):
    TEXT = "x"
    NUMBER = 1


class Label(str):
    __slots__ = ()


@payload("orders.v1.Line")
@dataclass(frozen=True, slots=True)
class Line:
    sku: Sku
    quantity: int = 1


@payload("orders.v1.Tree")
@dataclass
class Tree:
    name: str
    children: list["Tree"] = field(default_factory=list)
    parent: "Tree | None" = None


@payload("orders.v1.Everything")
@dataclass(frozen=True, kw_only=True)
class Everything:
    text: str
    number: int
    amount: float
    flag: bool
    raw: bytes
    price: Decimal
    id: UUID
    day: date
    at_time: time
    instant: datetime
    lasting: timedelta
    status: Status
    priority: Priority
    mixed: Mixed
    how: Literal["card", "invoice"]
    level: Literal[1, 2]
    sku: Sku
    label: Label
    line: Line
    message: StringValue
    struct: Struct
    maybe_text: str | None
    maybe_line: Line | None = None
    maybe_at: datetime | None = None
    texts: list[str] = field(default_factory=list)
    lines: list[Line] = field(default_factory=list)
    numbers: tuple[int, ...] = ()
    names: frozenset[str] = frozenset()
    line_set: frozenset[Line] = frozenset()
    priorities: Sequence[Priority] = ()
    instants: tuple[datetime, ...] = ()
    counts: dict[str, int] = field(default_factory=dict)
    by_id: dict[int, Line] = field(default_factory=dict)
    read_only: Mapping[str, Decimal] = field(default_factory=dict)
    described: Annotated[int, "a note of somebody else"] = 7
    renamed: Annotated[int, WireField(name="old_name")] = 0
    numbered: Annotated[int, WireField(number=5)] = 0


@payload("orders.v1.LineModel")
class LineModel(BaseModel):
    model_config = ConfigDict(frozen=True)
    sku: Sku
    quantity: int = Field(default=1, gt=0)


@payload("orders.v1.EverythingModel")
class EverythingModel(BaseModel):
    text: str
    number: int
    amount: float
    flag: bool
    raw: bytes
    price: Decimal
    id: UUID
    day: date
    at_time: time
    instant: datetime
    lasting: timedelta
    status: Status
    priority: Priority
    mixed: Mixed
    how: Literal["card", "invoice"]
    level: Literal[1, 2]
    sku: Sku
    line: LineModel
    plain_line: Line
    maybe_text: str | None
    maybe_line: LineModel | None = None
    texts: list[str] = Field(default_factory=list)
    lines: list[LineModel] = []
    numbers: tuple[int, ...] = ()
    names: set[str] = set()
    counts: dict[str, int] = {}
    by_id: dict[int, LineModel] = {}
    url: AnyUrl
    address: IPv4Address
    aliased: int = Field(default=3, alias="somethingElse")
    limited: Annotated[str, Field(max_length=3)] = ""
    renamed: Annotated[int, WireField(name="old_name")] = 0
