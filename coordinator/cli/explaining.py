"""`saga explain`, `saga incidents` and `saga participants`."""

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import aclosing
from datetime import UTC, datetime
from typing import Final

import click
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from coordinator.cli.calling import ExitCode, client_command
from coordinator.cli.output import Output, printable
from coordinator.cli.payloads import PayloadTypes
from coordinator.cli.tables import AdaptiveTable, Column
from coordinator.cli.timeline import heading_of
from coordinator.cli.values import INCIDENT_KIND, KINDS_IN_WORDS, parse_incident_kinds
from coordinator.cli.wording import by_whom, duration, instant, plain_name, short_name, words_of
from participant_sdk.client import SagaClient
from saga.v1 import operator_pb2, saga_pb2

_INCIDENT_COLUMNS: Final = (
    Column(title="saga", is_whole=True),
    Column(title="incident", is_titled=True, is_whole=True),
    Column(title="is", is_whole=True),
    Column(title="for", is_titled=True, is_whole=True),
    Column(title="what happened"),
)
_PARTICIPANT_COLUMNS: Final = (
    Column(title="participant", is_whole=True),
    Column(title="circuit", is_titled=True, is_whole=True),
    Column(title="under way", is_titled=True, is_whole=True),
    Column(title="waiting", is_titled=True, is_whole=True),
    Column(title="a second", is_titled=True, is_whole=True),
    Column(title="targets", is_titled=True),
    Column(title="last error", is_titled=True),
)
_CHOICE: Final = re.compile(r"(?P<call>[A-Za-z]+)(?: (?P<about>[A-Za-z0-9_]+))?(?: \((?P<how>[^)]*)\))?")
_COMMANDS: Final[Mapping[str, str]] = {
    "CancelSaga": "saga cancel {saga}",
    "PauseSaga": "saga pause {saga}",
    "ResumeSaga": "saga resume {saga}",
    "TerminateSaga": "saga terminate {saga} --reason …",
    "RetryStep": "saga retry {saga} {about}{how}",
    "ResolveStep": "saga resolve {saga} {about}{how} --reason …",
    "AcknowledgeIncident": "saga acknowledge {saga} {about} --reason …",
    "ChangeStepPolicy": "saga policy {saga} {about} …",
    "ResolveOutput": "saga resolve-output {saga} JSON --reason …",
}
"""What to type for what a person can do; what is missing here is shown as the coordinator says it."""
_FLAGS: Final[Mapping[str, str]] = {
    "with an input": "--input JSON",
    "as it is or with an input": "[--input JSON]",
    "succeeded": "--succeeded JSON",
    "skipped": "--skipped",
    "rejected": "--rejected",
    "compensated": "--compensated",
}


@click.command(short_help="Tells why the saga ID stands where it stands.")
@click.argument("saga_id", metavar="ID")
@client_command
async def explain(client: SagaClient, output: Output, saga_id: str) -> ExitCode | None:
    """Tells why the saga ID stands where it stands: what it waits for, what will happen next and when, and what you can do.

    \b
      saga explain 0190163d-8694-739b-aea5-966c26f8ad90
    """  # noqa: D301 - click reads \b
    explained = await client.operator.explain(saga_id)
    if output.is_json:
        output.line(PayloadTypes().to_json(explained))
    else:
        output.show(render_explanation(explained, now=datetime.now(UTC)))
    return None


def render_explanation(explained: operator_pb2.ExplainSagaResponse, *, now: datetime) -> RenderableType:
    """An explanation, for a terminal."""
    parts: list[RenderableType] = [heading_of(explained.saga), Text(printable(explained.summary), style="bold")]
    # The summary usually says the first of them already.
    if waits := [wait for wait in explained.waits if not wait.description or wait.description not in explained.summary]:
        parts += [Text(), _waits_table(waits, now)]
    if explained.next or explained.HasField("next_at"):
        due = f" ({_when(instant(explained.next_at), now)})" if explained.HasField("next_at") else ""
        parts += [Text(), Text.assemble(("next   ", "dim"), printable(explained.next), due)]
    if explained.choices:
        parts.append(Text())
        parts += [Text.assemble(("you can ", "dim"), (printable(command), "cyan")) for command in _commands(explained)]
    return Group(*parts)


def _waits_table(waits: Sequence[operator_pb2.WaitExplanation], now: datetime) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 1))
    table.add_column("waits", no_wrap=True)
    table.add_column("for", overflow="fold")
    for wait in waits:
        style = "bold red" if wait.reason == operator_pb2.WAIT_REASON_INCIDENT else ""
        table.add_row(Text(printable(wait.step_id or "the saga")), Text(printable(_why(wait, now)), style=style))
    return table


def _why(wait: operator_pb2.WaitExplanation, now: datetime) -> str:
    """Why it waits, with what the coordinator's words leave out."""
    why = wait.description or plain_name(operator_pb2.WaitReason, wait.reason, "WAIT_REASON_")
    if wait.HasField("person") and not wait.description:
        why += by_whom(wait.person.actor, wait.person.reason)
    if wait.HasField("error") and wait.error.message not in why:
        why += f"; last error: {words_of(wait.error)}"
    if wait.HasField("until") and f"{instant(wait.until):%H:%M:%S}" not in why:
        why += f"; until: {_when(instant(wait.until), now)}"
    return why


