"""What only the site has stands in HTML comments of the pages, so that a forge shows the same Markdown without it.

Each on lines of its own:

    <!-- toctree: caption of the section          the pages below this one, for the navigation; a caption is not needed,
    tutorial                                      a name may end in a star, and then match nothing
    how-to/*
    -->

    <!-- made by make docs: protos -->            a part that is made from the code, by one of `PARTS`
    <!-- file: order.py -->                       above a block of code: its caption
"""

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from command_reference import command_reference
from module_reference import module_reference
from proto_reference import proto_reference
from sphinx.application import Sphinx
from sphinx.errors import ExtensionError
from written_elsewhere import changelog, decisions, settings_reference

_TOCTREE: Final = re.compile(r"^<!-- toctree:(.*)\n((?:.+\n)+?)-->$", re.MULTILINE)
_FILE: Final = re.compile(r"^<!-- file: ([^>]+?) -->\n```(\w+)\n", re.MULTILINE)
_MADE: Final = re.compile(r"^<!-- made by make docs: (\S+)(?: (\S+))? -->$", re.MULTILINE)

PARTS: Final[Mapping[str, Callable[[str], str]]] = {
    "protos": lambda _: proto_reference(),
    "commands": lambda _: command_reference(),
    "settings": lambda _: settings_reference(),
    "decisions": lambda _: decisions(),
    "changelog": lambda _: changelog(),
    "module": module_reference,
}
"""By the first word of the comment; called with the second one, or with nothing."""


def setup(app: Sphinx) -> dict[str, bool]:
    """Called by Sphinx."""
    app.connect("source-read", _read)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def _read(app: Sphinx, page: str, source: list[str]) -> None:
    folder = (Path(app.srcdir) / page).parent
    source[0] = _FILE.sub(r"```{code-block} \2\n:caption: \1\n\n", source[0])
    source[0] = _MADE.sub(_made, _TOCTREE.sub(lambda comment: _toctree(comment, folder), source[0]))


def _toctree(comment: re.Match[str], folder: Path) -> str:
    caption = comment[1].strip()
    pages = [each for each in comment[2].splitlines() if "*" not in each or any(folder.glob(f"{each}.md"))]
    options = [":hidden:", ":glob:", *([f":caption: {caption}"] if caption else [])]
    return "\n".join(["```{toctree}", *options, "", *pages, "```"])


def _made(comment: re.Match[str]) -> str:
    part = PARTS.get(comment[1])
    if part is None:
        raise ExtensionError(f"expected one of {', '.join(PARTS)} after `made by make docs:`, found {comment[1]}")
    return part(comment[2] or "")
