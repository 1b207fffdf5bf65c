"""Reads the descriptors of services that are there already, and finds everything that is wrong with them before anything is started."""

from collections.abc import Mapping
from pathlib import Path
from typing import Final

from google.protobuf.descriptor_pb2 import FileDescriptorSet
from google.protobuf.message import DecodeError

from coordinator.codec.services import ServiceInvalidError, ServicePlan, compile_service
from coordinator.services import ExistingService
from coordinator.settings import SettingsError, SettingsProblem

DESCRIPTOR_BYTES_MAX: Final = 8 * 1024 * 1024
"""Of one file."""
_EXPECTED: Final = "a FileDescriptorSet, as protoc --include_imports --descriptor_set_out writes it"


def compile_services(services: Mapping[str, ExistingService]) -> Mapping[str, ServicePlan]:
    """How those are called that have descriptors, by name. The others are asked later.

    Raises SettingsError with every problem of every service at once.
    """
    problems: list[SettingsProblem] = []
    plans: dict[str, ServicePlan] = {}
    for name, service in services.items():
        if service.descriptors is None:
            continue
        key, source = f"participants.{name}", f"descriptors {service.descriptors}"
        try:
            plans[name] = compile_service(name, service, _read(service.descriptors))
        except ServiceInvalidError as error:
            problems += [
                SettingsProblem(key=f"{key}.{problem.field}", source=source, expected="", found=problem.description)
                for problem in error.problems
            ]
        except (OSError, ValueError) as error:
            problems.append(SettingsProblem(key=f"{key}.descriptors", source=source, expected=_EXPECTED, found=str(error)))
    if problems:
        raise SettingsError(problems=tuple(problems))
    return plans


def _read(path: Path) -> FileDescriptorSet:
    """Raises OSError or ValueError."""
    with path.open("rb") as stream:
        content = stream.read(DESCRIPTOR_BYTES_MAX + 1)
    if len(content) > DESCRIPTOR_BYTES_MAX:
        raise ValueError(f"more than {DESCRIPTOR_BYTES_MAX} bytes")
    try:
        return FileDescriptorSet.FromString(content)
    except DecodeError as error:
        raise ValueError(f"no FileDescriptorSet: {error}") from error
