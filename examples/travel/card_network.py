"""A card network: a company outside, with a database that is none of ours. It stands for what you reach over HTTP.

Like all of them it takes an idempotency key: asked again with the same key, it answers with the payment that it has, and takes
nothing.
"""

from sqlalchemy import insert, select, update
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from travel.v1.travel_pb2 import Money

UNRELIABLE_CARD = "unreliable"
"""With this card the line breaks after the money is taken, before the answer is there."""


class Base(DeclarativeBase):
    pass


class Card(Base):
    __tablename__ = "card"

    number: Mapped[str] = mapped_column(primary_key=True)
    cents: Mapped[int]


class CardPayment(Base):
    __tablename__ = "card_payment"

    key: Mapped[str] = mapped_column(primary_key=True)
    card: Mapped[str]
    cents: Mapped[int]


class CardDeclinedError(Exception):
    """The bank says no."""


class CardNetwork:
    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    async def charge(self, key: str, card: str, amount: Money) -> str:
        """Takes the money; returns the name of the payment. Raises CardDeclinedError, or ConnectionError: then nobody knows."""
        async with self._engine.begin() as connection:
            if await connection.scalar(select(CardPayment.key).where(CardPayment.key == key)) is not None:
                return _payment_of(key)
            enough = Card.number == card, Card.cents >= amount.cents
            taken = await connection.execute(update(Card).where(*enough).values(cents=Card.cents - amount.cents).returning(Card.number))
            if taken.first() is None:
                raise CardDeclinedError(f"the bank declined the card {card}")
            await connection.execute(insert(CardPayment).values(key=key, card=card, cents=amount.cents))
        if card == UNRELIABLE_CARD:
            raise ConnectionError("the line to the card network broke")
        return _payment_of(key)


def _payment_of(key: str) -> str:
    return f"payment-{key}"


# Who has money on the first day.
SEED = [
    insert(Card).prefix_with("OR IGNORE").values(number="4242", cents=100_000_00),
    insert(Card).prefix_with("OR IGNORE").values(number=UNRELIABLE_CARD, cents=100_000_00),
    insert(Card).prefix_with("OR IGNORE").values(number="empty", cents=0),
]
