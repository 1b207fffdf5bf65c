"""Tables that can be read on a narrow terminal too: a saga id alone is half as wide as one."""

from dataclasses import dataclass
from typing import Final

from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Table
from rich.text import Text

WIDE_FROM_COLUMNS: Final = 110


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """One column."""

    title: str
    is_whole: bool = False
    """Whether its cells must not be wrapped."""
    is_titled: bool = False
    """Whether its cells need the title to be understood, when there are no columns."""


class AdaptiveTable:
    """Columns on a wide terminal; on a narrow one the first column, and beside it all other cells in one text."""

    def __init__(self, *columns: Column) -> None:
        self._columns: Final = columns
        self._rows: Final[list[tuple[Text, ...]]] = []

    @property
    def row_count(self) -> int:
        """Rows that were added."""
        return len(self._rows)

    def add_row(self, *cells: Text) -> None:
        """Adds a row: one cell per column."""
        self._rows.append(cells)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield self._wide() if options.max_width >= WIDE_FROM_COLUMNS else self._narrow()

    def _wide(self) -> Table:
        table = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 1))
        for column in self._columns:
            table.add_column(column.title, no_wrap=column.is_whole, overflow="fold")
        for row in self._rows:
            table.add_row(*row)
        return table

    def _narrow(self) -> Table:
        table = Table(box=None, pad_edge=False, show_header=False, padding=(0, 1))
        table.add_column(no_wrap=True)
        table.add_column(overflow="fold")
        for first, *others in self._rows:
            cells = [self._titled(column, cell) for column, cell in zip(self._columns[1:], others, strict=True) if cell.plain]
            table.add_row(first, Text("  ").join(cells))
        return table

    def _titled(self, column: Column, cell: Text) -> Text:
        return Text.assemble((f"{column.title} ", "dim"), cell) if column.is_titled else cell
