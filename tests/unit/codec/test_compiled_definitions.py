"""What a compiled definition does: checks outputs, brings inputs into one form, is stored and compiled again."""

from collections.abc import Sequence

import pytest
from google.protobuf.any_pb2 import Any
from google.protobuf.descriptor_pb2 import FileDescriptorProto, FileDescriptorSet
from google.protobuf.message import DecodeError
from hypothesis import given
from hypothesis import strategies as st

from coordinator.codec.definitions import (
    CompiledDefinition,
    DefinitionInvalidError,
    InputInvalidError,
    compile_content,
    compile_definition,
)
from coordinator.core.plan import SagaPlan
from coordinator.core.values import DefinitionKey, Payload, StepId
from participant_sdk.definitions.problems import PROBLEMS_MAX
from saga.v1 import coordinator_pb2, saga_pb2
from tests.unit.codec.message_files import INT32, OPTIONAL, REPEATED, REQUIRED, file_with, shop_files
from tests.unit.codec.plain_definitions import CHARGED, ORDER, RESERVED, compiled, definition, step

# ── Outputs ──────────────────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("output", "told"),
    [
        (Payload(RESERVED, b""), ""),
        (Payload(RESERVED, b"\x0a\x02R1"), ""),
        (Payload(CHARGED, b""), "expected an output of type shop.v1.Reserved, found shop.v1.Charged"),
        (Payload("", b""), "found none"),
        (Payload(RESERVED, b"\xff\xff"), "cannot be decoded"),
        (Payload(RESERVED, b"\x0a\x02\xff\xfe"), "cannot be decoded"),  # no UTF-8
    ],
)
def test_output_must_have_the_type_of_its_step(output: Payload, told: str) -> None:  # R6
    found = compiled(definition()).plan.steps[0].check_output(output)
    assert told in found
    assert bool(found) == bool(told)


def proto2_files() -> FileDescriptorSet:
    file = file_with("p2.proto", syntax="proto2")
    file.message_type.add(name="Strict").field.add(name="sku", number=1, type=INT32, label=REQUIRED)
    loose = file.message_type.add(name="Loose")
    loose.field.add(name="prices", number=1, type=INT32, label=REPEATED)
    loose.field.add(name="sku", number=2, type=INT32, label=OPTIONAL)
    return FileDescriptorSet(file=[file])


def strict() -> CompiledDefinition:
    return compiled(
        definition(step("a", input_type="shop.v1.Strict", output_type="shop.v1.Strict"), input_type="shop.v1.Strict"), proto2_files()
    )


def test_output_without_a_required_field_is_not_as_agreed() -> None:  # R6
    check = strict().plan.steps[0].check_output
    assert "missing required fields: sku" in check(Payload("shop.v1.Strict", b""))
    assert check(Payload("shop.v1.Strict", b"\x08\x01")) == ""


# ── The input of a start (R3) ────────────────────────────────────────────────────────────────────────────────────────────────────


def given_input(value: bytes, type_name: str = ORDER) -> Any:
    return Any(type_url=f"type.googleapis.com/{type_name}", value=value)


ORDER_ID = b"\x0a\x02o1"
PRICE_A, PRICE_B = b"\x12\x05\x0a\x01a\x10\x01", b"\x12\x05\x0a\x01b\x10\x02"
UNKNOWN_FIELD = b"\x78\x07"


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (ORDER_ID + PRICE_A, PRICE_A + ORDER_ID),
        (ORDER_ID, b"\x0a\x02xx" + ORDER_ID),
        (PRICE_A + PRICE_B, PRICE_B + PRICE_A),
        (ORDER_ID, b"\x0a\x82\x00o1"),
        (b"", b"\x0a\x00"),
        (ORDER_ID + UNKNOWN_FIELD, UNKNOWN_FIELD + ORDER_ID),
    ],
    ids=["order of fields", "field twice", "order of a map", "long varint", "default sent", "unknown field first"],
)
def test_two_encodings_of_one_input_are_one_input(one: bytes, other: bytes) -> None:  # R3
    definition_ = compiled(definition())
    assert definition_.canonical_input(given_input(one)) == definition_.canonical_input(given_input(other))


def test_input_keeps_what_the_coordinator_does_not_know() -> None:
    """A newer client may send fields that only participants understand."""
    assert UNKNOWN_FIELD in compiled(definition()).canonical_input(given_input(ORDER_ID + UNKNOWN_FIELD)).value


def test_other_inputs_stay_other_inputs() -> None:
    definition_ = compiled(definition())
    assert definition_.canonical_input(given_input(PRICE_A)) != definition_.canonical_input(given_input(PRICE_B))


@given(st.binary(max_size=60))
def test_canonical_input_is_a_fixed_point(value: bytes) -> None:  # R3
    try:
        once = COMPILED.canonical_input(given_input(value))
    except InputInvalidError:
        return
    assert COMPILED.canonical_input(given_input(once.value)) == once


