"""Payments: adds up prices, and takes the money through a card network, which is outside of our databases."""

from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from examples.travel.card_network import CardDeclinedError, CardNetwork
from participant_sdk import EXTERNAL, Barrier, Participant, Rejected, StepContext, action
from travel.v1.travel_pb2 import AddUpPrices, CardCharged, ChargeCard, Money, PricesAddedUp

RATES = {"EUR": 100, "USD": 90}
"""What a hundred of each are worth in euros."""


class Base(DeclarativeBase):
    pass


class AccountEntry(Base):
    """One entry of the accounts per trip that was paid."""

    __tablename__ = "account_entry"

    payment_id: Mapped[str] = mapped_column(primary_key=True)
    trip_id: Mapped[str]
    currency: Mapped[str]
    cents: Mapped[int]
    approved_by: Mapped[str]


class Payments(Participant, name="payments"):
    def __init__(self, *, barrier: Barrier, network: CardNetwork) -> None:
        super().__init__(barrier=barrier)
        self._network = network

    @action
    async def add_up(self, request: AddUpPrices, step: StepContext) -> PricesAddedUp:
        """Changes nothing, so nothing undoes it."""
        for price in (*request.prices, Money(currency=request.currency)):
            if price.currency not in RATES:
                raise Rejected("UNKNOWN_CURRENCY", f"no prices in {price.currency!r} are known, only in {', '.join(RATES)}")
        total = sum(price.cents * RATES[price.currency] for price in request.prices) // RATES[request.currency]
        return PricesAddedUp(total=Money(currency=request.currency, cents=total))

    @action(effect=EXTERNAL)
    async def charge(self, request: ChargeCard, step: StepContext) -> CardCharged:
        # The money moves outside, where no database transaction of ours reaches: after a crash this runs again. The key is the same
        # then, and the network honours it.
        try:
            payment_id = await self._network.charge(step.key, request.card, request.amount)
        except CardDeclinedError as error:
            raise Rejected("CARD_DECLINED", str(error)) from error
        step.session.add(
            AccountEntry(
                payment_id=payment_id,
                trip_id=request.trip_id,
                currency=request.amount.currency,
                cents=request.amount.cents,
                approved_by=request.approved_by,
            )
        )
        return CardCharged(payment_id=payment_id, amount=request.amount)
