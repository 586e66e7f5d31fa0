"""No result in the manuscript but through its one door: `python paper/lint.py` tells what slips by.

Prose holds no decimal, no percentage, no number of more than one digit and none with a unit: what
is a result comes from `result`, what is a parameter from `setting`. The files in `typst/` may hold
lengths. Only `typst/results.typ` reads files, and only files in `typst/` make texts of numbers.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

PAPER = Path(__file__).parent
DOOR = "typst/results.typ"
# With what makes it no word: a unit, a power of ten, a per cent; not behind a letter or its hyphen.
NUMBER = re.compile(
    r"(?<![\w.])(?<!\w-)(?:\d+(?:[.,]\d+)*|\.\d+)(?:e[-+−]?\d+)?"
    r"(?:\s?%|\s?per cent|[^\W\d_]{1,3})?(?!\w)"
)
LENGTH = re.compile(r"(?<![\w.])\d+(?:\.\d+)?(?:pt|cm|mm|em|fr)(?!\w)")
READERS = re.compile(r"\b(?:csv|json|yaml|toml|xml|cbor|read)\(")
MAKERS = re.compile(r"\b(?:shown|format|value-of|value-at|row-of|rows|load|reduced)\(")
# What is a number and no result: what code in typst/ counts and how wide it sets.
ALLOWED = {
    DOOR: {"10", "40", "100", "0.5", "10.0", "1.0", "200b"},
    "typst/style.typ": {"1.1", "84%"},
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
