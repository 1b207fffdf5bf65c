"""Payments: takes money from a card's account, and gives it back if the order comes to nothing.

python -m examples.shop.payments
"""

from uuid import uuid4

from sqlalchemy import insert, update
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from examples.shop.service import run_service, work
from participant_sdk import Participant, Rejected, StepContext, action
from shop.v1.shop_pb2 import PaymentCharged, PlaceOrder


class Base(DeclarativeBase):
    pass


class Account(Base):
    __tablename__ = "account"

    card: Mapped[str] = mapped_column(primary_key=True)
    balance_cents: Mapped[int]


class Payment(Base):
    __tablename__ = "payment"

    id: Mapped[str] = mapped_column(primary_key=True)
    order_id: Mapped[str]
    card: Mapped[str]
    amount_cents: Mapped[int]
    is_refunded: Mapped[bool] = mapped_column(default=False)


class Payments(Participant, name="payments"):
    @action
    async def charge(self, request: PlaceOrder, step: StepContext) -> PaymentCharged:
        await work(step)
        if request.card == "declined":
            # A refusal is an answer, not an error: the saga turns back and undoes what the steps before this one did.
            raise Rejected("CARD_DECLINED", "the bank declined the card")
        enough = Account.card == request.card, Account.balance_cents >= request.amount_cents
        taken = await step.session.execute(
            update(Account).where(*enough).values(balance_cents=Account.balance_cents - request.amount_cents).returning(Account.card)
        )
        if taken.first() is None:
            raise Rejected("INSUFFICIENT_FUNDS", f"less than {request.amount_cents} cents are left on the card")
        payment = Payment(id=f"payment-{uuid4()}", order_id=request.order_id, card=request.card, amount_cents=request.amount_cents)
        step.session.add(payment)
        return PaymentCharged(payment_id=payment.id, amount_cents=payment.amount_cents)

    @charge.compensation
    async def refund(self, request: PlaceOrder, charged: PaymentCharged, step: StepContext) -> None:
        await step.session.execute(
            update(Account).where(Account.card == request.card).values(balance_cents=Account.balance_cents + charged.amount_cents)
        )
        # The books keep both: money that went out and came back.
        await step.session.execute(update(Payment).where(Payment.id == charged.payment_id).values(is_refunded=True))


# What is on the cards on the first day.
SEED = [insert(Account).prefix_with("OR IGNORE").values(card="4242", balance_cents=100_00)]


if __name__ == "__main__":
    run_service(Payments, tables=Base.metadata, seed=SEED, port=7712)
