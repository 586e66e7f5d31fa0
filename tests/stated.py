"""The numbers in README and docs/ that state results, and where each comes from.

A comment behind a paragraph, an item of a list or a table says, in the order of reading, what every
number before it is:

    <!-- states
    contrasts difference a=native b=sae
    compute parameters name=sparse / compute parameters name=dense
    max layers cost kind=model name=dense|sparse
    count means explanation=shuffled at_chance=True
    params model.num_layers
    reduced/contrasts difference@seeds a=native b=sae
    by hand
    -->

A table without a folder is of the default; `smollm2/judge` is of another experiment. Behind `@`
stands what an interval is over where it is not over latents. Where an
address does not say which scorer, layers or seed, it means the rows of `USUAL`. A number is
compared as it is printed: with its decimals, its sign, its interval, in per cent or in millions.
Times and sizes in bytes are measured, not results, and have no address.

`python tests/stated.py --write` puts what the tables say into the pages.
"""

from __future__ import annotations

import csv
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import reduce
from operator import getitem
from pathlib import Path

from clearnets.config import read_yaml

ROOT = Path(__file__).parents[1]
USUAL = {
    "scorer": "rule-detection",
    "measure": "balanced_accuracy",
    "explanation": "own",
    "layers": "all",
    "latents": "explained",
    "matching": "none",
    "seed": "all",
    "rate_low": "",
}
COMMENT = re.compile(r"\s*<!-- states\n(.*?)-->", re.S)
NUMBER = re.compile(r"(?<![\w.-])[+−]?\d[\d,]*(?:\.\d+)?(?:\s+\[[+−\d][^\]]*\])?(?: %| M\b)?")
PARTS = re.compile(r"([+−]?)[\d,]+(?:\.(\d+))?(?:\s+\[(.*)\])?( %| M)?", re.S)
MEASURED = re.compile(r" (?:s|min|h|MB|GB)\b")
# What is no prose: code, the targets of links, tags.
MASKED = re.compile(r"^```.*?^```$|`[^`]*`|\]\([^)]*\)|<!--.*?-->", re.S | re.M)

Row = dict[str, str]


@dataclass(frozen=True)
class Statement:
    """A number of a page: where it stands, what it says, and its address."""

    start: int
    shown: str
    address: str


def statements(page: str) -> Iterator[Statement]:
    """The numbers of a page that have addresses.

    Raises:
        ValueError: a comment has not as many addresses as there are numbers before it.
    """
    prose = masked(page)
    for comment in COMMENT.finditer(page):
        start = _start(page, comment.start())
        numbers = _numbers(prose, start, comment.start())
        addresses = [line.strip() for line in comment[1].strip().splitlines()]
        if len(numbers) != len(addresses):
            shown = ", ".join(number[0] for number in numbers)
            raise ValueError(
                f"{len(addresses)} addresses for {len(numbers)} numbers ({shown}) before:"
                f"{comment[0]}"
            )
        for number, address in zip(numbers, addresses, strict=True):
            yield Statement(number.start(), number[0], address)


def unstated(page: str) -> list[str]:
    """The numbers of a page that have no address."""
    stated = {statement.start for statement in statements(page)}
    numbers = _numbers(masked(page), 0, len(page))
    return [number[0] for number in numbers if number.start() not in stated]


def masked(page: str) -> str:
    """A page with spaces in the place of what is no prose."""
    return MASKED.sub(lambda found: " " * len(found[0]), page)


def _numbers(prose: str, start: int, end: int) -> list[re.Match[str]]:
    found = NUMBER.finditer(prose, start, end)
    return [number for number in found if not MEASURED.match(prose, number.end())]


def _start(page: str, end: int) -> int:
    """Where the paragraph, item or table begins that ends at `end`."""
    starts = (page.rfind(mark, 0, end) for mark in ("\n\n", "\n- ", "-->\n"))
    return max(0, *starts)


