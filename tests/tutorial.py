"""A page of the documentation, done as a reader does it: files written, commands typed into one shell, what is printed compared."""

import contextlib
import os
import re
import signal
import subprocess
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_BLOCK: Final = re.compile(r"(?:<!-- (?P<note>[^>]*?) -->\n)?```(?P<language>\w+)\n(?P<text>.*?)```", re.DOTALL)
_MARK: Final = "=== what comes next in the page is number "


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """A fenced block of the page."""

    language: str
    text: str
    note: str
    """What the HTML comment before it says, or nothing."""

    @property
    def file(self) -> str | None:
        """The name of the file that the reader makes of it."""
        return self.note.removeprefix("file: ") if self.note.startswith("file: ") else None

    @property
    def is_run(self) -> bool:
        """Whether it is typed into the shell."""
        return self.language == "sh" and not self.note.startswith("not run")


def blocks_of(page: Path) -> list[Block]:
    """In their order."""
    return [Block(language=each["language"], text=each["text"], note=each["note"] or "") for each in _BLOCK.finditer(page.read_text())]


def follow(page: Path, folder: Path, environment: Mapping[str, str], *, time_limit_s: float) -> None:
    """Does all that the page says, in that folder. Fails at the first command that fails, and where what is printed is not what is shown.

    A `text` block shows what the block before it prints last.
    Notes of its own go into the parent of the folder. What the commands leave in the background is ended.
    """
    blocks, printed = blocks_of(page), folder.parent / "printed.txt"
    script = folder.parent / "reader.sh"
    script.write_text("\n".join(_script(blocks)))
    with printed.open("wb") as out, (folder.parent / "errors.txt").open("wb") as errors:
        reader = subprocess.Popen(["bash", str(script)], cwd=folder, env=environment, stdout=out, stderr=errors, start_new_session=True)
        try:
            code = reader.wait(time_limit_s)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(reader.pid, signal.SIGKILL)
    assert code == 0, _everything(folder)
    printed_by = re.split(f"^{_MARK}\\d+\n", printed.read_text(), flags=re.MULTILINE)[1:]
    for before, block in zip(printed_by, blocks[1:], strict=False):
        if block.language == "text":
            wanted = block.text.splitlines()
            assert before.splitlines()[-len(wanted) :] == wanted, _everything(folder)


def _script(blocks: Iterable[Block]) -> Iterator[str]:
    """One shell for all of it, which says which block it comes to."""
    yield "set -e"
    for number, block in enumerate(blocks):
        yield f"echo '{_MARK}{number}'"
        if block.file is not None:
            yield f"cat > {block.file} <<'END OF {block.file}'\n{block.text}END OF {block.file}"
        elif block.is_run:
            yield block.text


def _everything(folder: Path) -> str:
    files = [folder.parent / "printed.txt", folder.parent / "errors.txt", *sorted(folder.glob("*.log"))]
    return "\n".join(f"--- {file.name}\n{file.read_text()[-4000:]}" for file in files)
