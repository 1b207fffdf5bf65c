"""Actions that may be finished later: how they are declared, and what is refused when their class is created (R19, R24)."""

from datetime import timedelta
from typing import Any, Union, cast

import pytest
from google.protobuf.wrappers_pb2 import BytesValue, Int64Value, StringValue

from participant_sdk import (
    EXTERNAL,
    Accepted,
    NoBarrier,
    Participant,
    ParticipantDefinitionError,
    StepContext,
    action,
)
from participant_sdk.completion_token import TokenInvalidError, execute_key_of, read_token
from participant_sdk.describe import describe
from participant_sdk.testing import completion_token, step_context

untyped = cast("Any", action)
"""The decorator without its types, to write what a type checker would refuse."""


class Approvals(Participant, name="approvals"):
    @action
    async def ask(self, request: StringValue, step: StepContext) -> Int64Value | Accepted:
        return Accepted(timedelta(days=3))

    @ask.compensation
    async def withdraw(self, request: StringValue, answered: Int64Value | None, step: StepContext) -> None:
        """Nothing to undo in a test."""

    @action(effect=EXTERNAL, name="ask_elsewhere")
    def ask_by_post(self, request: StringValue, step: StepContext) -> Union[Accepted, Int64Value]:  # noqa: UP007 - people write it
        return Int64Value(value=7)

    @action
    async def ask_at_once(self, request: StringValue, step: StepContext) -> Int64Value:
        return Int64Value(value=7)


def test_accepting_action_says_so_and_keeps_its_message() -> None:
    assert [each.accepts for each in Approvals.actions.values()] == [True, True, False]
    assert {each.response_type for each in Approvals.actions.values()} == {Int64Value}
    described = describe(Approvals(barrier=NoBarrier())).actions
    assert [(each.name, each.accepts) for each in described] == [("ask", True), ("ask_elsewhere", True), ("ask_at_once", False)]


async def test_accepting_action_can_be_called_by_a_unit_test() -> None:
    approvals = Approvals(barrier=NoBarrier())
    assert await approvals.ask(StringValue(), step_context()) == Accepted(timedelta(days=3))
    await approvals.withdraw(StringValue(), None, step_context())


async def _accepts_only(self: object, request: StringValue, step: StepContext) -> Accepted:
    return Accepted(timedelta(days=1))


async def _two_messages(self: object, request: StringValue, step: StepContext) -> Int64Value | BytesValue | Accepted:
    return Int64Value()


async def _no_message(self: object, request: StringValue, step: StepContext) -> int | Accepted:
    return 7


@pytest.mark.parametrize(
    ("handler", "message"),
    [
        (_accepts_only, "expected one message beside Accepted, as in `-> Approved | Accepted`; found Accepted"),
        (_two_messages, "expected one message beside Accepted"),
        (_no_message, "return: expected a generated protobuf message class, a dataclass or a Pydantic model, found <class 'int'>"),
    ],
)
def test_accepting_action_needs_one_message_to_be_completed_with(handler: object, message: str) -> None:
    with pytest.raises(ParticipantDefinitionError) as caught:
        type("Bad", (Participant,), {"ask": untyped(handler)}, name="bad")
    assert message in str(caught.value)


def test_compensation_of_an_accepting_action_must_accept_a_missing_output() -> None:  # R19
    async def ask(self: object, request: StringValue, step: StepContext) -> Int64Value | Accepted:
        return Accepted(timedelta(days=1))

    async def withdraw(self: object, request: StringValue, output: Int64Value, step: StepContext) -> None: ...

    declared = untyped(ask)
    declared.compensation(withdraw)
    with pytest.raises(ParticipantDefinitionError, match=r"never completed has no output, so annotate it as `Int64Value \| None`"):
        type("Bad", (Participant,), {"ask": declared}, name="bad")


@pytest.mark.parametrize("time_limit", [timedelta(), timedelta(milliseconds=999), timedelta(days=366, microseconds=1), -timedelta(days=1)])
def test_time_limit_out_of_bounds_is_refused(time_limit: timedelta) -> None:
    with pytest.raises(ValueError, match="1 s to 366 days"):
        Accepted(time_limit)


def test_token_of_the_test_kit_names_the_execution_of_its_step() -> None:
    step = step_context(step_id="ask")
    identity, _ = read_token(step.completion_token)
    assert execute_key_of(identity) == step.execute_key
    assert step.completion_token == completion_token(step.saga_id, "ask")
    assert step.completion_token not in repr(step), "who reads a log must not be able to finish a step"


@pytest.mark.parametrize(
    "text",
    ["", "AQ", "ä", "not a token", completion_token(step_context().saga_id, "ask", round_=0)],
    ids=["empty", "cut", "not ASCII", "words", "round 0"],
)
def test_text_that_is_no_token_is_told(text: str) -> None:
    with pytest.raises(TokenInvalidError):
        read_token(text)