def wanted(statement: Statement, results: Path) -> str:
    """What a number has to be, printed as it is.

    Raises:
        ValueError: there is no such table, column or row, or not one.
    """
    if statement.address == "by hand":
        return statement.shown
    number = PARTS.fullmatch(statement.shown)
    if number is None:
        raise ValueError(f"{statement.shown} is not a number with an interval")
    sign, decimals, interval, unit = number.groups()
    scale = {" %": 100.0, " M": 1e-6, None: 1.0}[unit]

    def printed(value: float) -> str:
        signed = "+" if sign else ""
        return f"{value * scale:{signed},.{len(decimals or '')}f}".replace("-", "−")

    value, ends = read(statement.address, results)
    text = printed(value)
    if interval is not None:
        if ends is None:
            raise ValueError(f"{statement.address} has no interval")
        text += f" [{printed(ends[0])}, {printed(ends[1])}]"
    return text + (unit or "")


def read(address: str, results: Path) -> tuple[float, tuple[float, float] | None]:
    """The number at an address, and the ends of its interval where it has one.

    Raises:
        ValueError: there is no such table, column, row or parameter, or not one.
    """
    try:
        return _read(address, results)
    except (KeyError, OSError) as error:
        raise ValueError(f"{address}: there is no {error}") from error


def _read(address: str, results: Path) -> tuple[float, tuple[float, float] | None]:
    if " / " in address:
        above, below = (_read(part, results)[0] for part in address.split(" / "))
        return above / below, None
    how, _, rest = address.partition(" ")
    if how == "params":
        return float(reduce(getitem, rest.split("."), read_yaml(ROOT / "params.yaml"))), None
    if how == "count":
        table, *where = rest.split()
        return float(len(_rows(table, where, results))), None
    if how in ("min", "max"):
        table, column, *where = rest.split()
        values = [float(row[column]) for row in _rows(table, where, results)]
        return {"min": min, "max": max}[how](values), None
    table, at, *where = address.split()
    rows = _rows(table, where, results)
    if len(rows) != 1:
        raise ValueError(f"{address}: {len(rows)} rows, not one")
    column, _, level = at.partition("@")
    return float(rows[0][column]), _ends(rows[0], column, level)


def _rows(table: str, where: list[str], results: Path) -> list[Row]:
    name = table if "/" in table else f"default/{table}"
    with (results / f"{name}.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    given = dict(condition.split("=") for condition in where)
    usual = {
        column: value
        for column, value in USUAL.items()
        if column not in given and any(row.get(column) == value for row in rows)
    }
    conditions = {column: value.split("|") for column, value in (usual | given).items()}
    return [row for row in rows if all(row[key] in values for key, values in conditions.items())]


def _ends(row: Row, column: str, level: str) -> tuple[float, float] | None:
    own = (f"{column}_low", f"{column}_high")
    names = own if own[0] in row else ("low", "high")
    low, high = (row.get(f"{name}_{level}" if level else name, "") for name in names)
    return (float(low), float(high)) if low and high else None


def wrong(page: str, results: Path) -> list[tuple[Statement, str]]:
    """The numbers of a page that the tables do not have, with what they have."""
    pairs = ((statement, wanted(statement, results)) for statement in statements(page))
    return [(said, right) for said, right in pairs if said.shown.split() != right.split()]


def corrected(page: str, results: Path) -> str:
    """A page with the numbers that the tables have."""
    for statement, right in reversed(wrong(page, results)):
        end = statement.start + len(statement.shown)
        page = page[: statement.start] + right + page[end:]
    return page


def pages() -> list[Path]:
    """README and docs/."""
    return [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def main() -> None:
    """Print, or with --write mend, the numbers that the tables do not have."""
    results = ROOT / "paper/results"
    for path in pages():
        page = path.read_text(encoding="utf-8")
        for statement, right in wrong(page, results):
            print(f"{path.relative_to(ROOT)}: {statement.shown} → {right} ({statement.address})")
        if "--write" in sys.argv:
            path.write_text(corrected(page, results), encoding="utf-8")


if __name__ == "__main__":
    main()
