"""What a coordinator can be told: read from a file, then the environment, then flags; the later one wins.

All three speak of the same keys. An unknown key is refused, because a misspelt `databse` would start a coordinator on
another, empty database while everything looks well.
"""

import re
import tomllib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from types import MappingProxyType
from typing import Final, Literal, TypeAlias, cast, get_args

from coordinator.limits import ParticipantLimits
from coordinator.services import KEY_METADATA_DEFAULT, ExistingService, ServiceAction
from coordinator.settings_of_services import SERVICE_READERS, PartsError, find_service_problems, shown, text_of

ENVIRONMENT_PREFIX: Final = "SAGA_"
SETTINGS_FILE_VARIABLE: Final = "SAGA_CONFIG"
"""Names the file; not a setting of its own."""
SETTINGS_FILE_BYTES_MAX: Final = 1024 * 1024

LogLevel: TypeAlias = Literal["debug", "info", "warning", "error"]
LogFormat: TypeAlias = Literal["json", "text"]
_LIMITS: Final = ParticipantLimits()


@dataclass(frozen=True, slots=True, kw_only=True)
class ParticipantSettings:
    """What is said of one participant. None: as for all."""

    target: str | None = None
    """gRPC target, e.g. "dns:///payments:50051"; None: it registers itself."""
    concurrency: int | None = None
    """Instead of `participant_concurrency`."""
    rate_per_second: float | None = None
    """Instead of `participant_rate_per_second`."""
    circuit_failures: int | None = None
    """Instead of `participant_circuit_failures`."""
    circuit_open_s: float | None = None
    """Instead of `participant_circuit_open_s`."""
    circuit_open_s_max: float | None = None
    """Instead of `participant_circuit_open_s_max`."""
    actions: Mapping[str, ServiceAction] | None = None
    """By name; None: it is a participant like any other. Else it is a service that is there already and knows nothing of sagas, and these
    are methods of it (docs/how-to/existing-services.md)."""
    descriptors: Path | None = None
    """Such a service's FileDescriptorSet; None: it is asked by server reflection."""
    key_metadata: str | None = None
    """Name of the metadata in which such a service gets idempotency keys; None: "idempotency-key"."""

    def said(self) -> dict[str, object]:
        """What is said at all, by name."""
        values = {entry.name: getattr(self, entry.name) for entry in fields(self)}
        return {name: value for name, value in values.items() if value is not None}


SettingValue: TypeAlias = str | int | float | Mapping[str, ParticipantSettings]
"""What a key can hold once it has been read."""

