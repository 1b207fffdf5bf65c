"""Sphinx: how the Markdown of this folder becomes the site. `make docs` builds it into build/docs, with warnings as errors.

The pages are plain Markdown that a forge shows as well; what only the site has, stands in HTML comments (see _extensions/page_comments.py).
"""

import sys
from importlib.metadata import version as version_of
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE / "_extensions"), str(HERE.parent), str(HERE.parent / "protos")]

project = "saga-coordinator"
author = "the authors of saga-coordinator"
release = version_of("saga-coordinator")
version = release

extensions = ["myst_parser", "sphinx.ext.autodoc", "docstrings", "page_comments", "diagrams", "outside_links"]
root_doc = "index"
exclude_patterns = ["_extensions"]
nitpicky = False  # types of other packages are named in signatures, and their documentation is not here to be asked

myst_enable_extensions = ["attrs_inline", "deflist"]
myst_heading_anchors = 4

smartquotes = False  # --options are no dashes

# Docstrings write code between single backticks.
default_role = "code"
autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
autodoc_class_signature = "mixed"
autodoc_preserve_defaults = True
autodoc_inherit_docstrings = False  # those of other packages are not ours to mend
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 100
add_module_names = False
toc_object_entries_show_parents = "hide"

_COLOURED = ("color-brand-primary", "color-brand-content", "color-brand-visited", "color-api-name", "color-api-pre-name")
html_theme = "furo"
html_title = f"saga-coordinator {release}"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_sphinx = False
html_show_copyright = False
html_theme_options = {
    "light_css_variables": dict.fromkeys(_COLOURED, "#0b6f68"),
    "dark_css_variables": dict.fromkeys(_COLOURED, "#5ad1c5"),
}
pygments_style = "friendly"
pygments_dark_style = "github-dark"