@pytest.mark.parametrize(
    ("packed", "told"),
    [
        (Any(), "found no type"),
        (given_input(b"", CHARGED), "found shop.v1.Charged"),
        (given_input(b"\xff\xff"), "cannot be decoded"),
        (given_input(b"\x0a\x02\xff\xfe"), "cannot be decoded"),
    ],
)
def test_input_that_cannot_be_used_is_refused(packed: Any, told: str) -> None:
    with pytest.raises(InputInvalidError, match=told):
        compiled(definition()).canonical_input(packed)


def test_input_without_a_required_field_is_refused() -> None:
    with pytest.raises(InputInvalidError, match="missing required fields: sku"):
        strict().canonical_input(given_input(b"", "shop.v1.Strict"))


def test_packed_numbers_may_grow_in_their_canonical_form() -> None:
    """Why the size of an input is looked at twice."""
    definition_ = compiled(
        definition(step("a", input_type="shop.v1.Loose", output_type="shop.v1.Loose"), input_type="shop.v1.Loose"), proto2_files()
    )
    assert len(definition_.canonical_input(given_input(b"\x0a\x64" + b"\x01" * 100, "shop.v1.Loose")).value) == 200


# ── What a person says (canonical, and of the right type) ────────────────────────────────────────────────────────────────────────


def with_hook() -> CompiledDefinition:
    hook = saga_pb2.HookDefinition(action="mail.send", input_type=CHARGED, output_type=ORDER, input="Charged{order_id: input.order_id}")
    return compiled(definition(step("a"), step("b", output_type=CHARGED), output="b", on_success=hook))


def test_persons_payloads_are_brought_into_one_form() -> None:
    made = with_hook()
    twice = b"\x0a\x02xx" + ORDER_ID
    assert made.canonical_step_input(StepId("a"), given_input(twice)) == Payload(ORDER, ORDER_ID)
    assert made.canonical_output(StepId("a"), given_input(twice, RESERVED)) == Payload(RESERVED, ORDER_ID)
    assert made.canonical_step_input(StepId("on_success"), given_input(twice, CHARGED)) == Payload(CHARGED, ORDER_ID)
    assert made.canonical_output(StepId("on_success"), given_input(twice)) == Payload(ORDER, ORDER_ID)
    assert made.canonical_saga_output(given_input(twice, CHARGED)) == Payload(CHARGED, ORDER_ID)


def test_persons_payload_of_another_type_is_refused() -> None:
    made = with_hook()
    with pytest.raises(InputInvalidError, match=r"expected a shop\.v1\.PlaceOrder, found shop\.v1\.Charged"):
        made.canonical_step_input(StepId("a"), given_input(b"", CHARGED))
    with pytest.raises(InputInvalidError, match=r"expected a shop\.v1\.Reserved, found shop\.v1\.PlaceOrder"):
        made.canonical_output(StepId("a"), given_input(b""))
    with pytest.raises(InputInvalidError, match=r"expected a shop\.v1\.Charged, found no type"):
        made.canonical_saga_output(Any())


def test_payload_for_what_is_not_there_is_refused() -> None:
    with pytest.raises(InputInvalidError, match="has no step 'x'"):
        with_hook().canonical_output(StepId("x"), given_input(b""))
    with pytest.raises(InputInvalidError, match="has no step 'on_failure'"):
        with_hook().canonical_step_input(StepId("on_failure"), given_input(b""))
    with pytest.raises(InputInvalidError, match="returns nothing"):
        compiled(definition()).canonical_saga_output(given_input(b""))


def test_output_of_the_saga_is_checked_too() -> None:
    check = with_hook().plan.check_saga_output
    assert check(Payload(CHARGED, b"")) == ""
    assert "expected an output of type shop.v1.Charged" in check(Payload(ORDER, b""))
    assert compiled(definition()).plan.check_saga_output(Payload(ORDER, b"")) == "the saga returns nothing"


# ── What is stored ───────────────────────────────────────────────────────────────────────────────────────────────────────────────


def shape_of(plan: SagaPlan) -> tuple[object, ...]:
    steps = [(one.id, one.action, one.kind, one.execute_retry, one.compensate_retry, one.attempt_timeout_us) for one in plan.steps]
    return plan.key, steps, plan.predecessors, plan.time_limit_us, plan.output is None


def test_stored_content_compiles_to_the_same_plan() -> None:
    made = definition(step("a"), step("b", after=[]), output="a", labels={"team": "shop", "area": "eu"})
    first = compiled(made)
    again = compile_content(first.content)
    assert again.key == DefinitionKey("place-order", 1)
    assert shape_of(again.plan) == shape_of(first.plan)
    assert (again.content, again.message, again.descriptors) == (first.content, first.message, first.descriptors)


def test_content_does_not_depend_on_the_order_of_labels_or_files() -> None:
    one = definition(labels={"a": "1", "b": "2"})
    other = definition(labels={"b": "2", "a": "1"})
    assert compiled(one).content == compiled(other, FileDescriptorSet(file=reversed(shop_files().file))).content


