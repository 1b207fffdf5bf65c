"""Parts of pages that stand elsewhere in the repository: the changelog, the titles of the decisions, the settings."""

import ast
import dataclasses
import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from coordinator import settings

_LINK: Final = re.compile(r"\]\((?![a-z]+:|#)(docs/)?")

ROOT: Final = Path(__file__).parent.parent.parent


def changelog() -> str:
    """The changelog, with its links as they are from docs/."""
    return _LINK.sub(lambda link: "](" if link[1] else "](../", (ROOT / "CHANGELOG.md").read_text())


def decisions() -> str:
    """A list with a link to each."""
    pages = sorted((ROOT / "docs/decisions").glob("0*.md"))
    return "\n".join(f"- [{page.read_text().partition(chr(10))[0].removeprefix('# ')}]({page.name})" for page in pages)


def settings_reference() -> str:
    """Markdown: what can be told about a coordinator, and about one participant of it."""
    for_one = "\n## Of one participant\n\nIn the file, in a table `[participants.NAME]`.\n"
    return "\n".join([*_table(settings.Settings), for_one, *_table(settings.ParticipantSettings)])


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
