"""`saga show`, `saga list` and `saga watch`."""

from contextlib import aclosing
from datetime import UTC, datetime
from typing import Final

import click
from rich.text import Text

from coordinator.cli.calling import ExitCode, client_command
from coordinator.cli.output import Output, printable, standing_text
from coordinator.cli.payloads import PayloadTypes
from coordinator.cli.plans import types_of
from coordinator.cli.story import Storyteller
from coordinator.cli.tables import AdaptiveTable, Column
from coordinator.cli.timeline import find_trace_id, render_line, render_saga, storyteller_of
from coordinator.cli.values import SECONDS, STATUS_NAMES, InstantType, length, parse_labels, parse_statuses
from coordinator.cli.wording import duration, instant
from participant_sdk.client import SagaClient
from saga.v1 import saga_pb2

_COLUMNS: Final = (
    Column(title="id", is_whole=True),
    Column(title="definition"),
    Column(title="status", is_whole=True),
    Column(title="started", is_whole=True),
    Column(title="took", is_whole=True, is_titled=True),
    Column(title="labels"),
)


@click.command(short_help="Shows the saga ID with a timeline.")
@click.argument("saga_id", metavar="ID")
@client_command
async def show(client: SagaClient, output: Output, saga_id: str) -> ExitCode | None:
    """Shows the saga ID: how it stands, and a timeline of every attempt.

    With --json: one object with `saga`, `trace_id` and `events`, payloads included.

    \b
      saga show 0190163d-8694-739b-aea5-966c26f8ad90
    """  # noqa: D301 - click reads \b
    await show_saga(client, output, await client.get(saga_id))
    return None


async def show_saga(client: SagaClient, output: Output, saga: saga_pb2.Saga) -> None:
    """Writes a saga with its history."""
    events = [event async for event in client.history(saga.id)]
    types = await types_of(client, saga.definition)
    if not output.is_json:
        output.show(render_saga(saga, events, now=datetime.now(UTC), types=types))
        return
    shown = [types.to_json(event) for event in events]
    output.line({"saga": types.to_json(saga), "trace_id": find_trace_id(saga.traceparent), "events": shown})


def show_standing(output: Output, saga: saga_pb2.Saga) -> None:
    """Writes how a saga stood when the coordinator answered, in one line."""
    if output.is_json:
        output.line(PayloadTypes().to_json(saga))
    else:
        output.console.print(saga.id, standing_text(saga))


@click.command("list")
@click.option(
    "--status", "statuses", multiple=True, type=click.Choice(STATUS_NAMES, case_sensitive=False), help="May be given several times."
)
@click.option("--definition", default="", metavar="NAME", help="Only sagas of this definition.")
@click.option("--label", "labels", multiple=True, metavar="KEY=VALUE", help="May be given several times; all must hold.")
@click.option("--from", "created_from", type=InstantType(), help="Accepted at this instant or later.")
@click.option("--before", "created_before", type=InstantType(), help="Accepted before this instant.")
@click.option("--paused/--not-paused", default=None, help="Only sagas that are paused, or only those that are not.")
@click.option("--needs-person/--needs-nobody", default=None, help="Only sagas with an open incident, or only those without.")
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
    *,
    paused: bool | None,
    needs_person: bool | None,
    limit: int,
) -> ExitCode | None:
    """Lists sagas, newest first.

    \b
      saga list --status failed --definition place-order
      saga list --needs-person --label region=eu --limit 500
    """  # noqa: D301 - click reads \b
    found = client.list(
        statuses=parse_statuses(statuses),
        definition=definition,
        labels=parse_labels(labels),
        created_from=created_from,
        created_before=created_before,
        paused=paused,
        needs_person=needs_person,
    )
    table = AdaptiveTable(*_COLUMNS)
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


def _add_saga(table: AdaptiveTable, saga: saga_pb2.Saga, now: datetime) -> None:
    created = instant(saga.created_at)
    ended = instant(saga.ended_at) if saga.HasField("ended_at") else now
    table.add_row(
        Text(saga.id),
        Text(printable(f"{saga.definition.name} v{saga.definition.version}")),
        standing_text(saga),
        Text(f"{created:%Y-%m-%d %H:%M:%S}"),
        Text(duration((ended - created).total_seconds())),
        Text(printable(" ".join(f"{key}={value}" for key, value in sorted(saga.labels.items()))), style="dim"),
    )


@click.command(short_help="Shows what happens to the saga ID, live.")
@click.argument("saga_id", metavar="ID")
@click.option("--after", type=click.IntRange(min=0), default=0, help="Only events after this sequence.")
@click.option("--for", "seconds", type=SECONDS, metavar="SECONDS", help="Stop watching then.")
@client_command
async def watch(client: SagaClient, output: Output, saga_id: str, after: int, seconds: float | None) -> ExitCode | None:
    """Shows what happens to the saga ID as it happens, until it ends; goes on across restarts of the coordinator.

    Exits 0 if it is COMPLETED, 1 if it was undone or terminated. A FAILED saga has not ended: the watch goes on until a person
    resolves it (`saga explain ID`). The hook of the saga is watched to its end too.

    \b
      saga watch 0190163d-8694-739b-aea5-966c26f8ad90 --for 60
    """  # noqa: D301 - click reads \b
    saga = await client.get(saga_id)
    types = await types_of(client, saga.definition)
    teller = storyteller_of(saga, types)
    if after and not output.is_json:
        await _listen_until(client, saga.id, teller, after)
    since, status = instant(saga.created_at), saga.status
    async with aclosing(client.watch(saga.id, after=after, timeout=length(seconds))) as events:
        async for response in events:
            status = response.status
            if output.is_json:
                output.line(types.to_json(response))
            else:
                output.show(render_line(teller.rows_of(response.event), teller, since=since))
    return ExitCode.DONE if status == saga_pb2.SAGA_STATUS_COMPLETED else ExitCode.NOT_COMPLETED


async def _listen_until(client: SagaClient, saga_id: str, teller: Storyteller, sequence: int) -> None:
    """Has the story up to there told to nobody, so that what follows is told rightly."""
    async with aclosing(client.history(saga_id)) as events:
        async for event in events:
            if event.sequence > sequence:
                return
            teller.rows_of(event)
