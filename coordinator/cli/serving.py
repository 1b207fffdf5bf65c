"""`saga serve`."""

import gc
import os
import sys
from pathlib import Path
from typing import Final

import click

from coordinator.settings import Settings, SettingsError, load_settings

_DEFAULTS: Final = Settings()
_HELP: Final = """Runs a coordinator.

Without anything said it listens on 127.0.0.1:7700 and keeps its journal in saga.db, an SQLite file in the current folder
that it makes if it is not there. Sagas that an earlier run left unfinished go on at once. Participants that use the SDK
announce themselves; name the others with --participants.

Each setting is taken from the file, then the environment, then the flags; the later one wins:

\b
  file          saga serve --config saga.toml         database = "/var/lib/saga/saga.db"
                                                      [participants]
                                                      payments = "dns:///payments:50051"
  environment   SAGA_DATABASE=/var/lib/saga/saga.db   SAGA_PARTICIPANTS=payments=dns:///payments:50051
  flag          --database /var/lib/saga/saga.db      --participants payments=dns:///payments:50051

Participants are protected: only so many calls are under way to each, only so many per second are sent if a rate is set, and one
that is away or too slow several times in a row is left alone for a while, then tried with one call. A participant can ask for less
by itself; in the file each can be given limits of its own, also one that announces itself and needs no target:

\b
  [participants.payments]
  target = "dns:///payments:50051"
  concurrency = 16            # calls under way
  rate_per_second = 50        # 0: no limit
  circuit_failures = 5        # in a row; 0: never left alone
  circuit_open_s = 1          # left alone at first; doubles up to …
  circuit_open_s_max = 30

A service that knows nothing of sagas becomes a participant by naming its methods, typed by server reflection or a file of descriptors:

\b
  [participants.warehouse]
  target = "dns:///warehouse:50051"
  descriptors = "warehouse.binpb"
  [participants.warehouse.actions.reserve]
  execute = "warehouse.v1.Warehouse/Reserve"
  compensate = "warehouse.v1.Warehouse/Release"
  compensate_input = "ReleaseRequest{reservation_id: output.reservation_id}"

Several coordinators share one PostgreSQL: --database postgresql+asyncpg://user@host/saga (extra "postgres"). Each drives its share of
the sagas, and those of one that is gone are taken over within seconds. Any of them answers any request.

SIGTERM or Ctrl-C drains: no new call is begun, calls in flight may finish, and the next run takes up the rest. A killed
coordinator loses nothing either.

Traces go where the OTEL_… variables say, for example OTEL_EXPORTER_OTLP_ENDPOINT=http://localhost:4317 for Jaeger.

Exit codes: 0 stopped; 1 the database or its ownership was lost; 2 it could not start.
"""


@click.command(help=_HELP)
@click.option("--config", type=click.Path(path_type=Path), envvar="SAGA_CONFIG", metavar="FILE", help="Settings in TOML.  [SAGA_CONFIG]")
@click.option("--address", metavar="HOST:PORT", help=f"Where to listen; unix:/path works too.  [default: {_DEFAULTS.address}]")
@click.option("--database", metavar="PATH|URL", help="Where the journal is.  [default: saga.db]")
@click.option("--advertise", metavar="HOST:PORT", help="Where other nodes on the same PostgreSQL reach this one.  [default: --address]")
@click.option("--participants", metavar="NAME=TARGET,…", help="gRPC targets of participants that do not announce themselves.")
@click.option("--log-level", metavar="LEVEL", help=f"debug, info, warning or error.  [default: {_DEFAULTS.log_level}]")
@click.option("--log-format", metavar="FORMAT", help=f"json or text.  [default: {_DEFAULTS.log_format}]")
@click.option(
    "--participant-concurrency", metavar="CALLS", help=f"In flight per participant at most.  [default: {_DEFAULTS.participant_concurrency}]"
)
@click.option("--participant-rate-per-second", metavar="CALLS", help="Sent per second and participant at most; 0: no limit.  [default: 0]")
@click.option(
    "--participant-circuit-failures",
    metavar="CALLS",
    help=f"Failed in a row before one is left alone; 0: never.  [default: {_DEFAULTS.participant_circuit_failures}]",
)
@click.option(
    "--participant-circuit-open-s",
    metavar="SECONDS",
    help=f"Left alone at first; doubles with each failed try.  [default: {_DEFAULTS.participant_circuit_open_s:g}]",
)
@click.option(
    "--participant-circuit-open-s-max",
    metavar="SECONDS",
    help=f"Left alone at most.  [default: {_DEFAULTS.participant_circuit_open_s_max:g}]",
)
@click.option(
    "--drain-time-limit-s", metavar="SECONDS", help=f"For calls in flight when it is stopped.  [default: {_DEFAULTS.drain_time_limit_s:g}]"
)
@click.option("--payload-bytes-max", metavar="BYTES", help=f"Largest input or output of a step.  [default: {_DEFAULTS.payload_bytes_max}]")
@click.option(
    "--live-sagas-max", metavar="SAGAS", help=f"Under way at once at most; more are refused.  [default: {_DEFAULTS.live_sagas_max}]"
)
@click.option(
    "--retention-days",
    metavar="DAYS",
    help=f"So long are sagas kept after their end; 0: for ever.  [default: {_DEFAULTS.retention_days:g}]",
)
@click.option("--trace-sample-ratio", metavar="RATIO", help=f"Share of sagas traced, 0 to 1.  [default: {_DEFAULTS.trace_sample_ratio:g}]")
def serve(config: Path | None, **flags: str | None) -> None:
    given = {key: text for key, text in flags.items() if text is not None}
    try:
        settings = load_settings(file=config, environment=os.environ, flags=given)
    except SettingsError as error:
        raise click.UsageError(str(error)) from error
    # Only here: the client commands start without the engine and its database. Nothing that is imported is garbage: looking for some
    # takes a tenth of the time. `run` turns the collector on again.
    gc.disable()
    from coordinator.bootstrap import run

    sys.exit(run(settings))
