"""The transactional outbox: events and starts of sagas that are committed with the business rows. Needs the extra `barrier`."""

try:
    import sqlalchemy  # noqa: F401 - only to say what is missing
except ModuleNotFoundError as error:
    raise ImportError("participant_sdk.outbox needs SQLAlchemy: install the extra with pip install 'saga-coordinator[barrier]'") from error

from participant_sdk.outbox.couriers import SagaStarter
from participant_sdk.outbox.errors import (
    BrokerUnavailable,
    OutboxRowInvalidError,
    OutboxTableMissingError,
    OutboxUnavailableError,
    PublishRefused,
)
from participant_sdk.outbox.events import OutboxEvent, Publisher
from participant_sdk.outbox.outbox import Outbox, OutboxInsert
from participant_sdk.outbox.policy import RelayPolicy
from participant_sdk.outbox.relay import OutboxRelay
from participant_sdk.outbox.statistics import FailedRow, OutboxStatistics
from participant_sdk.outbox.table import OUTBOX_TABLE_NAME, OutboxId, OutboxKind, OutboxStatus, outbox_table

__all__ = [
    "OUTBOX_TABLE_NAME",
    "BrokerUnavailable",
    "FailedRow",
    "Outbox",
    "OutboxEvent",
    "OutboxId",
    "OutboxInsert",
    "OutboxKind",
    "OutboxRelay",
    "OutboxRowInvalidError",
    "OutboxStatistics",
    "OutboxStatus",
    "OutboxTableMissingError",
    "OutboxUnavailableError",
    "PublishRefused",
    "Publisher",
    "RelayPolicy",
    "SagaStarter",
    "outbox_table",
]
