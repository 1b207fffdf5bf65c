"""Insurance: insures those who travel, and cancels the policy if they do not."""

import math
from datetime import timedelta
from uuid import uuid4

from sqlalchemy import update
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from participant_sdk import Participant, StepContext, action
from travel.v1.travel_pb2 import InsureTrip, Money, TripInsured

DAY_CENTS = 4_00
"""For each person and day begun."""


class Base(DeclarativeBase):
    pass


class Policy(Base):
    __tablename__ = "policy"

    id: Mapped[str] = mapped_column(primary_key=True)
    trip_id: Mapped[str]
    people: Mapped[int]
    is_cancelled: Mapped[bool] = mapped_column(default=False)


class Insurance(Participant, name="insurance"):
    @action
    async def insure(self, request: InsureTrip, step: StepContext) -> TripInsured:
        policy = Policy(id=f"policy-{uuid4()}", trip_id=request.trip_id, people=len(request.people))
        step.session.add(policy)
        days = math.ceil(request.lasts.ToTimedelta() / timedelta(days=1))
        return TripInsured(policy_id=policy.id, premium=Money(currency="EUR", cents=DAY_CENTS * days * len(request.people)))

    @insure.compensation
    async def cancel(self, request: InsureTrip, insured: TripInsured, step: StepContext) -> None:
        await step.session.execute(update(Policy).where(Policy.id == insured.policy_id).values(is_cancelled=True))