def test_content_does_not_depend_on_comments() -> None:
    commented = shop_files()
    commented.file[0].source_code_info.location.add(leading_comments="An order.")
    assert compiled(definition()).content == compiled(definition(), commented).content


@pytest.mark.parametrize("content", [b"", b"\xff\xff", b"\x0a\x00"])
def test_stored_content_that_cannot_be_used_is_a_value_error(content: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        compile_content(content)


# ── Laws ─────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────

COMPILED = compiled(definition())

ids = st.sampled_from(["a", "b", "c", "input", "", "1", "ran", "a" * 65])
types = st.sampled_from([ORDER, RESERVED, CHARGED, "", "shop.v1.Missing"])
durations = st.fixed_dictionaries({"seconds": st.integers(-(2**63), 2**63 - 1), "nanos": st.integers(-(2**31), 2**31 - 1)}) | st.just(
    {"seconds": 3, "nanos": 0}
)
policies = st.fixed_dictionaries(
    {},
    optional={
        "max_attempts": st.integers(0, 2**32 - 1),
        "multiplier": st.floats(),
        "initial_backoff": durations,
        "max_backoff": durations,
        "non_retryable_codes": st.lists(st.integers(-5, 20), max_size=3),
    },
)
expressions = ids | st.sampled_from(
    [
        "PlaceOrder{order_id: a.order_id}",
        "Reserved{}",
        "ran.a",
        "ran.b && true",
        "input.order_id == ''",
        "output",
        "error",
        "1 +",
        "a.nothing",
    ]
)
hooks = st.fixed_dictionaries(
    {},
    optional={
        "action": st.sampled_from(["mail.send", "x"]),
        "input": expressions,
        "input_type": types,
        "output_type": types,
        "execute_retry": policies,
        "time_limit": durations,
    },
)
steps = st.fixed_dictionaries(
    {},
    optional={
        "id": ids,
        "action": st.sampled_from(["inventory.reserve", "", "x", "a.b.c"]),
        "after": st.fixed_dictionaries({}, optional={"step_ids": st.lists(ids, max_size=3)}),
        "input": expressions,
        "when": expressions,
        "kind": st.integers(-1, 7),
        "without_compensation": st.booleans(),
        "execute_retry": policies,
        "compensate_retry": policies,
        "attempt_timeout": durations,
        "input_type": types,
        "output_type": types,
    },
)
definitions = st.fixed_dictionaries(
    {},
    optional={
        "name": st.text(max_size=5),
        "version": st.integers(0, 2**32 - 1),
        "input_type": types,
        "steps": st.lists(steps, max_size=4),
        "output": expressions,
        "output_type": types,
        "on_success": hooks,
        "on_failure": hooks,
        "time_limit": durations,
        "defaults": st.fixed_dictionaries({}, optional={"execute_retry": policies, "execute_time_limit": durations}),
        "labels": st.dictionaries(st.text(max_size=3), st.text(max_size=3), max_size=2),
    },
)


def checked(made: saga_pb2.SagaDefinition, files: FileDescriptorSet) -> None:
    """The law: a definition is refused with its problems, or it compiles, and then its content does too, to the same."""
    try:
        first = compile_definition(made, files)
    except DefinitionInvalidError as error:
        told = len(error.problems)
    else:
        told = 0
    if told:
        assert told <= PROBLEMS_MAX
        return
    again = compile_content(first.content)
    assert shape_of(again.plan) == shape_of(first.plan)
    assert again.content == first.content


@given(definitions)
def test_any_definition_compiles_or_is_refused(fields: dict[str, object]) -> None:
    checked(saga_pb2.SagaDefinition(**fields), shop_files())  # type: ignore[arg-type]


@given(st.lists(st.tuples(st.sampled_from("abcd"), st.none() | st.lists(st.sampled_from("abcd"), max_size=3)), min_size=1, max_size=4))
def test_any_graph_compiles_or_is_refused(graph: Sequence[tuple[str, list[str] | None]]) -> None:
    checked(definition(*(step(step_id, after=after) for step_id, after in graph)), shop_files())


@given(st.binary(max_size=100))
def test_garbage_in_a_request_is_refused_but_never_breaks(garbage: bytes) -> None:
    request = coordinator_pb2.RegisterDefinitionRequest(definition=definition(), descriptors=shop_files())
    try:
        request.MergeFromString(garbage)
    except DecodeError:
        return
    checked(request.definition, request.descriptors)


@given(st.binary(max_size=100))
def test_garbage_in_a_descriptor_is_refused_but_never_breaks(garbage: bytes) -> None:
    file = FileDescriptorProto()
    file.CopyFrom(shop_files().file[0])
    try:
        file.MergeFromString(garbage)
    except DecodeError:
        return
    mapped = step("reserve", input="PlaceOrder{order_id: input.order_id, prices: input.prices}", when="input.order_id != ''")
    checked(definition(mapped), FileDescriptorSet(file=[file, shop_files().file[1]]))
