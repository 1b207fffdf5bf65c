"""`saga nodes`, `saga cordon` and `saga uncordon`."""

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Final

import click
from rich.text import Text

from coordinator.cli.calling import ExitCode, client_command
from coordinator.cli.output import Output, printable
from coordinator.cli.payloads import PayloadTypes
from coordinator.cli.tables import AdaptiveTable, Column
from coordinator.cli.wording import duration, instant
from participant_sdk.client import SagaClient
from saga.v1 import operator_pb2

_COLUMNS: Final = (
    Column(title="node", is_whole=True),
    Column(title="address", is_titled=True, is_whole=True),
    Column(title="is", is_whole=True),
    Column(title="for", is_titled=True, is_whole=True),
    Column(title="shards", is_titled=True, is_whole=True),
    Column(title="process", is_titled=True),
)


@click.command(short_help="Lists the coordinators that share the database.")
@client_command
async def nodes(client: SagaClient, output: Output) -> ExitCode | None:
    """Lists the coordinators that share the database, with how many of its shards each one drives.

    \b
      saga nodes
    """  # noqa: D301 - click reads \b
    table, types, now = AdaptiveTable(*_COLUMNS), PayloadTypes(), datetime.now(UTC)
    for node in await client.operator.nodes():
        if output.is_json:
            output.line(types.to_json(node))
        else:
            table.add_row(*_cells(node, now))
    if table.row_count:
        output.show(table)
    return None


@click.command(short_help="Has a node give up its sagas to the others.")
@click.argument("node")
@client_command
async def cordon(client: SagaClient, output: Output, node: str) -> ExitCode | None:
    """Has a node give up its sagas to the others and take no more: before it is stopped for long, or while it is looked into.

    It goes on answering requests. `saga nodes` shows the ids.

    \b
      saga cordon 4f6c2f0e-5c4f-4b43-9f2e-0c8a8c0d9d11
    """  # noqa: D301 - click reads \b
    await client.operator.cordon(node)
    return None


@click.command(short_help="Lets a node have sagas again.")
@click.argument("node")
@client_command
async def uncordon(client: SagaClient, output: Output, node: str) -> ExitCode | None:
    """Lets a node that was cordoned have its share of the sagas again.

    \b
      saga uncordon 4f6c2f0e-5c4f-4b43-9f2e-0c8a8c0d9d11
    """  # noqa: D301 - click reads \b
    await client.operator.cordon(node, cordoned=False)
    return None


def _cells(node: operator_pb2.Node, now: datetime) -> Iterator[Text]:
    yield Text(node.id or "-")
    yield Text(printable(node.address) or "-", style="bold" if node.answering else "")
    standing = "gone" if not node.alive else "cordoned" if node.cordoned else "alive"
    yield Text(standing, style="" if standing == "alive" else "yellow" if node.alive else "dim")
    yield Text(duration((now - instant(node.started_at)).total_seconds()) if node.HasField("started_at") else "-")
    yield Text(str(len(node.shards)))
    yield Text(printable(f"{node.pid} on {node.host}"), style="dim")
