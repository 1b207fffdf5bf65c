"""What no payload is, and payloads that do not fit."""

from dataclasses import dataclass

from participant_sdk import Participant, Saga, StepContext, action


@dataclass
class Ask:
    amount: int


@dataclass
class Answered:
    by: str


class Approvals(Participant, name="approvals"):
    @action
    async def ask(self, request: Ask, step: StepContext) -> Answered:
        return Answered(by="ann")

    @ask.compensation  # E: takes another output than the action gives
    async def withdraw(self, request: Ask, answered: Ask, step: StepContext) -> None: ...

    @action  # E: an int is no payload
    async def count(self, request: int, step: StepContext) -> Answered:
        return Answered(by="ann")

    @action  # E: nothing is no payload
    async def nothing(self, request: Ask, step: StepContext) -> None: ...


saga = Saga("ask", input=Ask)
asked = saga.step(Approvals.ask)
saga.step(Approvals.ask, asked)  # E: takes an Ask, and not what it gives itself
Saga("count", input=int)  # E: an int is no payload