def _commands(explained: operator_pb2.ExplainSagaResponse) -> Iterator[str]:
    for choice in explained.choices:
        found = _CHOICE.fullmatch(choice)
        command = _COMMANDS.get(found["call"]) if found is not None else None
        if found is None or command is None:
            yield choice
            continue
        flags = "|".join(_FLAGS.get(how, how) for how in (found["how"] or "").split(", ") if how)
        yield command.format(saga=explained.saga.id, about=found["about"] or "STEP", how=f" {flags}" if flags else "")


def _when(moment: datetime, now: datetime) -> str:
    left_s = (moment - now).total_seconds()
    clock = f"{moment:%H:%M:%S}" if abs(left_s) < 12 * 3600 else f"{moment:%Y-%m-%d %H:%M:%S}"
    return f"in {duration(left_s)}, {clock} UTC" if left_s > 0 else f"due since {clock} UTC"


@click.command(short_help="Lists what waits for a person.")
@click.option("--all", "include_closed", is_flag=True, help="Closed ones too.")
@click.option("--kind", "kinds", multiple=True, type=INCIDENT_KIND, metavar="KIND", help=f"May be given several times: {KINDS_IN_WORDS}.")
@click.option("--definition", default="", metavar="NAME", help="Only of sagas of this definition.")
@click.option("--saga", "saga_id", default="", metavar="ID", help="Only of this saga.")
@click.option("--limit", type=click.IntRange(min=1), default=50, show_default=True, help="Incidents at most.")
@client_command
async def incidents(
    client: SagaClient, output: Output, *, include_closed: bool, kinds: tuple[str, ...], definition: str, saga_id: str, limit: int
) -> ExitCode | None:
    """Lists what waits for a person, oldest first. `saga explain ID` tells what to do about one.

    \b
      saga incidents --kind pivot_unknown --kind step_rejected
    """  # noqa: D301 - click reads \b
    found = client.operator.incidents(
        include_closed=include_closed, kinds=parse_incident_kinds(kinds), saga_id=saga_id, definition=definition
    )
    table, types, now, shown = AdaptiveTable(*_INCIDENT_COLUMNS), PayloadTypes(), datetime.now(UTC), 0
    async with aclosing(found):
        async for each in found:
            if shown == limit:
                break
            shown += 1
            if output.is_json:
                output.line(types.to_json(each))
            else:
                table.add_row(*_incident_cells(each, now))
    if table.row_count:
        output.show(table)
    elif not output.is_json:
        output.show(Text("nothing waits for a person", style="green"))
    return None


def _incident_cells(found: operator_pb2.SagaIncident, now: datetime) -> Iterator[Text]:
    incident = found.incident
    closed = instant(incident.closed_at) if incident.HasField("closed_at") else None
    yield Text(found.saga_id)
    yield Text(str(incident.id))
    yield Text("closed" if closed is not None else "open", style="dim" if closed is not None else "bold red")
    yield Text(duration(((closed or now) - instant(incident.opened_at)).total_seconds()))
    kind = plain_name(saga_pb2.IncidentKind, incident.kind, "INCIDENT_KIND_")
    about = f"{found.definition.name} v{found.definition.version}" + (f", {incident.step_id}" if incident.step_id else "")
    words = f"{about}: {kind}: {words_of(incident.error)}"
    yield Text(printable(words), style="dim" if closed is not None else "")


@click.command(short_help="Lists participants, and how calls to them get on.")
@client_command
async def participants(client: SagaClient, output: Output) -> ExitCode | None:
    """Lists the participants that are registered, configured or called by a saga, and how the calls to them are getting on.

    \b
      saga participants
    """  # noqa: D301 - click reads \b
    table, types, now = AdaptiveTable(*_PARTICIPANT_COLUMNS), PayloadTypes(), datetime.now(UTC)
    for standing in await client.operator.participants():
        if output.is_json:
            output.line(types.to_json(standing))
        else:
            table.add_row(*_participant_cells(standing, now))
    if table.row_count:
        output.show(table)
    return None


def _participant_cells(standing: operator_pb2.ParticipantStanding, now: datetime) -> Iterator[Text]:
    yield Text(printable(standing.name))
    circuit = short_name(operator_pb2.CircuitState, standing.circuit, "CIRCUIT_STATE_").lower().replace("_", "-")
    if standing.HasField("open_until"):
        circuit += f", {duration(max(0.0, (instant(standing.open_until) - now).total_seconds()))}"
    yield Text(circuit, style="" if standing.circuit == operator_pb2.CIRCUIT_STATE_CLOSED else "bold red")
    yield Text(f"{standing.under_way} of {standing.concurrency}")
    yield Text(str(standing.waiting), style="yellow" if standing.waiting else "")
    yield Text(f"{standing.rate_per_second:g}" if standing.rate_per_second else "any", style="dim")
    yield Text(printable(" ".join(standing.targets))) if standing.targets else Text("nowhere", style="bold red")
    yield Text(printable(words_of(standing.last_error)) if standing.HasField("last_error") else "")