_NO_PARTICIPANTS: Final[Mapping[str, ParticipantSettings]] = MappingProxyType({})


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Everything that a coordinator can be told, with the defaults that `saga serve` starts with."""

    address: str = "127.0.0.1:7700"
    """Where the API listens: "host:port" ("[::1]:7700" for IPv6; port 0 picks a free one) or "unix:/path". The default is
    reachable from this machine only, as long as there is no identity on the wire."""

    database: str = "sqlite+aiosqlite:///saga.db"
    """Where the journal is, as an SQLAlchemy URL. A plain path is accepted and means an SQLite file there; in PostgreSQL several nodes may
    share it."""

    advertise: str = ""
    """Where other nodes on the same database reach this one, "host:port"; empty: at `address`. To be named if that is a wildcard."""

    participants: Mapping[str, ParticipantSettings] = field(default_factory=lambda: _NO_PARTICIPANTS)
    """By name: where a participant can be called, and what holds for it instead of the limits for all. Participants that register
    themselves at their start need no entry. A later source adds to an earlier one, participant by participant."""

    log_level: LogLevel = "info"
    """Least severe lines that are written."""

    log_format: LogFormat = "json"
    """"json": one object per line, for machines; "text" for eyes."""

    participant_concurrency: int = _LIMITS.concurrency
    """Calls in flight per participant at most, 1 to 10,000, unless the participant asks for less. Raise it for slow
    participants that cope with it."""

    participant_rate_per_second: float = _LIMITS.rate_per_second
    """Calls per second and participant at most, repetitions included, 0.001 to 1,000,000, unless the participant asks for less;
    0: no limit. Each coordinator counts for itself."""

    participant_circuit_failures: int = _LIMITS.circuit_failures
    """Calls in a row that find a participant away, too slow or without room before it is left alone for a while, 1 to 1,000,000;
    0: it never is."""

    participant_circuit_open_s: float = _LIMITS.circuit_open_s
    """Seconds that such a participant is left alone at first, 0.001 to 3,600; twice as long after each try that fails."""

    participant_circuit_open_s_max: float = _LIMITS.circuit_open_s_max
    """Seconds that it is left alone at most, 0.001 to 3,600. Calls that wait for it longer than an attempt may take, go back to their
    sagas, which try again later."""

    drain_time_limit_s: float = 10.0
    """Seconds that calls in flight are given after SIGTERM, 0 to 3,600. What is not finished then is left to recovery."""

    payload_bytes_max: int = 1024 * 1024
    """Largest input or output of one step in bytes, 1 KiB to 4 MiB. Messages on the wire stop at 4 MiB."""

    live_sagas_max: int = 200_000
    """Sagas under way in this process, those that wait for days included; more are refused until others have ended."""

    retention_days: float = 30.0
    """How long a saga is kept after its end, unless it waits for a person; 0: for ever."""

    trace_sample_ratio: float = 1.0
    """Share of sagas that are traced, 0.0 to 1.0, where the caller has not decided it."""

    @property
    def participant_targets(self) -> Mapping[str, str]:
        """Target by name, of the participants for which one is configured. Existing services are not among them."""
        return {name: said.target for name, said in self.participants.items() if said.target is not None and said.actions is None}

    @property
    def services(self) -> Mapping[str, ExistingService]:
        """Services that are there already and are participants by configuration, by name."""
        return {
            name: ExistingService(
                target=said.target,
                actions=said.actions,
                descriptors=said.descriptors,
                key_metadata=said.key_metadata or KEY_METADATA_DEFAULT,
            )
            for name, said in self.participants.items()
            if said.target is not None and said.actions is not None
        }

    def limits_of(self, participant: str) -> ParticipantLimits:
        """What holds for the calls to one participant."""
        for_all = ParticipantLimits(
            concurrency=self.participant_concurrency,
            rate_per_second=self.participant_rate_per_second,
            circuit_failures=self.participant_circuit_failures,
            circuit_open_s=self.participant_circuit_open_s,
            circuit_open_s_max=self.participant_circuit_open_s_max,
        )
        said = self.participants.get(participant)
        if said is None:
            return for_all
        limits = {entry.name for entry in fields(for_all)}
        # The fields of both have the same names and types.
        return replace(for_all, **{name: value for name, value in said.said().items() if name in limits})  # type: ignore[arg-type]


@dataclass(frozen=True, slots=True, kw_only=True)
class SettingsProblem:
    """One thing that is wrong with one key."""

    key: str
    """Empty when it is about a whole source."""
    source: str
    """Where it was given, e.g. "environment variable SAGA_DATABASE"."""
    expected: str
    """Empty where `found` says it all."""
    found: str

    def __str__(self) -> str:
        told = f"expected {self.expected}, found {self.found}" if self.expected else self.found
        return f"{self.key or 'settings'} (from {self.source}): {told}"


class SettingsError(Exception):
    """The settings cannot be used; nothing was started. Says every problem at once."""

    def __init__(self, *, problems: tuple[SettingsProblem, ...]) -> None:
        super().__init__("\n".join(str(problem) for problem in problems))
        self.problems = problems


def load_settings(
    *,
    file: Path | None = None,
    environment: Mapping[str, str] = MappingProxyType({}),
    flags: Mapping[str, str] = MappingProxyType({}),
) -> Settings:
    """Reads the three sources in order; the later one wins, key by key.

    `file` is TOML with the keys of `Settings` (participants as a table of targets, or of tables). In `environment` only SAGA_… is
    looked at; `flags` are by key. Texts of the last two are read like the file's values, participants as "name=target,name=target".
    Participants of several sources are put together: naming a target in the environment takes away no limit that the file set.

    Raises SettingsError with every problem of every source at once.
    """
    problems: list[SettingsProblem] = []
    values: dict[str, SettingValue] = {}
    for key, found, source in _given(file, environment, flags, problems):
        read = _READERS.get(key)
        if read is None:
            problems.append(SettingsProblem(key=key, source=source, expected=f"one of {_KEYS}", found="an unknown key"))
            continue
        try:
            values[key] = _joined(values.get(key), read(found))
        except _ParticipantsError as error:
            problems += [SettingsProblem(key=key, source=source, expected=expected, found=shown) for key, expected, shown in error.found]
        except ValueError as error:
            problems.append(SettingsProblem(key=key, source=source, expected=str(error), found=shown(found)))
    if problems:
        raise SettingsError(problems=tuple(problems))
    # One reader per field, and each returns the type of its field.
    settings = Settings(**cast("dict[str, object]", values))  # type: ignore[arg-type]
    if not settings.advertise and settings.database.startswith("postgres") and settings.address.startswith(_NOT_DIALLED):
        expected = "where other nodes on the same database reach this one"
        raise SettingsError(problems=(SettingsProblem(key="advertise", source="address", expected=expected, found=settings.address),))
    wrong = find_service_problems(settings.participants)
    if wrong:
        raise SettingsError(problems=tuple(SettingsProblem(key=key, source=_TOGETHER, expected=want, found=it) for key, want, it in wrong))
    return settings


_TOGETHER: Final = "all sources together"
_NOT_DIALLED: Final = ("0.0.0.0:", "[::]:", "unix:")
"""Addresses that mean nothing on another machine."""


def _joined(earlier: SettingValue | None, later: SettingValue) -> SettingValue:
    if not isinstance(earlier, Mapping) or not isinstance(later, Mapping):
        return later
    joined = dict(earlier)
    for name, said in later.items():
        joined[name] = replace(joined.get(name, said), **said.said())  # type: ignore[arg-type]
    return MappingProxyType(joined)


def _given(
    file: Path | None, environment: Mapping[str, str], flags: Mapping[str, str], problems: list[SettingsProblem]
) -> Iterator[tuple[str, object, str]]:
    if file is not None:
        yield from ((key, found, f"file {file}") for key, found in _file_content(file, problems).items())
    for variable, text in sorted(environment.items()):
        if variable.startswith(ENVIRONMENT_PREFIX) and not _is_foreign(variable):
            yield variable.removeprefix(ENVIRONMENT_PREFIX).lower(), text, f"environment variable {variable}"
    for key, text in flags.items():
        yield key, text, f"flag --{key.replace('_', '-')}"


def _file_content(file: Path, problems: list[SettingsProblem]) -> Mapping[str, object]:
    try:
        with file.open("rb") as stream:
            # Cut off at the bound: no settings are that long, and a device or a dump given by mistake must not fill the memory.
            return tomllib.loads(stream.read(SETTINGS_FILE_BYTES_MAX).decode("utf-8"))
    except (OSError, ValueError) as error:
        problems.append(SettingsProblem(key="", source=f"file {file}", expected="a readable TOML file in UTF-8", found=str(error)))
        return {}


# Kubernetes puts SAGA_SERVICE_HOST, SAGA_PORT_7700_TCP and the like into every pod beside a service called saga or saga-…; they are
# not ours.
_KUBERNETES_LINK: Final = re.compile(r"SAGA(_\w+)??_(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT(_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)?)")


def _is_foreign(variable: str) -> bool:
    return variable == SETTINGS_FILE_VARIABLE or _KUBERNETES_LINK.fullmatch(variable) is not None


# ── Readers: each returns the value or raises ValueError with what was expected ────────────────────────────────────────────────


def _address(found: object) -> str:
    expected = 'an address like "127.0.0.1:7700", "[::1]:7700" or "unix:/run/saga.sock"'
    text = text_of(found, expected)
    if text.startswith("unix:") and len(text) > len("unix:"):
        return text
    host, colon, port = text.rpartition(":")
    host_is_plain = ":" not in host or (host.startswith("[") and host.endswith("]"))
    if not (colon and host and host_is_plain and port.isascii() and port.isdecimal() and int(port) <= 65535):
        raise ValueError(expected)
    return text


def _database(found: object) -> str:
    expected = "a path of an SQLite file, or a URL like sqlite+aiosqlite:///path or postgresql+asyncpg://user@host/database"
    text = text_of(found, expected)
    if re.match(r"postgres(?:ql)?(?:\+asyncpg)?://[^/]*/.", text) is not None:
        return text
    if "://" not in text:
        path = text
    elif (match := re.fullmatch(r"sqlite(?:\+aiosqlite)?:///(.+)", text, re.DOTALL)) is not None:
        path = match.group(1)
    else:
        raise ValueError(expected)
    if path.partition("?")[0] in {"", ":memory:"}:
        # A journal in memory would promise durability and forget every saga at the next restart.
        raise ValueError(expected + "; a database in memory would lose every saga at a restart")
    return f"sqlite+aiosqlite:///{path}"


_PARTICIPANT_NAME: Final = re.compile(r"[a-z][a-z0-9_-]{0,63}")


class _ParticipantsError(ValueError):
    """What is wrong with participants: for each the key, what was expected, and what was found."""

    def __init__(self, found: list[tuple[str, str, str]]) -> None:
        super().__init__(found)
        self.found = found


def _participants(found: object) -> Mapping[str, ParticipantSettings]:
    expected = 'a table of name = "target" or name = { target = "…", concurrency = … }, or the text "name=target,name=target"'
    if isinstance(found, str):
        entries = [entry.partition("=") for entry in found.split(",") if entry.strip()]
        pairs: list[tuple[str, object]] = [(name.strip(), target.strip()) for name, _, target in entries]
    elif isinstance(found, Mapping):
        pairs = list(found.items())
    else:
        raise ValueError(expected)  # noqa: TRY004 - the one exception of all readers
    participants: dict[str, ParticipantSettings] = {}
    problems: list[tuple[str, str, str]] = []
    for name, said in pairs:
        if not _PARTICIPANT_NAME.fullmatch(name) or not said or name in participants:
            again = " again" if name in participants else ""
            rule = "; names are lower-case letters, digits, dashes, underscores, each once"
            problems.append(("participants", expected + rule, f"{shown(name)}{again} = {shown(said)}"))
            continue
        participants[name] = _participant(name, said, problems)
    if problems:
        raise _ParticipantsError(problems)
    return MappingProxyType(participants)


def _participant(name: str, found: object, problems: list[tuple[str, str, str]]) -> ParticipantSettings:
    """Short form: its target; long form: a table. What is wrong is added to the problems."""
    values: dict[str, object] = {}
    for key, value in found.items() if isinstance(found, Mapping) else [("target", found)]:
        read = _PARTICIPANT_READERS.get(key)
        if read is None:
            problems.append((f"participants.{name}.{key}", f"one of {', '.join(_PARTICIPANT_READERS)}", "an unknown key"))
            continue
        try:
            values[key] = read(value)
        except PartsError as error:
            problems += [(f"participants.{name}.{key}.{part}", expected, shown_part) for part, expected, shown_part in error.found]
        except ValueError as error:
            problems.append((f"participants.{name}.{key}", str(error), shown(value)))
    # One reader per field, and each returns the type of its field.
    return ParticipantSettings(**values)  # type: ignore[arg-type]


def _target(found: object) -> str:
    return text_of(found, 'a gRPC target like "dns:///payments:50051", "payments:50051" or "unix:/run/payments.sock"')


def _one_of(alternatives: tuple[str, ...]) -> Callable[[object], str]:
    def read(found: object) -> str:
        text = found.lower() if isinstance(found, str) else ""
        if text not in alternatives:
            raise ValueError("one of " + ", ".join(alternatives))
        return text

    return read


def _whole_number(least: int, most: int) -> Callable[[object], int]:
    expected = f"a whole number from {least:,} to {most:,}"

    def read(found: object) -> int:
        if isinstance(found, str) and re.fullmatch(r"[0-9]{1,18}", found):
            found = int(found)
        # TOML's true is an int to Python.
        if not isinstance(found, int) or isinstance(found, bool) or not least <= found <= most:
            raise ValueError(expected)
        return found

    return read


def _number_or_zero(least: float, most: float) -> Callable[[object], float]:
    expected = f"0 for none, or a number from {least:g} to {most:,.0f}"
    read_number = _number(0, most)

    def read(found: object) -> float:
        try:
            number = read_number(found)
        except ValueError as error:
            raise ValueError(expected) from error
        if 0 < number < least:
            raise ValueError(expected)
        return number

    return read


def _number(least: float, most: float) -> Callable[[object], float]:
    expected = f"a number from {least:g} to {most:g}"

    def read(found: object) -> float:
        if isinstance(found, str) and re.fullmatch(r"[0-9]{1,18}(\.[0-9]{1,18})?", found):
            found = float(found)
        # Comparisons with NaN are all false, so it is refused too.
        if not isinstance(found, int | float) or isinstance(found, bool) or not least <= found <= most:
            raise ValueError(expected)
        return float(found)

    return read


_concurrency: Final = _whole_number(1, 10_000)
_rate: Final = _number_or_zero(0.001, 1_000_000)
_circuit_failures: Final = _whole_number(0, 1_000_000)
_circuit_open_s: Final = _number(0.001, 3_600)

_PARTICIPANT_READERS: Final[Mapping[str, Callable[[object], object]]] = {
    "target": _target,
    "concurrency": _concurrency,
    "rate_per_second": _rate,
    "circuit_failures": _circuit_failures,
    "circuit_open_s": _circuit_open_s,
    "circuit_open_s_max": _circuit_open_s,
    **SERVICE_READERS,
}
_READERS: Final[Mapping[str, Callable[[object], SettingValue]]] = {
    "address": _address,
    "database": _database,
    "advertise": _address,
    "participants": _participants,
    "log_level": _one_of(get_args(LogLevel)),
    "log_format": _one_of(get_args(LogFormat)),
    "participant_concurrency": _concurrency,
    "participant_rate_per_second": _rate,
    "participant_circuit_failures": _circuit_failures,
    "participant_circuit_open_s": _circuit_open_s,
    "participant_circuit_open_s_max": _circuit_open_s,
    "drain_time_limit_s": _number(0, 3_600),
    "payload_bytes_max": _whole_number(1024, 4 * 1024 * 1024),
    "live_sagas_max": _whole_number(1, 100_000_000),
    "retention_days": _number_or_zero(0.001, 36_500),
    "trace_sample_ratio": _number(0, 1),
}
_KEYS: Final = ", ".join(_READERS)
assert list(_READERS) == [entry.name for entry in fields(Settings)], "every setting has its reader, in the same order"
assert list(_PARTICIPANT_READERS) == [entry.name for entry in fields(ParticipantSettings)], "every setting has its reader"
