"""Connections on which a statement was cut short, as by the cancellation of a call."""

import asyncio
import logging
from typing import Any, Final

from sqlalchemy import Engine, event

logger: Final = logging.getLogger(__name__)


def roll_back_when_cut(engine: Engine) -> None:
    """Has a connection that is given up roll back before it is closed, where closing does not do so.

    Python's sqlite3 lets go of a closed database only when its last unfinished statement is gone, and one that was cut short is gone
    when the garbage collector comes by. Until then its database transaction would keep everybody else from writing (seen with Python
    3.11 and aiosqlite 0.22).
    """
    if engine.dialect.driver == "aiosqlite" and not event.contains(engine, "invalidate", _roll_back):
        event.listen(engine, "invalidate", _roll_back)


def _roll_back(connection: Any, *_: object) -> None:
    try:
        connection.rollback()
    except asyncio.CancelledError:
        # A second one: the first goes on when this returns. The thread of the connection has the rollback in its queue.
        logger.debug("a rollback was cut short while the call was ended for good")
    except Exception as error:  # It is closed next, whatever is wrong with it. One that the garbage collector found can do no more.
        logger.debug("a connection that is given up does not roll back: %s", error)
