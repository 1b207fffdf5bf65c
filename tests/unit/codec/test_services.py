"""A service that is there already: how it is described and called, and everything that can be wrong with what is configured."""

from dataclasses import replace

import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorSet

from coordinator.codec.services import ActionPlan, ServiceInvalidError, UndoInputError, compile_service
from coordinator.core.values import Direction, Payload
from coordinator.services import ExistingService, ServiceAction
from participant_sdk.definitions.message_types import MessageTypes
from participant_sdk.definitions.problems import Problem
from saga.v1 import participant_pb2
from tests.contract.dispatcher.stand import call
from tests.warehouse import RELEASE, RESERVE, SERVICE, WATCH, message, message_class, warehouse_files

FULL = ServiceAction(
    execute=RESERVE,
    compensate=RELEASE,
    compensate_input="ReleaseRequest{reservation_id: output.reservation_id, order_id: input.order_id}",
    nothing_to_undo=("NOT_FOUND",),
)
REQUEST = message("ReserveRequest", order_id="o-1", sku="bicycle")


def service(**actions: ServiceAction) -> ExistingService:
    return ExistingService(target="dns:///warehouse:50051", actions=actions)


def plan_of(action: ServiceAction) -> ActionPlan:
    return compile_service("warehouse", service(reserve=action), warehouse_files()).actions["reserve"]


def problems_of(action: ServiceAction, files: FileDescriptorSet | None = None) -> list[Problem]:
    with pytest.raises(ServiceInvalidError) as invalid:
        compile_service("warehouse", service(reserve=action), files or warehouse_files())
    return list(invalid.value.problems)


def undo(action: ServiceAction, *, reservation_id: str | None) -> bytes:
    """What the compensation is asked with; None: nobody knows what the execution returned."""
    known = None if reservation_id is None else message("ReserveReply", reservation_id=reservation_id)
    output = None if known is None else Payload("warehouse.v1.ReserveReply", known.SerializeToString())
    made = call("warehouse.reserve", direction=Direction.COMPENSATE, output=output, value=REQUEST.SerializeToString())
    return plan_of(action).compensate_input(replace(made, execute_key="the key"))


def test_service_describes_itself_as_a_participant_without_a_barrier_does() -> None:  # R23
    description = compile_service("warehouse", service(reserve=FULL, look=ServiceAction(execute=RESERVE)), warehouse_files()).description
    types = MessageTypes(description.descriptors)
    assert description.name == "warehouse"
    assert description.guarantee == participant_pb2.GUARANTEE_AT_LEAST_ONCE
    assert not description.exchange
    assert [(action.name, action.compensatable) for action in description.actions] == [("reserve", True), ("look", False)]
    assert {(action.input_type, action.output_type) for action in description.actions} == {
        ("warehouse.v1.ReserveRequest", "warehouse.v1.ReserveReply")
    }
    assert types.find("warehouse.v1.ReserveReply") is not None
    assert types.find("saga.service.Call") is None  # ours, and nobody else's


def test_methods_are_called_by_their_paths() -> None:
    plan = plan_of(FULL)
    assert (plan.execute, plan.compensate) == ("/warehouse.v1.Warehouse/Reserve", "/warehouse.v1.Warehouse/Release")


def test_undo_reads_input_and_output() -> None:
    assert undo(FULL, reservation_id="r-7") == message("ReleaseRequest", reservation_id="r-7", order_id="o-1").SerializeToString()


def test_output_that_nobody_knows_is_the_default_message() -> None:  # R20
    assert undo(FULL, reservation_id=None) == message("ReleaseRequest", order_id="o-1").SerializeToString()


def test_undo_can_go_by_the_key_where_the_output_is_not_known() -> None:  # R1, R20
    by_key = replace(
        FULL,
        compensate_input="known ? ReleaseRequest{reservation_id: output.reservation_id} : ReleaseRequest{reserve_key: call.execute_key}",
    )
    assert undo(by_key, reservation_id="r-7") == message("ReleaseRequest", reservation_id="r-7").SerializeToString()
    assert undo(by_key, reservation_id=None) == message("ReleaseRequest", reserve_key="the key").SerializeToString()


