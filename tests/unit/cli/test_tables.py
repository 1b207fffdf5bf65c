"""Tables that a narrow terminal can show: nothing is cut off, and nothing loses its meaning."""

from rich.console import Console
from rich.text import Text

from coordinator.cli.tables import AdaptiveTable, Column

SAGA_ID = "0190163d-8694-739b-aea5-966c26f8ad90"


def _drawn(width: int) -> list[str]:
    table = AdaptiveTable(
        Column(title="id", is_whole=True),
        Column(title="waiting", is_titled=True),
        Column(title="empty", is_titled=True),
        Column(title="why"),
    )
    table.add_row(Text(SAGA_ID), Text("7"), Text(""), Text("the participant is away"))
    console = Console(width=width, no_color=True)
    with console.capture() as captured:
        console.print(table)
    return [line.rstrip() for line in captured.get().splitlines()]


def test_wide_terminal_has_columns_with_titles() -> None:
    titles, row = _drawn(120)
    assert titles.split() == ["id", "waiting", "empty", "why"]
    assert row.split() == [SAGA_ID, "7", "the", "participant", "is", "away"]


def test_narrow_terminal_keeps_the_id_whole_and_titles_what_needs_it() -> None:
    first, second = _drawn(60)
    assert first.startswith(f"{SAGA_ID}  waiting 7  the")
    assert "empty" not in first + second
    assert second == " " * 38 + "participant is away"
