"""Where a coordinator is: one address, or those of several nodes that share a database."""

import re
from collections.abc import Sequence
from typing import Final

ADDRESSES_MAX: Final = 32
"""Most nodes that one client knows."""

_TARGET: Final = re.compile(r"(dns|ipv4|ipv6|passthrough|unix|unix-abstract|vsock|xds):.+")
"""What gRPC resolves by itself."""
_LIST_TARGET: Final = re.compile(r"ipv[46]:")
"""Targets in which commas belong to gRPC."""
_HOST_AND_PORT: Final = re.compile(r"(\[[0-9a-fA-F:.%\w]+\]|[^\s:/\[\]]+):(\d{1,5})")
_EXPECTED: Final = 'expected "host:port", several of them with commas between, or a gRPC target such as "dns:///host:port" or "unix:path"'


def parse_addresses(address: str | Sequence[str]) -> tuple[str, ...]:
    """The gRPC targets, each once, in their order: "a:7700,b:7700" and ["a:7700", "b:7700"] are the same two.

    Raises ValueError for what is no address.
    """
    targets = tuple(dict.fromkeys(_checked(part.strip()) for part in _parts(address)))
    if not 1 <= len(targets) <= ADDRESSES_MAX:
        raise ValueError(f"{_EXPECTED}, 1 to {ADDRESSES_MAX} of them; found {len(targets)}")
    return targets


def _parts(address: str | Sequence[str]) -> Sequence[str]:
    if not isinstance(address, str):
        return address
    return (address,) if _LIST_TARGET.match(address) else address.split(",")


def _checked(target: str) -> str:
    if _TARGET.fullmatch(target):
        return target
    found = _HOST_AND_PORT.fullmatch(target)
    if found is None:
        without = "; leave out what stands before the host" if "://" in target else ""
        raise ValueError(f"{_EXPECTED}; found {target!r}{without}")
    if not 0 < int(found[2]) <= 65_535:
        raise ValueError(f"expected a port from 1 to 65535, found {target!r}")
    return target
