"""Links of the pages to files that are not pages: on a forge they lead to the file, on the site they lead to a copy that is shown as text.

MyST makes a download of a link to a file outside of this folder; browsers save those whose kind they do not know. A copy that is called
….txt is shown.
"""

import re
from pathlib import Path
from typing import Any, Final

from sphinx.application import Sphinx

ROOT: Final = Path(__file__).parent.parent.parent
_LINK: Final = re.compile(r"\]\(((?:\.\./)+[^)#\s]+)(#[^)]*)?\)")
SCHEME: Final = "shown"
_FOLDER: Final = "_sources_shown"
_PAGES: Final = {"README.md": "index", "CHANGELOG.md": "changelog"}
"""What is shown as a page all the same."""


def setup(app: Sphinx) -> dict[str, bool]:
    """Called by Sphinx."""
    app.connect("config-inited", _know_scheme)
    app.connect("source-read", _read, priority=600)  # after page_comments, whose parts have links too
    return {"parallel_read_safe": False, "parallel_write_safe": True}


def _know_scheme(_app: Sphinx, config: Any) -> None:
    config.myst_url_schemes = {**dict.fromkeys(("http", "https", "mailto")), SCHEME: {"url": "{{path}}"}}


def _read(app: Sphinx, page: str, source: list[str]) -> None:
    here = (Path(app.srcdir) / page).parent

    def rewritten(link: re.Match[str]) -> str:
        target = (here / link[1]).resolve()
        if not target.is_relative_to(ROOT) or target.is_relative_to(app.srcdir) or not target.exists():
            return link[0]  # one of ours, or broken, which MyST says
        name = str(target.relative_to(ROOT))
        if name in _PAGES:
            return f"](/{_PAGES[name]}.md{link[2] or ''})"
        shown = Path(app.outdir) / _FOLDER / f"{name}.txt"
        shown.parent.mkdir(parents=True, exist_ok=True)
        shown.write_text(_text_of(target))
        up = "../" * page.count("/")
        return f"]({SCHEME}:{up}{_FOLDER}/{name}.txt)"

    source[0] = _LINK.sub(rewritten, source[0])


def _text_of(target: Path) -> str:
    """Of a folder: what it says of itself, or what is in it."""
    if target.is_file():
        return target.read_text()
    readme = target / "README.md"
    return readme.read_text() if readme.exists() else "\n".join(sorted(each.name for each in target.iterdir())) + "\n"
