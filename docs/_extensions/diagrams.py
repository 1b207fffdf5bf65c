"""Mermaid diagrams, drawn in the reader's browser by a script that lies beside the pages: nothing is asked of another host.

`make docs` puts the script into build/mermaid. Without it the pages show the text of the diagrams.
"""

from pathlib import Path
from typing import Any, Final

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

SCRIPT: Final = Path(__file__).parent.parent.parent / "build" / "mermaid" / "mermaid.min.js"


class Mermaid(SphinxDirective):
    """A fenced block of the language `mermaid`."""

    has_content = True

    def run(self) -> list[nodes.Node]:
        """The text of the diagram, in what the script looks for."""
        text = nodes.Text("\n".join(self.content)).astext()
        escaped = text.replace("&", "&amp;").replace("<", "&lt;")
        return [nodes.raw("", f'<pre class="mermaid">{escaped}</pre>', format="html")]


def setup(app: Sphinx) -> dict[str, bool]:
    """Called by Sphinx."""
    app.add_directive("mermaid", Mermaid)
    app.connect("config-inited", _configure)
    app.connect("html-page-context", _add_scripts)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def _configure(_app: Sphinx, config: Any) -> None:
    config.myst_fence_as_directive = {"mermaid"}
    if SCRIPT.exists():
        config.html_static_path = [*config.html_static_path, str(SCRIPT)]


def _add_scripts(app: Sphinx, _page: str, _template: str, _context: dict[str, Any], doctree: nodes.document | None) -> None:
    """Only pages with a diagram load three megabytes for it."""
    if doctree is None or not SCRIPT.exists():
        return
    if any("mermaid" in raw.astext()[:24] for raw in doctree.findall(nodes.raw)):
        app.add_js_file(SCRIPT.name)
        app.add_js_file("diagrams.js")
