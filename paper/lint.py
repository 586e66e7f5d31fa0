"""No result in the manuscript but through its one door: `python paper/lint.py` tells what slips by.

Prose holds no decimal, no percentage and no number of more than one digit: what is a result comes
from `result`, what is a parameter from `setting`. The files in `typst/` may hold lengths. Only
`typst/results.typ` reads files, and only files in `typst/` make texts of numbers.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

PAPER = Path(__file__).parent
DOOR = "typst/results.typ"
NUMBER = re.compile(r"(?<![\w.-])\d+(?:\.\d+)?(?:\s?%|\s?per cent)?(?![\w])")
LENGTH = re.compile(r"\d+(?:\.\d+)?(?:pt|cm|mm|em|fr|%)")
READERS = re.compile(r"\b(?:csv|json|yaml|toml|xml|cbor|read)\(")
MAKERS = re.compile(r"\b(?:shown|format|value-of|value-at|row-of|rows|load|reduced)\(")
# What is a number and no result: the dimensions of code in typst/.
ALLOWED = {
    DOOR: {"40", "100", "0.5", "10.0", "1.0"},
    "typst/style.typ": {"1.1", "A.1"},
}


def without_comments(line: str) -> str:
    """A line up to its comment; addresses on the net are none."""
    return re.sub(r"(?<!:)//.*", "", line)


def faults(name: str, text: str) -> Iterator[str]:
    """What is wrong with one source, `name` relative to `paper/`, with its lines."""
    code = name.startswith("typst/")
    for number, line in enumerate(text.splitlines(), 1):
        line = without_comments(line)
        place = f"paper/{name}:{number}"
        if name != DOOR and READERS.search(line):
            yield f"{place}: only {DOOR} reads files"
        if not code and (found := MAKERS.search(line)):
            yield f"{place}: {found[0]}...) belongs into typst/; sentences use result(...)"
        if not code and re.search(r"[)\]];(?:\s|$)", line):
            yield f"{place}: Typst swallows a semicolon behind an expression; write \\;"
        if code:
            line = LENGTH.sub("", line)
        for found in NUMBER.findall(line):
            if len(found) > 1 and found not in ALLOWED.get(name, set()):
                yield f"{place}: {found} is written by hand; use result(...) or setting(...)"


def sources() -> list[Path]:
    """Every Typst source of the paper."""
    return sorted(PAPER.rglob("*.typ"))


def main() -> int:
    """Print all faults; 1 where there is one."""
    found = [
        fault
        for path in sources()
        for fault in faults(path.relative_to(PAPER).as_posix(), path.read_text(encoding="utf-8"))
    ]
    print(*found, sep="\n", end="\n" if found else "")
    return bool(found)


if __name__ == "__main__":
    sys.exit(main())
