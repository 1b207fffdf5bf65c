"""Expressions of a compiled definition, as the core calls them."""

import pytest
from google.protobuf.any_pb2 import Any
from google.rpc.status_pb2 import Status

from coordinator.core.plan import ExpressionError, StepPlan
from coordinator.core.values import Failure, Payload
from saga.v1 import saga_pb2
from tests.unit.codec.plain_definitions import CHARGED, ORDER, RESERVED, compiled, definition, known_values, step

ID = b"\x0a\x02o1"
"""order_id: "o1", in every message of the shop."""


def last_step(*steps: saga_pb2.StepDefinition) -> StepPlan:
    return compiled(definition(*steps)).plan.steps[-1]


def hooks(**texts: str) -> dict[str, saga_pb2.HookDefinition]:
    return {
        name: saga_pb2.HookDefinition(action="mail.send", input=text, input_type=ORDER, output_type=RESERVED)
        for name, text in texts.items()
    }


def test_step_is_given_what_its_expression_makes() -> None:
    made = last_step(step("a"), step("b", input="PlaceOrder{order_id: a.order_id + input.order_id}"))
    assert not made.copies_input
    values = known_values(ID, outputs={0: Payload(RESERVED, b"\x0a\x01r")})
    assert made.input(values) == Payload(ORDER, b"\x0a\x03ro1")


@pytest.mark.parametrize("ran", [True, False])
def test_condition_asks_whether_a_step_ran(ran: bool) -> None:
    made = last_step(step("a", when="input.order_id != ''"), step("b", when="ran.a"))
    assert made.when is not None
    assert made.when(known_values(outputs={0: Payload(RESERVED, b"")} if ran else {})) is ran


def test_condition_that_is_not_there_is_none() -> None:
    assert last_step(step("a")).when is None


def test_output_of_a_step_that_did_not_run_is_the_default_message() -> None:
    mapped = last_step(step("a", when="false"), step("b", input="PlaceOrder{order_id: 'x' + a.order_id}"))
    assert mapped.input(known_values()) == Payload(ORDER, b"\x0a\x01x")
    copied = last_step(step("a", when="false"), step("b", input="a", input_type=RESERVED))
    assert copied.input(known_values()) == Payload(RESERVED, b"")
    assert copied.copies_input


def test_failure_of_an_expression_is_told_with_it() -> None:
    made = last_step(step("a", input="PlaceOrder{order_id: string(1 / size(input.order_id))}", when="1 / size(input.order_id) > 0"))
    with pytest.raises(ExpressionError, match=r"expression 'PlaceOrder\{.*failed: divide by zero"):
        made.input(known_values())
    assert made.when is not None
    with pytest.raises(ExpressionError, match="divide by zero"):
        made.when(known_values())


def test_output_of_the_saga_is_made_from_all_steps() -> None:
    made = compiled(definition(step("a", after=[]), step("b", after=[]), output="Charged{order_id: a.order_id + b.order_id}"))
    assert made.output_type == CHARGED
    assert made.plan.output is not None
    values = known_values(outputs={0: Payload(RESERVED, ID), 1: Payload(RESERVED, ID)})
    assert made.plan.output(values) == Payload(CHARGED, b"\x0a\x04o1o1")


def test_hook_after_success_reads_what_was_returned() -> None:  # R16
    made = compiled(definition(step("a"), output="a", **hooks(on_success="PlaceOrder{order_id: output.order_id + '!'}"))).plan.on_success
    assert made is not None
    assert made.input(known_values(output=Payload(RESERVED, ID))) == Payload(ORDER, b"\x0a\x03o1!")
    assert not made.copies_input


def test_hook_after_failure_reads_what_went_wrong() -> None:  # R16
    text = "PlaceOrder{order_id: error.message + string(error.code) + string(size(error.details)) + string(ran.a)}"
    made = compiled(definition(step("a"), **hooks(on_failure=text))).plan.on_failure
    assert made is not None
    failure = Failure(9, "sold out", (Payload(RESERVED, b""),))
    assert made.input(known_values(failure=failure)).value == b"\x0a\x0fsold out91false"
    assert made.input(known_values()).value == b"\x0a\x0700false"


def test_hook_can_be_given_the_whole_status_or_output() -> None:
    hook = saga_pb2.HookDefinition(action="mail.send", input="error", input_type="google.rpc.Status", output_type=RESERVED)
    made = compiled(definition(step("a"), on_failure=hook)).plan.on_failure
    assert made is not None
    assert not made.copies_input  # it is nowhere in the journal as this message
    failure = Failure(9, "sold out", (Payload(RESERVED, ID),))
    detail = Any(type_url=f"type.googleapis.com/{RESERVED}", value=ID)
    found = made.input(known_values(failure=failure))
    assert found.type_name == "google.rpc.Status"
    assert Status.FromString(found.value) == Status(code=9, message="sold out", details=[detail])


def test_copy_of_the_saga_output_fails_where_there_is_none() -> None:
    hook = saga_pb2.HookDefinition(action="mail.send", input="output", input_type=RESERVED, output_type=RESERVED)
    made = compiled(definition(step("a"), output="a", on_success=hook)).plan.on_success
    assert made is not None
    assert made.input(known_values(output=Payload(RESERVED, ID))) == Payload(RESERVED, ID)
    with pytest.raises(ExpressionError, match="the saga returned nothing"):
        made.input(known_values())
