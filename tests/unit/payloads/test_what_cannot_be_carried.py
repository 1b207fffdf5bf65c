"""What no message can hold is refused when its class is first looked at, with what to write instead, all at once."""

from collections.abc import Sequence
from dataclasses import InitVar, dataclass, field
from typing import Annotated, Any, Generic, Literal, TypeVar

import pytest
from google.protobuf.message import Message
from pydantic import BaseModel, ConfigDict, RootModel, SecretStr

from participant_sdk.payloads import WireField, payload, payload_type
from tests.unit.payloads.orders import Line, LineModel

T = TypeVar("T")


def with_field(annotation: object, default: object = ...) -> type:
    namespace: dict[str, object] = {"__annotations__": {"it": annotation}}
    if default is not ...:
        namespace["it"] = default
    made = type("Bad", (), namespace)
    return payload("orders.v1.Bad")(dataclass(made))


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        (with_field(object), "it: object cannot be carried: see the table of docs/payloads.md"),
        (with_field(Any), "it: Any cannot be carried"),
        (with_field(complex), "it: complex cannot be carried"),
        (with_field(Message), "it: Message cannot be carried"),
        (with_field(list), "it: say what it holds, as in list[str]"),
        (with_field(dict), "it: say what it holds, as in dict[str, int]"),
        (with_field(list[list[int]]), "it: a list of lists cannot be carried: make a dataclass of the inner one"),
        (with_field(dict[str, list[int]]), "it: a list of lists cannot be carried"),
        (with_field(list[int | None]), "it: None is no value in a list or dict"),
        (with_field(int | str), "it: it can be one type, or that type or None; found int | str"),
        (with_field(Line | LineModel), "make a dataclass with one optional field for each"),
        (with_field(list[int] | None), "it: a list, set, tuple or dict cannot be told from None on the wire"),
        (with_field(tuple[int, str]), "it: only tuples of any length can be carried, as tuple[int, ...]"),
        (with_field(dict[float, int]), "it: the keys of a dict are texts, whole numbers or bools on the wire; found float"),
        (with_field(dict[Line, int]), "it: the keys of a dict are texts"),
        (with_field(Literal["a", 1]), "it: the values of a Literal are all str, all int or all bool"),
        (with_field(int | None, 3), "it: None is carried by leaving the field out, so the default"),
        (with_field(Sequence[int], (1,)), "it: an empty list, set, tuple or dict is carried by leaving it out"),
        (with_field(Annotated[int, WireField(number=19_500)]), "it: a field's number is 1 to 262143, without 19000 to 19999"),
        (with_field(Annotated[int, WireField(number=0)]), "it: a field's number is 1 to 262143"),
        (with_field(Annotated[int, WireField(name="grüße")]), "it: a field's name on the wire is a letter, then ASCII"),
        (int, "expected a generated protobuf message class, a dataclass or a Pydantic model, found <class 'int'>"),
        (Message, "expected a generated protobuf message class"),
        (Line("a"), "expected a generated protobuf message class"),  # type: ignore[arg-type]
    ],
)  # fmt: skip
def test_field_that_cannot_be_carried_is_refused(bad: object, said: str) -> None:
    with pytest.raises(TypeError) as caught:
        payload_type(bad)
    assert said in str(caught.value)


@payload("orders.v1.Page")
@dataclass
class Page(Generic[T]):
    items: list[T]


@payload("orders.v1.Twice")
@dataclass
class Twice:
    one: Annotated[int, WireField(number=7)]
    two: Annotated[int, WireField(number=7)]
    three_x: int
    threeX: int  # noqa: N815 - the clash that it is about
    four: object


@payload("orders.v1.Left")
@dataclass
class Left:
    right: "Right"


@payload("orders.v1.Right")
@dataclass
class Right:
    left: list[Left]


@payload("orders.v1.Derived")
@dataclass
class Derived:
    price: int
    doubled: int = field(init=False)

    def __post_init__(self) -> None:
        self.doubled = self.price * 2


@payload("orders.v1.OnlyInit")
@dataclass
class OnlyInit:
    price: int
    rate: InitVar[float]


@payload("orders.v1.Root")
class Root(RootModel[list[int]]):
    pass


@payload("orders.v1.Open")
class Open(BaseModel):
    model_config = ConfigDict(extra="allow")


@payload("orders.v1.Secret")
class Secret(BaseModel):
    password: SecretStr
    anything: Any


@payload("orders.v1.Line")
@dataclass
class OtherLine:
    code: int


@payload("orders.v1.Both")
@dataclass
class Both:
    line: Line
    other: OtherLine


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        (Page, ["Page is generic, and its fields are not known"]),
        (Twice, ["two: has the same number on the wire as one", "threeX: has the same name on the wire as three_x", "four: object cannot"]),
        (Left, ["holds itself through other classes, which cannot be carried: hold its id there"]),
        (OnlyInit, ["OnlyInit takes rate, which is no field"]),
        (Root, ["Root has no fields, but a root"]),
        (Open, ['leave extra="allow" out']),
        (Secret, ["password: SecretStr cannot be carried", "anything: Any cannot be carried"]),
        (Both, ["two types of one name in orders.v1.Line.payload.proto; name one with @payload"]),
    ],
)
def test_class_that_cannot_be_carried_is_refused_with_everything_that_is_wrong(bad: type, said: list[str]) -> None:
    with pytest.raises(TypeError) as caught:
        payload_type(bad)
    for each in said:
        assert each in str(caught.value)


def test_what_a_class_derives_is_derived_again() -> None:
    kind = payload_type(Derived)
    assert [field.name for field in kind.descriptor.fields] == ["price"]
    assert kind.unpack(kind.pack(Derived(2))).doubled == 4


@dataclass
class Unnamed:
    it: int


def test_name_is_that_of_module_and_class_unless_it_would_not_stay() -> None:
    assert payload_type(Unnamed).name == f"{__name__}.Unnamed"

    @dataclass
    class Local:
        it: int

    with pytest.raises(TypeError, match="Local is defined inside of a function"):
        payload_type(Local)
    Main: type = dataclass(type("Main", (), {"__module__": "__main__", "__annotations__": {}}))  # noqa: N806 - a class
    with pytest.raises(TypeError, match="Main is defined in the module that is run"):
        payload_type(Main)
    with pytest.raises(ValueError, match="a payload's name is identifiers"):
        payload("orders-v1.X")


def test_name_is_not_inherited() -> None:
    @dataclass(frozen=True)
    class Longer(Line):
        more: int = 0

    Longer.__qualname__ = "Longer"
    assert payload_type(Longer).name == f"{__name__}.Longer"


def test_annotation_that_is_not_known_is_told() -> None:
    made: type = dataclass(type("Lost", (), {"__annotations__": {"it": "Nowhere"}}))
    with pytest.raises(TypeError, match=r"Lost: the annotation 'Nowhere' is not known; import it at the top of the module"):
        payload_type(payload("orders.v1.Lost")(made))
