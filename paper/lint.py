"""Find numbers that are written by hand in the paper's sources: `python paper/lint.py`.

Prose holds no decimal, no percentage, no number of more than one digit and none with a unit: what
is a result comes from `result`, what is a parameter from `setting`. The files in `typst/` may hold
lengths. Only `typst/results.typ` reads files, and only files in `typst/` make texts of numbers.

What a claim of `claims.yaml` says holds no decimal and no share but those of its own relation, so
that the sentence says what is checked. The texts of the figure scripts hold such numbers
only through format fields.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

PAPER = Path(__file__).parent
READER = "typst/results.typ"
# A number with its unit, power of ten or per cent sign; a whole number not behind a letter or its
# hyphen.
NUMBER = re.compile(
    r"(?:(?<![\w.])(?<!\w-)(?:\d+(?:[.,]\d+)*|\.\d+)|(?<![\d.])\d+\.\d+)(?:e[-+−]?\d+)?"
    r"(?:\s?%|\s?per\s?cent|[^\W\d_]{1,3})?(?!\w)"
)
# A decimal, or a share, whose per cent sign is the second group.
PRECISE = re.compile(
    r"(?<![\w.,])[-+−]?((?:\d+\.\d+|\.\d+)|\d+(?=\s?%|\s?per\s?cent))(\s?%|\s?per\s?cent)?"
)
LENGTH = re.compile(r"(?<![\w.])\d+(?:\.\d+)?(?:pt|cm|mm|em|fr)(?!\w)")
READS = re.compile(r"\b(?:csv|json|yaml|toml|xml|cbor|read)\(")
# A number that a sentence would compute.
COMPUTED = re.compile(r"\bcalc\.|\bstr\(|\d\s*/\s*\d")
MAKERS = re.compile(r"\b(?:shown|format|value-of|value-at|row-of|rows|load|reduced)\(")
# What is a number and no result: what code in typst/ counts and how wide it sets.
ALLOWED = {
    READER: {"10", "40", "100", "0.5", "10.0", "1.0", "200b"},
    "typst/style.typ": {"1.1", "84%"},
    "typst/tables.typ": {"85%", "60%"},
}


def without_comments(line: str) -> str:
    """Return a line up to its comment; the slashes of a URL begin none."""
    return re.sub(r"(?<!:)//.*", "", line)


def faults(name: str, text: str) -> Iterator[str]:
    """Yield the faults of one Typst source, `name` relative to `paper/`, with their lines."""
    code = name.startswith("typst/")
    for number, line in enumerate(text.splitlines(), 1):
        line = without_comments(line)
        place = f"paper/{name}:{number}"
        if name != READER and READS.search(line):
            yield f"{place}: only {READER} reads files"
        if not code and (found := MAKERS.search(line)):
            yield f"{place}: {found[0]}...) belongs into typst/; sentences use result(...)"
        if not code and (found := COMPUTED.search(line)):
            yield f"{place}: {found[0]} computes a number; sentences use result(...)"
        if not code and re.search(r"[)\]];(?:\s|$)", line):
            yield f"{place}: Typst swallows a semicolon behind an expression; write \\;"
        if code:
            line = LENGTH.sub("", line)
        for found in NUMBER.findall(line):
            if len(found) > 1 and found not in ALLOWED.get(name, set()):
                yield f"{place}: {found} is written by hand; use result(...) or setting(...)"


def claim_faults(claim: Mapping[str, Any]) -> Iterator[str]:
    """Yield the decimals and shares that a claim says and its relation does not hold."""
    held = list(_numbers(claim.get("holds", {})))
    for found in PRECISE.finditer(claim["says"]):
        value = float(found[1]) / (100 if found[2] else 1)
        if not any(abs(value - number) < 1e-12 for number in held):
            yield (
                f"paper/claims.yaml: {claim['name']} says {found[0].strip()}, which is no number "
                "of its relation; give it there or say it in words"
            )


def _numbers(value: Any) -> Iterator[float]:
    """Yield the magnitudes of all numbers in a relation, however deep."""
    if isinstance(value, Mapping):
        value = list(value.values())
    if isinstance(value, list):
        for part in value:
            yield from _numbers(part)
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield abs(float(value))


def script_faults(name: str, source: str) -> Iterator[str]:
    """Yield the numbers in the texts of a figure script, `name` relative to `paper/`.

    A text is a string of several words or with format fields, but no docstring and no format.
    """
    tree = ast.parse(source)
    nodes = list(ast.walk(tree))
    fields = [node for node in nodes if isinstance(node, ast.FormattedValue)]
    formats = [
        part for field in fields if field.format_spec for part in ast.walk(field.format_spec)
    ]
    alone = [node.value for node in nodes if isinstance(node, ast.Expr)]
    skipped = {id(node) for node in (*formats, *alone)}
    joined = [part for node in nodes if isinstance(node, ast.JoinedStr) for part in node.values]
    parts = {id(part) for part in joined}
    for node in nodes:
        if not isinstance(node, ast.Constant) or id(node) in skipped:
            continue
        text = node.value
        if isinstance(text, str) and (id(node) in parts or re.search(r"\s", text.strip())):
            for found in NUMBER.findall(text):
                if len(found) > 1:
                    place = f"paper/{name}:{node.lineno}"
                    yield f"{place}: {found} is written by hand; use a format field"
    for field in fields:
        if isinstance(field.value, ast.Constant):
            yield f"paper/{name}:{field.lineno}: a format field holds a number written by hand"


def sources() -> list[Path]:
    """Return every Typst source of the paper."""
    return sorted(PAPER.rglob("*.typ"))


def scripts() -> list[Path]:
    """Return every script that draws figures."""
    return sorted((PAPER / "scripts").glob("*.py"))


def claims() -> list[dict[str, Any]]:
    """Return every claim of the paper."""
    text = (PAPER / "claims.yaml").read_text(encoding="utf-8")
    return YAML(typ="safe").load(text)["claims"]


def _read(path: Path) -> tuple[str, str]:
    return path.relative_to(PAPER).as_posix(), path.read_text(encoding="utf-8")


def main() -> int:
    """Print all faults and return the exit code, 1 where there is one."""
    found = [
        *(fault for path in sources() for fault in faults(*_read(path))),
        *(fault for path in scripts() for fault in script_faults(*_read(path))),
        *(fault for claim in claims() for fault in claim_faults(claim)),
    ]
    print(*found, sep="\n", end="\n" if found else "")
    return bool(found)


if __name__ == "__main__":
    sys.exit(main())
