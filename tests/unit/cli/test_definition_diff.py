"""What differs between two definitions, in words, and what it means."""

from collections.abc import Callable
from datetime import timedelta

import pytest
from google.protobuf.descriptor_pb2 import FieldDescriptorProto, FileDescriptorProto, FileDescriptorSet

from coordinator.cli.definition_diff import NOT_GIVEN, USUAL_POLICY, Change, Side, Verb, compare_definitions
from coordinator.cli.message_diff import MessageChange, compare_messages
from participant_sdk import RetryPolicy, Saga, StepDefaults, StepKind
from saga.v1 import saga_pb2
from shop.v1.shop_pb2 import CourierBooked, PaymentCharged, PlaceOrder, StockReserved

Write = Callable[[Saga[PlaceOrder]], None]


def place_order(write: Write | None = None, *, version: int = 3, time_limit: timedelta | None = None) -> Side:
    saga = Saga("place-order", input=PlaceOrder, version=version, time_limit=time_limit)
    reserved = saga.step("inventory.reserve", request=PlaceOrder, response=StockReserved)
    saga.step("payments.charge", request=PlaceOrder, response=PaymentCharged, after=[reserved])
    if write is not None:
        write(saga)
    return Side(definition=saga.definition(), descriptors=saga.descriptors())


def book(saga: Saga[PlaceOrder]) -> None:
    saga.step("shipping.book", request=PlaceOrder, response=CourierBooked, kind=StepKind.RETRIABLE)


def changed(change: Callable[[saga_pb2.SagaDefinition], object]) -> list[Change]:
    """What is told of a definition after a change of it."""
    first, second = place_order(book), place_order(book, version=4)
    change(second.definition)
    return compare_definitions(first, second)


def test_definitions_that_differ_in_version_only_are_the_same() -> None:
    assert compare_definitions(place_order(book), place_order(book, version=4)) == []


def test_what_says_the_same_in_other_words_is_the_same() -> None:
    first, second = place_order(book), place_order(book)
    reserve, charge, _ = second.definition.steps
    reserve.input, reserve.kind = "", saga_pb2.STEP_KIND_UNSPECIFIED
    charge.ClearField("after")
    second.definition.steps.reverse()
    charge.after.step_ids.extend(["reserve"])
    first.definition.defaults.execute_retry.max_attempts = 3
    second.definition.defaults.execute_retry.CopyFrom(RetryPolicy(max_attempts=3).to_message())
    second.definition.steps[0].after.step_ids.extend(["charge"])
    second.definition.steps[2].after.SetInParent()
    assert compare_definitions(first, second) == []


@pytest.mark.parametrize(
    ("first", "second", "is_same"),
    [
        ("A{b: input.b}", "A {\n  b: input.b // as it is\n}", True),
        ("input.a in input.b", "input.a\nin input.b", True),
        ("'a b' + \"c  d\"", "'a b'+\"c  d\"", True),
        ("'a b'", "'a  b'", False),
        ('"a" // b', '"a // b"', False),
        ("a in b", "ain b", False),
        ("a / b", "a // b", False),
        (r"'\' a'", r"'\'  a'", False),
        ("'''a  'b'''", "'''a 'b'''", False),
    ],
)
def test_expression_in_another_layout_is_the_same_and_no_other_is(first: str, second: str, is_same: bool) -> None:
    sides = place_order(book), place_order(book)
    for side, text in zip(sides, (first, second), strict=True):
        side.definition.steps[1].when = text
    assert (compare_definitions(*sides) == []) is is_same


def test_step_that_is_gone_keeps_its_participant_in_service() -> None:
    assert compare_definitions(place_order(book), place_order()) == [
        Change(
            verb=Verb.REMOVED,
            place="step book",
            before="RETRIABLE shipping.book, after charge",
            hint="keep the participant serving shipping.book until the last saga of place-order v3 has ended",
        )
    ]
    (removed, *_) = changed(lambda definition: definition.steps.__delitem__(0))
    assert removed.hint == (
        "keep the participant serving inventory.reserve and its compensation until the last saga of place-order v3 has ended"
    )


