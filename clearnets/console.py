"""Tables on the terminal: ruled and coloured where someone looks, plain where a program reads."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence


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
