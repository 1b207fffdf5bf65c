"""The reference of one public module, for Sphinx to fill in from docstrings: what its `__all__` names, in groups."""

import importlib
import inspect
import sys
from collections.abc import Iterator
from functools import cache
from typing import Final, Generic, Protocol

from public_modules import PUBLIC_MODULES
from sphinx.errors import ExtensionError
from sphinx.pycode import ModuleAnalyzer

_GROUPS: Final = {
    "Participants": ("participant_sdk.",),
    "Payloads": ("participant_sdk.payloads.",),
    "Barriers": ("participant_sdk.barrier.",),
    "Definitions": ("participant_sdk.builder.", "participant_sdk.policies"),
    "Starting and following sagas": ("participant_sdk.client.", "participant_sdk.ids"),
    "Errors": (),
}
"""Of `participant_sdk`, which has many names: by where they are defined, the longest beginning counts. Errors are by themselves."""


def module_reference(module: str) -> str:
    """Markdown with directives of autodoc."""
    if module not in PUBLIC_MODULES:
        raise ExtensionError(f"{module} is not one of the public modules, which are {', '.join(PUBLIC_MODULES)}")
    found = importlib.import_module(module)
    names = {name: getattr(found, name) for name in found.__all__}
    if module != "participant_sdk":
        return "\n".join(_directives(module, names))
    parts = []
    for group in _GROUPS:
        members = {name: member for name, member in names.items() if _group_of(member) == group}
        parts += [f"## {group}", "", *_directives(module, members)]
    return "\n".join(parts)


def _group_of(member: object) -> str:
    if isinstance(member, type) and issubclass(member, Exception):
        return "Errors"
    origin = getattr(member, "__module__", "participant_sdk.")
    fitting = {len(start): group for group, starts in _GROUPS.items() for start in starts if origin.startswith(start)}
    return fitting[max(fitting)] if fitting else "Payloads"  # the one name for several types


def _constant(path: str, name: str, member: object) -> Iterator[str]:
    """With what stands below it where it is defined; autodoc would show the docstring of its type."""
    yield from (f".. py:data:: {path}", "", *(f"   {line}" for line in _text_below(name, member)), "")


def _text_below(name: str, member: object) -> list[str]:
    for module in [each for each in sys.modules if each.startswith("participant_sdk")]:
        if vars(sys.modules[module]).get(name) is member:
            text = ModuleAnalyzer.for_module(module).find_attr_docs().get(("", name))
            if text is not None:
                return text
    return []


def _inheritance(of: type) -> list[str]:
    """What a private base of ours gives is shown as the class's own; public bases and those of the language are named."""
    public = {member for name in PUBLIC_MODULES for member in _members(name)}
    private = [base for base in of.__mro__[1:] if base.__module__.startswith("participant_sdk") and base not in public]
    left_out = ", ".join(base.__name__ for base in of.__mro__[1:] if base not in private)
    bases = [base for base in of.__bases__ if base not in private and base not in {object, Generic, Protocol}]
    return [*(["   :show-inheritance:"] if bases else []), *([f"   :inherited-members: {left_out}"] if private else [])]


@cache
def _members(module: str) -> frozenset[object]:
    found = importlib.import_module(module)
    return frozenset(member for name in found.__all__ if isinstance(member := getattr(found, name), type))


def _directives(module: str, members: dict[str, object]) -> Iterator[str]:
    yield "```{eval-rst}"
    for name, member in members.items():
        match member:
            case type():
                kind, options = "class", ["   :members:", "   :undoc-members:", *_inheritance(member)]
            case _ if inspect.isroutine(member):
                kind, options = "function", []
            case _:
                yield from _constant(f"{module}.{name}", name, member)
                continue
        yield f".. auto{kind}:: {module}.{name}"
        yield from options
        yield ""
    yield "```"
    yield ""
