"""Parts of pages that stand elsewhere in the repository: the changelog, the titles of the decisions, the settings."""

import ast
import dataclasses
import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from coordinator import settings

ROOT: Final = Path(__file__).parent.parent.parent


def changelog() -> str:
    """The changelog, with its links as they are from docs/."""
    return re.sub(r"\]\((?![a-z]+:|#)(?:docs/|(?=[^)]))", lambda link: "](" if link[0].endswith("docs/") else "](../", (ROOT / "CHANGELOG.md").read_text())


def decisions() -> str:
    """A list with a link to each."""
    titles = [(page.name, page.read_text().partition("\n")[0].removeprefix("# ")) for page in sorted((ROOT / "docs/decisions").glob("0*.md"))]
    return "\n".join(f"- [{title}]({name})" for name, title in titles)


def settings_reference() -> str:
    """Markdown: what can be told about a coordinator, and about one participant of it."""
    return "\n".join([*_table(settings.Settings), "\n## Of one participant\n\nIn the file, in a table `[participants.NAME]`.\n", *_table(settings.ParticipantSettings)])


def _table(of: type) -> Iterator[str]:
    meanings = dict(_meanings(of))
    yield "| Name | Default | |\n|---|---|---|"
    for field in dataclasses.fields(of):
        default = "" if field.default in (dataclasses.MISSING, None, "") else f"`{field.default}`"
        yield f"| `{field.name}` | {default} | {' '.join(meanings[field.name].split())} |"


def _meanings(of: type) -> Iterator[tuple[str, str]]:
    """The string after each field."""
    (body,) = ast.parse(inspect.getsource(of)).body
    assert isinstance(body, ast.ClassDef)
    for field, text in zip(body.body, body.body[1:], strict=False):
        match field, text:
            case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(meaning))):
                yield name, meaning
