"""What a coordinator can be told: read from a file, then the environment, then flags; the later one wins.

All three speak of the same keys. An unknown key is refused, because a misspelt `databse` would start a coordinator on
another, empty database while everything looks well.
"""

import re
import tomllib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from types import MappingProxyType
from typing import Final, Literal, TypeAlias, cast, get_args

ENVIRONMENT_PREFIX: Final = "SAGA_"
SETTINGS_FILE_VARIABLE: Final = "SAGA_CONFIG"
"""Names the file; not a setting of its own."""
SETTINGS_FILE_BYTES_MAX: Final = 1024 * 1024

LogLevel: TypeAlias = Literal["debug", "info", "warning", "error"]
LogFormat: TypeAlias = Literal["json", "text"]
SettingValue: TypeAlias = str | int | float | Mapping[str, str]
"""What a key can hold once it has been read."""

_NO_PARTICIPANTS: Final[Mapping[str, str]] = MappingProxyType({})


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Everything that a coordinator can be told, with the defaults that `saga serve` starts with."""

    address: str = "127.0.0.1:7700"
    """Where the API listens: "host:port" ("[::1]:7700" for IPv6; port 0 picks a free one) or "unix:/path". The default is
    reachable from this machine only, as long as there is no identity on the wire."""

    database: str = "sqlite+aiosqlite:///saga.db"
    """Where the journal is, as an SQLAlchemy URL. A plain path is accepted and means an SQLite file there."""

    participants: Mapping[str, str] = field(default_factory=lambda: _NO_PARTICIPANTS)
    """gRPC target by participant name, e.g. payments → "dns:///payments:50051". Participants that register themselves at
    their start need no entry."""

    log_level: LogLevel = "info"
    """Least severe lines that are written."""

    log_format: LogFormat = "json"
    """"json": one object per line, for machines; "text" for eyes."""

    participant_concurrency: int = 64
    """Calls in flight per participant at most, 1 to 10,000, unless the participant asks for less. Raise it for slow
    participants that cope with it."""

    drain_time_limit_s: float = 10.0
    """Seconds that calls in flight are given after SIGTERM, 0 to 3,600. What is not finished then is left to recovery."""

    payload_bytes_max: int = 1024 * 1024
    """Largest input or output of one step in bytes, 1 KiB to 4 MiB. Messages on the wire stop at 4 MiB."""

    trace_sample_ratio: float = 1.0
    """Share of sagas that are traced, 0.0 to 1.0, where the caller has not decided it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SettingsProblem:
    """One thing that is wrong with one key."""

    key: str
    """Empty when it is about a whole source."""
    source: str
    """Where it was given, e.g. "environment variable SAGA_DATABASE"."""
    expected: str
    found: str

    def __str__(self) -> str:
        return f"{self.key or 'settings'} (from {self.source}): expected {self.expected}, found {self.found}"


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

    `file` is TOML with the keys of `Settings` (participants as a table). In `environment` only SAGA_… is looked at;
    `flags` are by key. Texts of the last two are read like the file's values, participants as "name=target,name=target".

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
            values[key] = read(found)
        except ValueError as error:
            problems.append(SettingsProblem(key=key, source=source, expected=str(error), found=_shown(found)))
    if problems:
        raise SettingsError(problems=tuple(problems))
    # One reader per field, and each returns the type of its field.
    return Settings(**cast("dict[str, object]", values))  # type: ignore[arg-type]


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


def _shown(found: object) -> str:
    return repr(found)[:200]


# ── Readers: each returns the value or raises ValueError with what was expected ────────────────────────────────────────────────


def _address(found: object) -> str:
    expected = 'an address like "127.0.0.1:7700", "[::1]:7700" or "unix:/run/saga.sock"'
    text = _text(found, expected)
    if text.startswith("unix:") and len(text) > len("unix:"):
        return text
    host, colon, port = text.rpartition(":")
    host_is_plain = ":" not in host or (host.startswith("[") and host.endswith("]"))
    if not (colon and host and host_is_plain and port.isascii() and port.isdecimal() and int(port) <= 65535):
        raise ValueError(expected)
    return text


def _database(found: object) -> str:
    expected = "a path of an SQLite file or an URL sqlite+aiosqlite:///path"
    text = _text(found, expected)
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


def _participants(found: object) -> Mapping[str, str]:
    expected = 'a table of name = "target", or "name=target,name=target"; names are lower-case letters, digits, dashes, underscores'
    if isinstance(found, str):
        entries = [entry.partition("=") for entry in found.split(",") if entry.strip()]
        pairs: list[tuple[str, object]] = [(name.strip(), target.strip()) for name, _, target in entries]
    else:
        pairs = list(found.items()) if isinstance(found, Mapping) else [("", found)]
    targets: dict[str, str] = {}
    for name, given in pairs:
        if not _PARTICIPANT_NAME.fullmatch(name) or not isinstance(given, str) or not given or name in targets:
            raise ValueError(expected)
        targets[name] = given
    return MappingProxyType(targets)


def _text(found: object, expected: str) -> str:
    if not isinstance(found, str) or not found or "\0" in found:
        raise ValueError(expected)
    return found


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


_READERS: Final[Mapping[str, Callable[[object], SettingValue]]] = {
    "address": _address,
    "database": _database,
    "participants": _participants,
    "log_level": _one_of(get_args(LogLevel)),
    "log_format": _one_of(get_args(LogFormat)),
    "participant_concurrency": _whole_number(1, 10_000),
    "drain_time_limit_s": _number(0, 3_600),
    "payload_bytes_max": _whole_number(1024, 4 * 1024 * 1024),
    "trace_sample_ratio": _number(0, 1),
}
_KEYS: Final = ", ".join(_READERS)
assert list(_READERS) == [entry.name for entry in fields(Settings)], "every setting has its reader, in the same order"
