"""Approvals: asks the manager whether a trip may cost that much. The answer takes a while, so the step is finished later.

The manager answers in another process: see approve.py.
"""

from datetime import timedelta

from sqlalchemy import update
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from participant_sdk import Accepted, Barrier, Participant, StepContext, action
from travel.v1.travel_pb2 import AskManager, TripApproved

ANSWER_TIME_LIMIT = timedelta(hours=24)
"""A manager who does not answer until then is not waited for."""


class Base(DeclarativeBase):
    pass


class Question(Base):
    __tablename__ = "question"

    key: Mapped[str] = mapped_column(primary_key=True)
    trip_id: Mapped[str]
    text: Mapped[str]
    total: Mapped[str]
    token: Mapped[str]
    """What the step is completed with. Whoever has it can answer, so it is shown to nobody."""
    state: Mapped[str] = mapped_column(default="open")
    """open, approved, denied or withdrawn."""
    answered_by: Mapped[str] = mapped_column(default="")


class Approvals(Participant, name="approvals"):
    def __init__(self, *, barrier: Barrier, answer_time_limit: timedelta = ANSWER_TIME_LIMIT) -> None:
        super().__init__(barrier=barrier)
        self._answer_time_limit = answer_time_limit

    @action
    async def ask(self, request: AskManager, step: StepContext) -> TripApproved | Accepted:
        total = f"{request.total.cents / 100:.2f} {request.total.currency}"
        over = f"{request.excess.cents / 100:.2f} over budget"
        step.session.add(
            Question(key=step.key, trip_id=request.trip_id, text=request.question, total=f"{total}, {over}", token=step.completion_token)
        )
        return Accepted(self._answer_time_limit)

    @ask.compensation
    async def withdraw(self, request: AskManager, approved: TripApproved | None, step: StepContext) -> None:
        """`approved` is None if nobody had answered: then the manager need not be asked any more."""
        await step.session.execute(update(Question).where(Question.key == step.execute_key).values(state="withdrawn"))
