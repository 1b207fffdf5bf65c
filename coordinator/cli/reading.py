"""`saga show`, `saga list` and `saga watch`."""

from contextlib import aclosing
from datetime import UTC, datetime, timedelta
from typing import Final

import click
from rich.table import Table

from coordinator.cli.calling import ExitCode, client_command
from coordinator.cli.output import Output, printable, status_text
from coordinator.cli.payloads import PayloadTypes
from coordinator.cli.timeline import duration, find_trace_id, render_line, render_saga
from coordinator.cli.values import InstantType, parse_labels
from participant_sdk.client import DefinitionNotFound, SagaClient
from saga.v1 import saga_pb2

_WIDTHS: Final = {"id": 36, "status": len("COMPENSATING")}
"""What must not be cut off, however narrow the terminal is."""
STATUS_NAMES: Final = tuple(name.removeprefix("SAGA_STATUS_") for name, number in saga_pb2.SagaStatus.items() if number)


@click.command(short_help="Shows the saga ID with a timeline.")
@click.argument("saga_id", metavar="ID")
@client_command
async def show(client: SagaClient, output: Output, saga_id: str) -> ExitCode | None:
    """Shows the saga ID: how it stands, and a timeline of every attempt.

    With --json: one object with `saga`, `trace_id` and `events`, payloads included.
    """
    await show_saga(client, output, await client.get(saga_id))
    return None


async def show_saga(client: SagaClient, output: Output, saga: saga_pb2.Saga) -> None:
    """Writes a saga with its history."""
    events = [event async for event in client.history(saga.id)]
    if not output.is_json:
        output.show(render_saga(saga, events, now=datetime.now(UTC)))
        return
    types = await _types_of(client, saga.definition)
    shown = [types.to_json(event) for event in events]
    output.line({"saga": types.to_json(saga), "trace_id": find_trace_id(saga.traceparent), "events": shown})


@click.command("list")
@click.option(
    "--status", "statuses", multiple=True, type=click.Choice(STATUS_NAMES, case_sensitive=False), help="May be given several times."
)
@click.option("--definition", default="", metavar="NAME", help="Only sagas of this definition.")
@click.option("--label", "labels", multiple=True, metavar="KEY=VALUE", help="May be given several times; all must hold.")
@click.option("--from", "created_from", type=InstantType(), help="Accepted at this instant or later.")
@click.option("--before", "created_before", type=InstantType(), help="Accepted before this instant.")
@click.option("--limit", type=click.IntRange(min=1), default=50, show_default=True, help="Sagas at most.")
@client_command
async def list_sagas(
    client: SagaClient,
    output: Output,
    statuses: tuple[str, ...],
    definition: str,
    labels: tuple[str, ...],
    created_from: datetime | None,
    created_before: datetime | None,
    limit: int,
) -> ExitCode | None:
    """Lists sagas, newest first."""
    found = client.list(
        statuses=[saga_pb2.SagaStatus.Value(f"SAGA_STATUS_{name.upper()}") for name in statuses],
        definition=definition,
        labels=parse_labels(labels),
        created_from=created_from,
        created_before=created_before,
    )
    table = Table(box=None, pad_edge=False, header_style="dim")
    for title in ("id", "definition", "status", "started", "took", "labels"):
        table.add_column(title, no_wrap=title in {"id", "status"}, min_width=_WIDTHS.get(title), overflow="fold")
    types, now, shown = PayloadTypes(), datetime.now(UTC), 0
    async with aclosing(found):
        async for saga in found:
            if shown == limit:
                break
            shown += 1
            if output.is_json:
                output.line(types.to_json(saga))
            else:
                _add_saga(table, saga, now)
    if table.row_count:
        output.show(table)
    return None


def _add_saga(table: Table, saga: saga_pb2.Saga, now: datetime) -> None:
    created = saga.created_at.ToDatetime(tzinfo=UTC)
    ended = saga.ended_at.ToDatetime(tzinfo=UTC) if saga.HasField("ended_at") else now
    table.add_row(
        saga.id,
        f"{saga.definition.name} v{saga.definition.version}",
        status_text(saga.status),
        f"{created:%Y-%m-%d %H:%M:%S}",
        duration((ended - created).total_seconds()),
        printable(" ".join(f"{key}={value}" for key, value in sorted(saga.labels.items()))),
    )


@click.command(short_help="Shows what happens to the saga ID, live.")
@click.argument("saga_id", metavar="ID")
@click.option("--after", type=click.IntRange(min=0), default=0, help="Only events after this sequence.")
@click.option("--for", "seconds", type=click.FloatRange(min=0, min_open=True), metavar="SECONDS", help="Stop watching then.")
@client_command
async def watch(client: SagaClient, output: Output, saga_id: str, after: int, seconds: float | None) -> ExitCode | None:
    """Shows what happens to the saga ID as it happens, until it ends; goes on across restarts of the coordinator.

    Exits 0 if it is COMPLETED, 1 if it was undone. A FAILED saga has not ended: the watch goes on until a person resolves it.
    """
    saga = await client.get(saga_id)
    types = await _types_of(client, saga.definition) if output.is_json else PayloadTypes()
    since, status = saga.created_at.ToDatetime(tzinfo=UTC), saga.status
    timeout = timedelta(seconds=seconds) if seconds is not None else None
    async with aclosing(client.watch(saga.id, after=after, timeout=timeout)) as events:
        async for response in events:
            status = response.status
            if output.is_json:
                output.line(types.to_json(response))
            else:
                output.show(render_line(response.event, since=since))
    return ExitCode.DONE if status == saga_pb2.SAGA_STATUS_COMPLETED else ExitCode.NOT_COMPLETED


async def _types_of(client: SagaClient, definition: saga_pb2.DefinitionReference) -> PayloadTypes:
    try:
        found = await client.get_definition(definition.name, version=definition.version)
    except DefinitionNotFound:
        return PayloadTypes()  # Payloads are then shown in base64: better than nothing at all.
    return PayloadTypes(found.descriptors)