def test_step_that_moved_to_a_hook_asks_for_nothing_to_be_kept() -> None:
    def hooked(saga: Saga[PlaceOrder]) -> None:
        saga.on_success("shipping.book", request=PlaceOrder, response=CourierBooked)

    removed, added = compare_definitions(place_order(book), place_order(hooked))
    assert (removed.place, removed.hint) == ("step book", "")
    assert added == Change(verb=Verb.ADDED, place="on_success", after="shipping.book")


def test_step_that_is_new_must_be_served_first() -> None:
    (change,) = compare_definitions(place_order(), place_order(book))
    assert (change.verb, change.place, change.after) == (Verb.ADDED, "step book", "RETRIABLE shipping.book, after charge")
    assert change.hint == "its participant must serve shipping.book before this version is started"


def test_hooks_are_compared() -> None:
    def failing(saga: Saga[PlaceOrder]) -> None:
        saga.on_failure("mail.sorry", request=PlaceOrder, response=StockReserved)

    def failing_otherwise(saga: Saga[PlaceOrder]) -> None:
        saga.on_failure("mail.alas", "input", request=PlaceOrder, response=StockReserved, time_limit=timedelta(hours=1))

    removed = compare_definitions(place_order(failing), place_order())
    assert [(change.verb, change.place) for change in removed] == [(Verb.REMOVED, "on_failure")]
    action, limit = compare_definitions(place_order(failing), place_order(failing_otherwise))
    assert (action.place, action.before, action.after) == ("on_failure, action", "mail.sorry", "mail.alas")
    assert (limit.place, limit.before, limit.after) == ("on_failure, time_limit", NOT_GIVEN, "1h")


@pytest.mark.parametrize(
    ("change", "place", "before", "after", "hint"),
    [
        (lambda d: setattr(d, "name", "other"), "name", "place-order", "other", "two sagas"),
        (
            lambda d: setattr(d, "input_type", "shop.v1.StockReserved"),
            "input_type",
            "shop.v1.PlaceOrder",
            "shop.v1.StockReserved",
            "callers must",
        ),
        (lambda d: setattr(d, "output", "charge"), "output", NOT_GIVEN, "charge", "callers that read"),
        (lambda d: d.time_limit.FromSeconds(90), "time_limit", NOT_GIVEN, "1m30s", ""),
        (lambda d: d.labels.update({"team": "shop"}), "label team", NOT_GIVEN, "shop", ""),
        (
            lambda d: setattr(d.steps[1], "kind", saga_pb2.STEP_KIND_PIVOT),
            "step charge, kind",
            "COMPENSATABLE",
            "PIVOT",
            "point of no return",
        ),
        (lambda d: setattr(d.steps[1], "when", "true"), "step charge, when", NOT_GIVEN, "true", "default message"),
        (
            lambda d: setattr(d.steps[1], "action", "bank.pay"),
            "step charge, action",
            "payments.charge",
            "bank.pay",
            "keep the participant serving payments.charge",
        ),
        (
            lambda d: setattr(d.steps[1], "output_type", "shop.v1.PlaceOrder"),
            "step charge, output_type",
            "shop.v1.PaymentCharged",
            "shop.v1.PlaceOrder",
            "cannot serve payments.charge with both",
        ),
        (lambda d: d.steps[1].after.Clear(), "step charge, after", "reserve", "(the start)", ""),
        (lambda d: setattr(d.steps[1], "input", "reserve"), "step charge, input", "input", "reserve", ""),
    ],
)
def test_field_that_changed_is_told_with_what_it_means(
    change: Callable[[saga_pb2.SagaDefinition], object], place: str, before: str, after: str, hint: str
) -> None:
    (told,) = changed(change)
    assert (told.verb, told.place, told.before, told.after) == (Verb.CHANGED, place, before, after)
    assert hint in told.hint
    assert bool(hint) == bool(told.hint)


