"""Print tables: with rules and colours on a terminal, as plain lines into a pipe."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence

# So many of a list are named before the others are counted.
NAMED = 3


def first_of(names: Sequence[str]) -> str:
    """Return the first few names, and how many more there are."""
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(names[:NAMED]) + more


def print_table(
    header: Sequence[str], rows: Sequence[Sequence[str]], *, styles: Mapping[str, str] | None = None
) -> None:
    """Print rows under a header; `styles` colours cells by their text.

    In a pipe a line is a row, its cells set apart by tabs, and nothing is cut or folded.
    """
    if not sys.stdout.isatty():
        for row in (header, *rows):
            print(*(" ".join(cell.split()) for cell in row), sep="\t")
        return
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name in header:
        table.add_column(name, overflow="fold")
    for row in rows:
        table.add_row(*(Text(cell, style=(styles or {}).get(cell, "")) for cell in row))
    Console().print(table)
