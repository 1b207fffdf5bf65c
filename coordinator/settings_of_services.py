"""Readers of what settings say of services that are there already. Each returns the value or raises ValueError with what was expected."""

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Final, Protocol

from coordinator.services import ServiceAction

FOUND_CHARS_MAX: Final = 200
"""Of a wrong value in a message."""
STATUSES: Final = ("INVALID_ARGUMENT", "NOT_FOUND", "ALREADY_EXISTS", "FAILED_PRECONDITION", "OUT_OF_RANGE")
"""Those that say that nothing was done (R6)."""

_ACTION_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}")
_METHOD: Final = re.compile(r"([A-Za-z_][A-Za-z0-9_]*\.)*[A-Za-z_][A-Za-z0-9_]*/[A-Za-z_][A-Za-z0-9_]*")
_FIELD: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_METADATA: Final = re.compile(r"(?!grpc-|saga-)[a-z0-9][a-z0-9_.-]{0,127}(?<!-bin)")
_TAKEN: Final = frozenset({"traceparent", "tracestate", "te", "host", "content-type", "user-agent", "idempotency-execute-key"})
"""Metadata with a meaning of their own."""

Part = tuple[str, str, str]
"""Something wrong within a value: its place, what was expected, and what was found."""


class PartsError(ValueError):
    """What is wrong within a value that has parts, everything at once."""

    def __init__(self, found: list[Part]) -> None:
        super().__init__(found)
        self.found = found


class SaidOfParticipant(Protocol):
    """What is looked at together, once all sources are read."""

    @property
    def target(self) -> str | None: ...

    @property
    def actions(self) -> Mapping[str, ServiceAction] | None: ...

    @property
    def descriptors(self) -> Path | None: ...

    @property
    def key_metadata(self) -> str | None: ...


def find_service_problems(participants: Mapping[str, SaidOfParticipant]) -> list[Part]:
    """Where what was said of a service in several places does not make one."""
    problems: list[Part] = []
    for name, said in participants.items():
        if said.actions is not None and said.target is None:
            problems.append((f"participants.{name}.target", "where the service can be called: it does not register itself", "nothing"))
        for key in ("descriptors", "key_metadata"):
            if said.actions is None and getattr(said, key) is not None:
                expected = "actions too: only for services that are there already does this mean anything"
                problems.append((f"participants.{name}.{key}", expected, shown(str(getattr(said, key)))))
    return problems


def _actions(found: object) -> Mapping[str, ServiceAction]:
    """The table of actions. Raises PartsError with everything that is wrong in it."""
    expected = 'a table of actions like reserve = { execute = "warehouse.v1.Warehouse/Reserve", … }, at least one'
    if not isinstance(found, Mapping) or not found:
        raise ValueError(expected)
    problems: list[Part] = []
    actions: dict[str, ServiceAction] = {}
    for name, said in found.items():
        if not _ACTION_NAME.fullmatch(name):
            problems.append((name[:80], "a name of letters, digits and underscores, at most 64, no digit first", shown(name)))
        elif not isinstance(said, Mapping):
            problems.append((name, 'a table like { execute = "warehouse.v1.Warehouse/Reserve" }', shown(said)))
        else:
            actions[name] = _action(name, said, problems)
    if problems:
        raise PartsError(problems)
    return MappingProxyType(actions)


def _descriptors(found: object) -> Path:
    """A path, not opened yet."""
    return Path(text_of(found, "the path of a FileDescriptorSet, as protoc --include_imports --descriptor_set_out writes it"))


def _key_metadata(found: object) -> str:
    """A name of metadata that can be sent and means nothing else."""
    expected = 'a name of metadata like "idempotency-key", of lower-case letters, digits and dashes; not grpc-…, saga-… or …-bin'
    text = text_of(found, expected)
    if not _METADATA.fullmatch(text) or text in _TAKEN:
        raise ValueError(expected)
    return text


def shown(found: object) -> str:
    """A wrong value, as a message shows it."""
    return repr(found)[:FOUND_CHARS_MAX]


def text_of(found: object, expected: str) -> str:
    """The value, if it is a text with something in it."""
    if not isinstance(found, str) or not found or "\0" in found:
        raise ValueError(expected)
    return found


def _action(name: str, said: Mapping[object, object], problems: list[Part]) -> ServiceAction:
    values: dict[str, object] = {}
    for key, value in said.items():
        read = _ACTION_READERS.get(str(key))
        if read is None:
            problems.append((f"{name}.{key}", f"one of {', '.join(_ACTION_READERS)}", "an unknown key"))
            continue
        try:
            values[str(key)] = read(value)
        except ValueError as error:
            problems.append((f"{name}.{key}", str(error), shown(value)))
    if "execute" not in said:
        problems.append((f"{name}.execute", _METHOD_EXPECTED, "nothing"))
    if "compensate" not in said:
        about = [key for key in ("compensate_input", "nothing_to_undo") if key in said]
        problems += [(f"{name}.{key}", "compensate too: this says something about it", shown(said[key])) for key in about]
    # One reader per field, and each returns the type of its field; what is wrong has been told, and the action is not used then.
    return ServiceAction(**{"execute": "", **values})  # type: ignore[arg-type]


_METHOD_EXPECTED: Final = 'a unary method like "warehouse.v1.Warehouse/Reserve"'


def _method(found: object) -> str:
    text = text_of(found, _METHOD_EXPECTED).removeprefix("/")
    if not _METHOD.fullmatch(text):
        raise ValueError(_METHOD_EXPECTED)
    return text


def _expression(found: object) -> str:
    return text_of(found, 'an expression like "ReleaseRequest{reservation_id: output.reservation_id}"')


def _field(found: object) -> str:
    expected = 'the name of a field like "request_id"'
    text = text_of(found, expected)
    if not _FIELD.fullmatch(text):
        raise ValueError(expected)
    return text


def _statuses(found: object) -> tuple[str, ...]:
    if not isinstance(found, list) or not found or not all(status in STATUSES for status in found):
        raise ValueError(f"a list of some of {', '.join(STATUSES)}: statuses that say that nothing was done")
    return tuple(dict.fromkeys(found))


SERVICE_READERS: Final[Mapping[str, Callable[[object], object]]] = {
    "actions": _actions,
    "descriptors": _descriptors,
    "key_metadata": _key_metadata,
}
"""What a participant can be told only if it is such a service, by key; in the order of its fields."""
_ACTION_READERS: Final[Mapping[str, Callable[[object], object]]] = {
    "execute": _method,
    "compensate": _method,
    "compensate_input": _expression,
    "key_field": _field,
    "nothing_to_undo": _statuses,
}
