"""Docstrings are prose with code between backticks; this makes reStructuredText of what Sphinx would take for markup of its own."""

import re
from collections.abc import Iterator
from typing import Any, Final

from sphinx.application import Sphinx

_CODE: Final = re.compile(r"(`[^`\n]+`)")
_MARKUP: Final = re.compile(r"\*\S[^*\n]*\S\*(?!\w)|(?<=\w)_(?!\w)|[*|]")


def setup(app: Sphinx) -> dict[str, bool]:
    """Called by Sphinx."""
    app.connect("autodoc-process-docstring", _process)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def _process(_app: Sphinx, _kind: str, _name: str, _object: Any, _options: Any, lines: list[str]) -> None:
    lines[:] = list(_blocks(lines))


def _blocks(lines: list[str]) -> Iterator[str]:
    """Lines that are indented after a line that ends in a colon are code, with or without an empty line between."""
    is_code, announced = False, False
    for line in lines:
        is_indented = line.startswith("    ")
        if is_indented and announced and not is_code:
            is_code = True
            yield from ("", ".. code-block:: python", "")
        elif line.strip() and not is_indented:
            if is_code:
                yield ""
            is_code = False
        if line.strip():
            announced = is_code or line.rstrip().endswith(":")
        yield line if is_code else _line(line)


def _line(line: str) -> str:
    """Code is code also where letters follow, as in `Participant`s; a lone star or bar is itself."""
    parts = _CODE.split(line)
    prose = [_MARKUP.sub(lambda found: found[0] if len(found[0]) > 1 else f"\\{found[0]}", part) for part in parts[::2]]
    prose[1:] = [f"\\ {part}" if part[:1].isalnum() else part for part in prose[1:]]
    parts[::2] = prose
    return "".join(parts)
