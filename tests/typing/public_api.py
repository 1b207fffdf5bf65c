"""The public surface as text: a line for each public name with its signature, as the source writes it.

Read from the source by griffe and not from what is imported, so that every version of Python gives the same lines.
"""

from collections.abc import Iterator
from typing import Final

import griffe

from docs._extensions.public_modules import PUBLIC_MODULES
from tests.documents import ROOT

_SEEN_OF_MAGIC: Final = {"__init__", "__call__", "__await__", "__aenter__", "__enter__", "__aiter__", "__iter__", "__getitem__", "__len__"}
_STARS: Final = {griffe.ParameterKind.var_positional: "*", griffe.ParameterKind.var_keyword: "**"}


def public_api() -> str:
    """Sorted within each module, as `__all__` is."""
    loader = griffe.GriffeLoader(search_paths=[str(ROOT)], allow_inspection=False)
    loader.load("participant_sdk")
    loader.resolve_aliases()
    lines = [line for module in PUBLIC_MODULES for line in _module(module, loader.modules_collection[module])]
    return "\n".join(lines) + "\n"


def _module(path: str, module: griffe.Object | griffe.Alias) -> Iterator[str]:
    for name in sorted(str(each) for each in module.exports or []):
        yield from _lines(f"{path}.{name}", module[name])


def _lines(path: str, found: griffe.Object | griffe.Alias) -> Iterator[str]:
    found = found.final_target if isinstance(found, griffe.Alias) else found
    match found:
        case griffe.Class():
            yield f"class {path}{_bases(found)}"
            for name, member in sorted(found.all_members.items()):
                if not name.startswith("_") or name in _SEEN_OF_MAGIC:
                    yield from _lines(f"{path}.{name}", member)
        case griffe.Function():
            for overload in found.overloads or [found]:
                yield f"{_kind(found)} {path}{_signature(overload)}"
        case griffe.Attribute():
            kind = "property" if "property" in found.labels else "constant" if found.value and found.name.isupper() else "attribute"
            said = f": {found.annotation}" if found.annotation else f" = {found.value}" if kind == "constant" else ""
            yield f"{kind} {path}{said}"
        case _:
            yield f"{found.kind.value} {path}"


def _bases(found: griffe.Class) -> str:
    bases = ", ".join(str(base) for base in found.bases)
    return f"({bases})" if bases else ""


def _kind(function: griffe.Function) -> str:
    """Such as "async classmethod"."""
    kind = next((label for label in ("classmethod", "staticmethod", "property") if label in function.labels), "def")
    return f"async {kind}" if "async" in function.labels else kind


def _signature(function: griffe.Function) -> str:
    parts: list[str] = []
    before: griffe.ParameterKind | None = None
    for parameter in function.parameters:
        if parameter.name in {"self", "cls"}:
            continue
        if before is griffe.ParameterKind.positional_only and parameter.kind is not before:
            parts.append("/")
        is_first_keyword = parameter.kind is griffe.ParameterKind.keyword_only and before not in {
            parameter.kind,
            griffe.ParameterKind.var_positional,
        }
        if is_first_keyword:
            parts.append("*")
        parts.append(_parameter(parameter))
        before = parameter.kind
    return f"({', '.join(parts)}) -> {function.returns or '?'}"


def _parameter(parameter: griffe.Parameter) -> str:
    stars = _STARS.get(parameter.kind, "") if parameter.kind else ""
    annotation = f": {parameter.annotation}" if parameter.annotation else ""
    default = "" if stars or parameter.default is None else f" = {parameter.default}"
    return f"{stars}{parameter.name}{annotation}{default}"
