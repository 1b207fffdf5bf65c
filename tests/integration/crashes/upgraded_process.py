"""A shop in several releases, a process of its own: its arguments are those of `main`.

All releases share one database, as replicas of a service do. Their messages have the same names, and each release compiles its own.
"""

import asyncio
import sys
import types
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Final, NamedTuple

from google.protobuf.descriptor_pb2 import FieldDescriptorProto, FileDescriptorProto
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from google.protobuf.wrappers_pb2 import StringValue
from sqlalchemy import insert
from sqlalchemy.ext.asyncio import create_async_engine

from participant_sdk import Participant, Rejected, SqlBarrier, StepContext, action, serve
from tests.integration.crashes.participant_process import books, ledger, line_of
from tests.simulation.journal_of_world import Deed

TTL: Final = timedelta(seconds=2)
"""Of a registration: so long is a place asked that is no longer there."""
TEXT, NUMBER = FieldDescriptorProto.TYPE_STRING, FieldDescriptorProto.TYPE_INT32
UNDOABLE: Final = ("take", "wrap")
"""The others cannot be undone."""
NO: Final = "no"
"""What nobody sells: the pivot refuses it."""


class Messages(NamedTuple):
    """As one release compiles them."""

    order: type[Message]
    receipt: type[Message]


def messages_of(**fields: int) -> Messages:
    """An order with fields of those types, numbered as they come, and a receipt with the same."""
    file = FileDescriptorProto(name="shop.proto", package="upgraded.v1", syntax="proto3")
    for name in ("Order", "Receipt"):
        message = file.message_type.add(name=name)
        for number, (field, kind) in enumerate(fields.items(), 1):
            message.field.add(name=field, number=number, type=kind, label=FieldDescriptorProto.LABEL_OPTIONAL)
    pool = DescriptorPool()
    pool.Add(file)
    order, receipt = (GetMessageClass(pool.FindMessageTypeByName(f"upgraded.v1.{name}")) for name in ("Order", "Receipt"))
    return Messages(order, receipt)


OLD: Final = messages_of(what=TEXT)
NEW: Final = messages_of(item=TEXT, count=NUMBER)
"""A field was renamed, another was added."""

Actions = Mapping[str, Messages]
RELEASES: Final[Mapping[str, Actions]] = {
    "1": dict.fromkeys(("take", "pay", "ship"), OLD),
    "2": dict.fromkeys(("take", "wrap", "pay", "ship"), NEW),
    "without-ship": dict.fromkeys(("take", "wrap", "pay"), NEW),
    "other-ship": {**dict.fromkeys(("take", "wrap", "pay"), NEW), "ship": Messages(StringValue, StringValue)},
}


def shop_of(release: str) -> type[Participant]:
    """Its code in that release."""
    members = {name: _action(name, messages) for name, messages in RELEASES[release].items()}
    members |= {f"undo_{name}": _compensation(members[name], messages) for name, messages in RELEASES[release].items() if name in UNDOABLE}
    return types.new_class("Shop", (Participant,), {"name": "shop"}, lambda namespace: namespace.update(members))


def _action(name: str, messages: Messages) -> object:
    async def act(self: Participant, request: Message, step: StepContext) -> Message:
        if name == "pay" and next(iter(request.ListFields()))[1] == NO:
            raise Rejected("NOT_SOLD", "nobody sells that")
        await step.session.execute(insert(ledger).values(line_of(step, Deed.DO)))
        receipt = messages.receipt()
        receipt.MergeFromString(request.SerializeToString())
        return receipt

    act.__annotations__ = {"request": messages.order, "step": StepContext, "return": messages.receipt}
    return action(name=name)(act)


def _compensation(undone: object, messages: Messages) -> object:
    async def undo(self: Participant, request: Message, output: Message, step: StepContext) -> None:
        await step.session.execute(insert(ledger).values(line_of(step, Deed.UNDO)))

    undo.__annotations__ = {"request": messages.order, "output": messages.receipt, "step": StepContext, "return": None}
    return undone.compensation(undo)  # type: ignore[attr-defined] # of whichever kind of action


async def main(release: str, directory: str, coordinator: str, address: str) -> None:
    engine = create_async_engine(f"sqlite+aiosqlite:///{directory}/shop.db", connect_args={"timeout": 30})
    async with engine.begin() as connection:
        await connection.exec_driver_sql("PRAGMA journal_mode=WAL")
        await connection.run_sync(books.create_all)
    shop = shop_of(release)(barrier=SqlBarrier(engine))
    await serve(shop, address=address, coordinator=coordinator, ttl=TTL)
    await engine.dispose()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], str(Path(sys.argv[2])), sys.argv[3], sys.argv[4]))
