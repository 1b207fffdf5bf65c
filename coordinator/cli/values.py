"""Values that options take."""

import getpass
import sys
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final, TypeVar

import click

from saga.v1 import saga_pb2

SOURCE_CHARACTERS_MAX: Final = 16 * 1024 * 1024
"""Longest JSON that is read. The message itself may have 1 MiB."""
STATUS_NAMES: Final = tuple(name.removeprefix("SAGA_STATUS_") for name, number in saga_pb2.SagaStatus.items() if number)

_INCIDENT_KINDS: Final = tuple(name.removeprefix("INCIDENT_KIND_").lower() for name, number in saga_pb2.IncidentKind.items() if number)
INCIDENT_KIND: Final = click.Choice(_INCIDENT_KINDS, case_sensitive=False)
KINDS_IN_WORDS: Final = ", ".join(_INCIDENT_KINDS)

FunctionT = TypeVar("FunctionT", bound=Callable[..., object])


class InstantType(click.ParamType[datetime]):
    """An instant in ISO 8601. Without a zone it is UTC, as every instant that is shown."""

    name = "INSTANT"

    def convert(self, value: str | datetime, param: click.Parameter | None, ctx: click.Context | None) -> datetime:
        if isinstance(value, datetime):
            return value
        try:
            read = datetime.fromisoformat(value)
        except ValueError:
            self.fail(f"expected an instant like 2030-01-31T08:00:00Z, found {value!r}", param, ctx)
        return read if read.tzinfo is not None else read.replace(tzinfo=UTC)


SECONDS: Final = click.FloatRange(min=0, min_open=True)
"""A length of time above zero, in seconds."""


def length(seconds: float | None) -> timedelta | None:
    """Seconds as a length of time; None stays None."""
    return timedelta(seconds=seconds) if seconds is not None else None


def parse_labels(texts: Iterable[str]) -> dict[str, str]:
    """Labels from KEY=VALUE texts. Raises BadParameter."""
    labels: dict[str, str] = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not key or not equals:
            raise click.BadParameter(f"expected KEY=VALUE, found {text!r}", param_hint="--label")
        labels[key] = value
    return labels


def parse_statuses(names: Iterable[str]) -> list[saga_pb2.SagaStatus.ValueType]:
    """Statuses from their short names, which click has checked."""
    return [saga_pb2.SagaStatus.Value(f"SAGA_STATUS_{name.upper()}") for name in names]


def parse_incident_kinds(names: Iterable[str]) -> list[saga_pb2.IncidentKind.ValueType]:
    """Kinds of incidents from their short names, which click has checked."""
    return [saga_pb2.IncidentKind.Value(f"INCIDENT_KIND_{name.upper()}") for name in names]


def read_source(source: str, param_hint: str) -> str:
    """What JSON|@FILE|- names. Raises BadParameter for `param_hint`."""
    try:
        if source == "-":
            text = sys.stdin.read(SOURCE_CHARACTERS_MAX + 1)
        elif source.startswith("@"):
            with Path(source[1:]).open(encoding="utf-8") as stream:
                text = stream.read(SOURCE_CHARACTERS_MAX + 1)
        else:
            text = source
    except (OSError, UnicodeDecodeError) as error:
        raise click.BadParameter(f"cannot be read: {error}", param_hint=param_hint) from error
    if len(text) > SOURCE_CHARACTERS_MAX:
        raise click.BadParameter(f"longer than {SOURCE_CHARACTERS_MAX} characters", param_hint=param_hint)
    return text


def user_name() -> str:
    """Who runs the command; empty for a user without a name, as a container may have."""
    try:
        return getpass.getuser()
    except (OSError, KeyError):
        return ""


def with_actor(function: FunctionT) -> FunctionT:
    """Adds --actor."""
    return click.option("--actor", default=user_name, show_default="you", help="Who asks, for the history.")(function)


def with_reason(function: FunctionT) -> FunctionT:
    """Adds --reason and --actor."""
    return click.option("--reason", default="", help="Why, for the history.")(with_actor(function))


def with_required_reason(function: FunctionT) -> FunctionT:
    """Adds --reason, without which nothing is done, and --actor."""
    return click.option("--reason", required=True, help="Why, for the history.")(with_actor(function))
