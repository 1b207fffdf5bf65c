"""Values that options take."""

from collections.abc import Iterable
from datetime import UTC, datetime

import click


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


def parse_labels(texts: Iterable[str]) -> dict[str, str]:
    """Labels from KEY=VALUE texts. Raises BadParameter."""
    labels: dict[str, str] = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not key or not equals:
            raise click.BadParameter(f"expected KEY=VALUE, found {text!r}", param_hint="--label")
        labels[key] = value
    return labels
