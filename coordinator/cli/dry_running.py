"""`saga check --dry-run`: a sound definition run with stubs, without a coordinator and without waiting."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta

import click

from coordinator.cli.definition_file import FoundDefinition
from coordinator.cli.output import Output
from coordinator.cli.payloads import PayloadError, PayloadTypes
from coordinator.cli.timeline import render_saga
from coordinator.cli.values import read_source
from participant_sdk.testing.dry_run import dry_run
from participant_sdk.testing.errors import KitError
from participant_sdk.testing.plans import Definition
from participant_sdk.testing.saga_run import SagaRun


@dataclass(frozen=True, slots=True, kw_only=True)
class DryRunOptions:
    """How a dry run goes."""

    input: str = ""
    """JSON, @FILE or -; empty: an empty message."""
    latencies: tuple[str, ...] = ()
    """NAME=SECONDS, each."""
    refused: tuple[str, ...] = ()
    """Steps."""


def show_dry_run(output: Output, found: FoundDefinition, options: DryRunOptions) -> None:
    """Runs it, and writes its timeline. Raises BadParameter for what does not fit the definition."""
    types = PayloadTypes(found.descriptors)
    run = _run(found, options, types)
    if output.is_json:
        calls = [{"call": call.name, "action": call.action, "at": round(call.arrived_s, 3), "outcome": call.outcome} for call in run.calls]
        output.line({"saga": types.to_json(run.saga), "calls": calls, "took": round(run.took.total_seconds(), 3)})
    else:
        output.show(render_saga(run.saga, run.events, now=run.now, types=types))


def _run(found: FoundDefinition, options: DryRunOptions, types: PayloadTypes) -> SagaRun:
    source = read_source(options.input, "--input") if options.input else "{}"
    try:
        message = types.parse(source, found.definition.input_type)
        definition = Definition(found.definition, found.descriptors)
        return dry_run(definition, message, latencies=_latencies(options.latencies), refused=options.refused)
    except PayloadError as error:
        raise click.BadParameter(str(error), param_hint="--input") from error
    except KitError as error:
        raise click.BadParameter(str(error), param_hint="--latency, --refuse") from error


def _latencies(said: tuple[str, ...]) -> Mapping[str, timedelta]:
    taken: dict[str, timedelta] = {}
    for each in said:
        name, _, seconds = each.partition("=")
        try:
            taken[name] = length = timedelta(seconds=float(seconds))
        except (ValueError, OverflowError) as error:
            raise _no_latency(each) from error
        if length < timedelta():
            raise _no_latency(each)
    return taken


def _no_latency(said: str) -> click.BadParameter:
    return click.BadParameter(f"expected STEP=SECONDS like charge=1.5, found {said!r}", param_hint="--latency")
