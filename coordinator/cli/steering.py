"""`saga start` and `saga cancel`."""

from datetime import datetime
from typing import TypedDict, Unpack

import click

from coordinator.cli.calling import ExitCode, client_command
from coordinator.cli.output import Output
from coordinator.cli.payloads import PayloadError, PayloadTypes
from coordinator.cli.reading import show_saga, show_standing
from coordinator.cli.values import SECONDS, InstantType, length, parse_labels, read_source, with_reason
from participant_sdk.client import SagaClient, StartOptions
from saga.v1 import saga_pb2


class StartFlags(TypedDict):
    """What `saga start` may be told; None where it was not."""

    key: str | None
    saga_id: str | None
    version: int
    labels: tuple[str, ...]
    start_at: datetime | None
    time_limit: float | None
    wait: bool
    wait_timeout: float | None


@click.command()
@click.argument("name")
@click.option("--input", "source", required=True, metavar="JSON|@FILE|-", help="The input message: as JSON, in a file, or on stdin.")
@click.option("--key", help="Idempotency key: the same key and input is the same saga, not a second one.")
@click.option("--id", "saga_id", metavar="UUID", help="Id of the saga, to repeat a start whose answer was lost.")
@click.option("--version", type=click.IntRange(min=0), default=0, help="Version of the definition.  [default: the highest]")
@click.option("--label", "labels", multiple=True, metavar="KEY=VALUE", help="May be given several times.")
@click.option("--start-at", type=InstantType(), help="When to begin, e.g. 2030-01-31T08:00:00Z.  [default: at once]")
@click.option("--time-limit", type=SECONDS, metavar="SECONDS", help="Then it turns back.")
@click.option("--wait", is_flag=True, help="Wait for its end and show it; exit 1 unless it is COMPLETED.")
@click.option("--wait-timeout", type=SECONDS, metavar="SECONDS", help="Stop waiting then; it goes on.")
@client_command
async def start(client: SagaClient, output: Output, name: str, source: str, **flags: Unpack[StartFlags]) -> ExitCode | None:
    """Starts a saga of the definition NAME.

    The input is JSON for the definition's input message; the coordinator tells the message type, so nothing else is needed.
    When this prints an id, the saga is stored and will end, whatever crashes.

    \b
      saga start place-order --input '{"order_id": "42", "sku": "widget", "quantity": 1}' --key 42 --wait
    """  # noqa: D301 - click reads \b
    text = read_source(source, "--input")
    found = await client.get_definition(name, version=flags["version"])
    try:
        message = PayloadTypes(found.descriptors).parse(text, found.definition.input_type)
    except PayloadError as error:
        raise click.BadParameter(str(error), param_hint="--input") from error
    # That very version: the input was read by its types, and a newer one may be registered meanwhile.
    started = await client.start(name, message, **_start_options(flags, version=found.definition.version))
    if output.is_json:
        output.line({"id": started.id, "created": bool(started.is_new)})
    else:
        output.show(f"{started.id}{'' if started.is_new else '  (was there already)'}")
    if not flags["wait"]:
        return None
    finished = await started.wait(timeout=length(flags["wait_timeout"]))
    await show_saga(client, output, finished)
    return ExitCode.DONE if finished.status == saga_pb2.SAGA_STATUS_COMPLETED else ExitCode.NOT_COMPLETED


def _start_options(flags: StartFlags, *, version: int) -> StartOptions:
    options: StartOptions = {"version": version, "labels": parse_labels(flags["labels"])}
    if flags["key"] is not None:
        options["key"] = flags["key"]
    if flags["saga_id"] is not None:
        options["saga_id"] = flags["saga_id"]
    if flags["start_at"] is not None:
        options["start_at"] = flags["start_at"]
    if (time_limit := length(flags["time_limit"])) is not None:
        options["time_limit"] = time_limit
    return options


@click.command()
@click.argument("saga_id", metavar="ID")
@with_reason
@client_command
async def cancel(client: SagaClient, output: Output, saga_id: str, reason: str, actor: str) -> ExitCode | None:
    """Asks the saga ID to turn back: what was done is undone.

    Returns as soon as that is stored, not when everything is undone; `saga watch ID` shows how it goes on. While nobody knows
    whether the pivot took effect, the saga turns back only if it did not.

    \b
      saga cancel 0190163d-8694-739b-aea5-966c26f8ad90 --reason "the customer changed their mind"
    """  # noqa: D301 - click reads \b
    show_standing(output, await client.cancel(saga_id, reason=reason, actor=actor))
    return None