def test_undo_takes_what_the_execution_took_if_nothing_else_is_said() -> None:
    assert undo(ServiceAction(execute=RESERVE, compensate=f"{SERVICE}/Cancel"), reservation_id="r-7") == REQUEST.SerializeToString()


def test_expression_that_fails_for_these_values_is_told() -> None:
    failing = replace(FULL, compensate_input="ReleaseRequest{reserve_key: input.tags[0]}")
    with pytest.raises(UndoInputError, match="no element 0"):
        undo(failing, reservation_id="r-7")


def test_key_is_written_into_a_field_whatever_stood_there() -> None:  # R1
    plan = plan_of(replace(FULL, key_field="request_id"))
    given = message("ReserveRequest", sku="bicycle", request_id="from the input").SerializeToString()
    made = replace(call("warehouse.reserve", value=given), key="k" * 300)
    assert message_class("ReserveRequest").FromString(plan.execute_input(made)) == message(
        "ReserveRequest", sku="bicycle", request_id="k" * 300
    )


def test_input_goes_as_it_is_without_such_a_field() -> None:
    assert plan_of(FULL).execute_input(call("warehouse.reserve", value=b"\x0a\x01x")) == b"\x0a\x01x"


def test_answer_to_an_undo_that_is_no_message_is_told() -> None:  # R6
    assert plan_of(FULL).find_unreadable(b"") == ""
    assert "cannot be decoded as google.protobuf.Empty" in plan_of(FULL).find_unreadable(b"\xff\xff")


@pytest.mark.parametrize(
    ("action", "place", "told"),
    [
        (replace(FULL, execute="warehouse.v1.Warehose/Reserve"), "execute", f'did you mean "{SERVICE}"?'),
        (replace(FULL, execute=f"{SERVICE}/Resrve"), "execute", 'has no method "Resrve"; did you mean "Reserve"? it has: '),
        (replace(FULL, execute=WATCH, compensate="", compensate_input=""), "execute", "streams responses"),
        (replace(FULL, compensate=f"{SERVICE}/Free"), "compensate", 'has no method "Free"'),
        (replace(FULL, compensate_input=""), "compensate_input", "write compensate_input"),
        (replace(FULL, compensate_input="output"), "compensate_input", '"output" is a warehouse.v1.ReserveReply'),
        (replace(FULL, compensate_input="ReleaseRequest{id: output.reservation_id}"), "compensate_input", '"id"'),
        (replace(FULL, compensate_input="ReleaseRequest{order_id: output.id}"), "compensate_input", "id"),
        (replace(FULL, compensate_input="ReserveReply{}"), "compensate_input", "expected a warehouse.v1.ReleaseRequest"),
        (replace(FULL, compensate_input="ReleaseRequest{"), "compensate_input", ""),
        (replace(FULL, compensate_input="ReleaseRequest{order_id: call.kee}"), "compensate_input", "kee"),
        (replace(FULL, key_field="requestid"), "key_field", 'did you mean "request_id"?'),
        (replace(FULL, key_field="pieces"), "key_field", "expected a text field"),
        (replace(FULL, key_field="tags"), "key_field", "expected a text field"),
    ],
)
def test_mistake_is_told_with_its_place(action: ServiceAction, place: str, told: str) -> None:
    (problem,) = problems_of(action)
    assert problem.field == f"actions.reserve.{place}"
    assert told in problem.description


def test_all_mistakes_are_told_at_once() -> None:
    wrong = replace(FULL, compensate_input="ReleaseRequest{id: 1}", key_field="none")
    assert [problem.field for problem in problems_of(wrong)] == ["actions.reserve.key_field", "actions.reserve.compensate_input"]


def test_descriptors_that_miss_an_import_are_told() -> None:
    (problem,) = problems_of(FULL, FileDescriptorSet(file=[warehouse_files().file[1]]))
    assert problem.field == "descriptors"
    assert "imports are missing: warehouse/v1/messages.proto" in problem.description
