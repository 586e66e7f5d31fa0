"""Draw docs/show.svg, what `clearnets show transcoder 3 37` prints: `python docs/terminal.py`.

It reads the artifacts of a run of the default.
"""

from __future__ import annotations

import io
import re
from pathlib import Path

from rich._export_format import CONSOLE_SVG_FORMAT
from rich.console import Console

from clearnets import config
from clearnets.browser import terminal

FAMILY, LAYER, LATENT = "transcoder", "3", 37
OUT = Path(__file__).with_name("show.svg")


def main() -> None:
    """Write the picture."""
    view = terminal.look(config.load(), FAMILY, LAYER, LATENT, seed=None)
    console = Console(record=True, width=100, highlight=False, file=io.StringIO())
    for line in terminal.lines(view, 4, shades=True):
        console.print(line)
    # Fonts of the reader's system instead of some from the network.
    plain = re.sub(r"@font-face \{\{.*?\}\}\n", "", CONSOLE_SVG_FORMAT, flags=re.S)
    title = f"clearnets show {FAMILY} {LAYER} {LATENT}"
    svg = console.export_svg(title=title, code_format=plain, unique_id="show")
    lines = (line.rstrip() for line in svg.splitlines())
    OUT.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