def test_policies_are_compared_field_by_field() -> None:
    first = Saga("a", input=PlaceOrder, defaults=StepDefaults(execute_retry=RetryPolicy(max_attempts=3)))
    second = Saga("a", input=PlaceOrder, defaults=StepDefaults(execute_retry=RetryPolicy(max_attempts=5)))
    sides = []
    for saga in (first, second):
        saga.step("inventory.reserve", request=PlaceOrder, response=StockReserved)
        sides.append(Side(definition=saga.definition(), descriptors=saga.descriptors()))
    (change,) = compare_definitions(*sides)
    assert (change.place, change.before, change.after) == ("defaults.execute_retry.max_attempts", "3", "5")


def test_policy_that_says_nothing_is_not_the_one_of_the_definition() -> None:
    first, second = place_order(book), place_order(book)
    second.definition.steps[0].execute_retry.SetInParent()
    (change,) = compare_definitions(first, second)
    assert (change.place, change.before, change.after) == ("step reserve, execute_retry", NOT_GIVEN, USUAL_POLICY)


def test_policy_is_told_by_what_is_unusual_in_it() -> None:
    first, second = place_order(book), place_order(book)
    second.definition.steps[0].execute_retry.CopyFrom(RetryPolicy(multiplier=1.5, max_attempts=2).to_message())
    told = {change.place: change.after for change in compare_definitions(first, second)}
    assert told == {"step reserve, execute_retry.max_attempts": "2", "step reserve, execute_retry.multiplier": "1.5"}


# ── Messages ─────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────


def shop(*fields: tuple[str, int, FieldDescriptorProto.Type.ValueType], repeated: bool = False) -> FileDescriptorSet:
    file = FileDescriptorProto(name="a.proto", package="a", syntax="proto3")
    file.message_type.add(name="Outer").field.add(name="inner", number=1, type=FieldDescriptorProto.TYPE_MESSAGE, type_name=".a.Inner")
    label = FieldDescriptorProto.LABEL_REPEATED if repeated else FieldDescriptorProto.LABEL_OPTIONAL
    inner = file.message_type.add(name="Inner")
    for name, number, kind in fields:
        inner.field.add(name=name, number=number, type=kind, label=label)
    return FileDescriptorSet(file=[file])


INT, LONG, TEXT = FieldDescriptorProto.TYPE_INT32, FieldDescriptorProto.TYPE_INT64, FieldDescriptorProto.TYPE_STRING


@pytest.mark.parametrize(
    ("second", "expected"),
    [
        (shop(("a", 1, INT)), []),
        (shop(("a", 1, INT), ("b", 2, TEXT)), [MessageChange("a.Inner", 2, "", "string b", is_compatible=True)]),
        (shop(), [MessageChange("a.Inner", 1, "int32 a", "", is_compatible=True)]),
        (shop(("b", 1, INT)), [MessageChange("a.Inner", 1, "int32 a", "int32 b", is_compatible=True)]),
        (shop(("a", 1, LONG)), [MessageChange("a.Inner", 1, "int32 a", "int64 a", is_compatible=True)]),
        (shop(("a", 1, TEXT)), [MessageChange("a.Inner", 1, "int32 a", "string a", is_compatible=False)]),
        (shop(("a", 1, INT), repeated=True), [MessageChange("a.Inner", 1, "int32 a", "repeated int32 a", is_compatible=False)]),
    ],
)
def test_messages_inside_messages_are_compared_by_field_number(second: FileDescriptorSet, expected: list[MessageChange]) -> None:
    assert list(compare_messages(["a.Outer"], ["a.Outer"], shop(("a", 1, INT)), second)) == expected


def test_message_that_only_one_definition_uses_says_nothing() -> None:
    assert list(compare_messages(["a.Outer"], ["a.Other"], shop(("a", 1, INT)), shop())) == []


def test_field_that_cannot_be_read_by_the_other_side_is_warned_of() -> None:
    first, second = place_order(), place_order(version=4)
    (file,) = second.descriptors.file
    (order,) = (message for message in file.message_type if message.name == "PlaceOrder")
    order.field[0].type = FieldDescriptorProto.TYPE_BOOL
    (change,) = compare_definitions(first, second)
    assert (change.verb, change.place) == (Verb.CHANGED, "message shop.v1.PlaceOrder, field number 1")
    assert (change.before, change.after) == ("string order_id", "bool order_id")
    assert "give it a new field number" in change.hint
