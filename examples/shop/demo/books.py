"""The books: read from the services' own database files, past every API, and added up."""

import sqlite3
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from shop.v1.shop_pb2 import PlaceOrder

STOCK_AT_FIRST: Final = 10
CENTS_AT_FIRST: Final = 100_00


@dataclass(frozen=True, slots=True, kw_only=True)
class Books:
    """What the three databases say."""

    widgets_left: int
    reserved: dict[str, int]
    """Widgets by order."""
    cents_left: int
    paid: dict[str, int]
    """Cents by order, refunds left out."""
    refunded_cents: int
    shipped: list[str]
    """An order per shipment, those called off left out."""

    def differences(self, sold: Iterable[PlaceOrder]) -> list[str]:
        """What does not add up if exactly these orders were sold; nothing if all is well."""
        orders = list(sold)
        expected = {
            "widgets left": (STOCK_AT_FIRST - sum(order.quantity for order in orders), self.widgets_left),
            "reservations": ({order.order_id: order.quantity for order in orders}, self.reserved),
            "cents left": (CENTS_AT_FIRST - sum(order.amount_cents for order in orders), self.cents_left),
            "payments": ({order.order_id: order.amount_cents for order in orders}, self.paid),
            "shipments": (sorted(order.order_id for order in orders), sorted(self.shipped)),
        }
        return [f"{name}: expected {wanted}, found {found}" for name, (wanted, found) in expected.items() if wanted != found]


def read_books(folder: Path) -> Books:
    """Reads the database files of inventory, payments and shipping. Sums per order, so that doing it twice would show."""
    inventory, payments, shipping = (folder / f"{name}.db" for name in ("inventory", "payments", "shipping"))
    return Books(
        widgets_left=_number(inventory, "SELECT available FROM stock WHERE sku = 'widget'"),
        reserved=_by_order(inventory, "SELECT order_id, sum(quantity) FROM reservation GROUP BY order_id"),
        cents_left=_number(payments, "SELECT balance_cents FROM account WHERE card = '4242'"),
        paid=_by_order(payments, "SELECT order_id, sum(amount_cents) FROM payment WHERE NOT is_refunded GROUP BY order_id"),
        refunded_cents=_number(payments, "SELECT coalesce(sum(amount_cents), 0) FROM payment WHERE is_refunded"),
        shipped=[str(order) for (order,) in _rows(shipping, "SELECT order_id FROM shipment WHERE NOT is_called_off")],
    )


def _number(database: Path, query: str) -> int:
    ((number,),) = _rows(database, query)
    return int(number)


def _by_order(database: Path, query: str) -> dict[str, int]:
    return {str(order): int(amount) for order, amount in _rows(database, query)}


def _rows(database: Path, query: str) -> list[tuple[str | int, ...]]:
    connection = sqlite3.connect(f"file:{database}?mode=ro", uri=True, timeout=5)
    try:
        return list(connection.execute(query))
    finally:
        connection.close()
