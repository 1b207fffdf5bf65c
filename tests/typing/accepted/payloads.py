"""Dataclasses and Pydantic models as payloads."""

from dataclasses import dataclass
from datetime import timedelta
from typing import Annotated, assert_type

from pydantic import BaseModel

from participant_sdk import Accepted, Action, Participant, Saga, StepContext, SyncStepContext, WireField, action, payload
from participant_sdk.actions import AcceptingAction, DatabaseAction


@payload("types.v1.Ask")
@dataclass(frozen=True, slots=True)
class Ask:
    amount: Annotated[int, WireField(name="cents")]


@payload("types.v1.Answered")
class Answered(BaseModel):
    by: str = ""


class Approvals(Participant, name="approvals"):
    @action
    async def ask(self, request: Ask, step: StepContext) -> Answered | Accepted:
        beat = await step.heartbeat()
        return Accepted(beat.time_left) if not step.cancelled else Answered(by="nobody")

    @ask.compensation
    async def withdraw(self, request: Ask, answered: Answered | None, step: StepContext) -> None: ...

    @action
    async def note(self, request: Answered, step: StepContext) -> Ask:
        return Ask(amount=len(request.by))

    @note.compensation
    async def forget(self, request: Answered, noted: Ask, step: StepContext) -> None: ...

    @action
    def write(self, request: Ask, step: SyncStepContext) -> Ask:
        return request


made = Ask(amount=3)
assert_type(made, Ask)
assert_type(Approvals.ask.request_type, type[Ask])
assert_type(Approvals.note.response_type, type[Ask])
a_database_action: DatabaseAction[Answered, Ask, object, StepContext] | Action[Answered, Ask] = Approvals.note
an_accepting_action: AcceptingAction[Ask, Answered, object, StepContext] | Action[Ask, Answered] = Approvals.ask

saga = Saga("ask", input=Ask)
asked = saga.step(Approvals.ask)
noted = saga.step(Approvals.note, asked)


async def complete(approvals: Approvals, token: str) -> None:
    async with approvals.completing(token, Approvals.ask, time_limit=timedelta(seconds=1)) as completion:
        completion.succeed(Answered(by="ann"))
