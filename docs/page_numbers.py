"""Check the numbers of README and docs/ against the tables of results, or write them anew.

`docs/numbers.yaml` holds their addresses and explains them.

    python docs/page_numbers.py           # list the numbers that the tables do not have
    python docs/page_numbers.py --write   # put what the tables have into the pages
"""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

from pydantic import TypeAdapter

from clearnets import UserError
from clearnets.config import read_yaml, value_at
from clearnets.paper import addresses
from clearnets.paper.addresses import Address, Strict, Tables

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "docs/numbers.yaml"
HAND = "by hand"
NUMBER = re.compile(r"(?<![\w.-])[+−]?\d[\d,]*(?:\.\d+)?(?:\s+\[[+−\d][^\]]*\])?(?: %| M\b)?")
PARTS = re.compile(r"([+−]?)[\d,]+(?:\.(\d+))?(?:\s+\[(.*)\])?( %| M)?", re.S)
MEASURED = re.compile(r" (?:ms|s|min|h|MB|GB)\b")
# What is no prose: code, the targets of links, copied tables, tags.
MASKED = re.compile(
    r"^```.*?^```$|`[^`]*`|\]\([^)]*\)|<!-- paper/.*?<!-- end -->|<!--.*?-->", re.S | re.M
)


class Setting(Strict):
    """A parameter of the default experiment, by its dotted key."""

    setting: str


Source = Address | Setting | Literal["by hand"]
# By page and heading the sources of a section's numbers, in the order of reading.
Pages = dict[str, dict[str, list[Source]]]


class Number(NamedTuple):
    """A number of a page, as it is printed, and where it comes from."""

    start: int
    shown: str
    source: Source


def read(path: Path = SOURCE) -> Pages:
    """Read the sources of the numbers of all pages.

    Raises:
        ValidationError: something is no address.
    """
    return TypeAdapter(Pages).validate_python(read_yaml(path))


def numbers(page: str, sections: Mapping[str, Sequence[Source]]) -> list[Number]:
    """Return the numbers in the sections of a page.

    Raises:
        ValueError: there is no such section, or not as many addresses as it has numbers.
    """
    prose = MASKED.sub(lambda found: " " * len(found[0]), page)
    found = []
    for heading, sources in sections.items():
        title = re.search(rf"^#+ {re.escape(heading)}\n", page, re.M)
        if title is None:
            raise ValueError(f"there is no section {heading!r}")
        end = re.compile(r"^#+ ", re.M).search(prose, title.end())
        matches = NUMBER.finditer(prose, title.end(), end.start() if end else len(prose))
        shown = [match for match in matches if not MEASURED.match(prose, match.end())]
        if len(shown) != len(sources):
            texts = ", ".join(match[0] for match in shown)
            raise ValueError(
                f"{heading!r} has {len(sources)} addresses for {len(shown)} numbers: {texts}"
            )
        found += [Number(match.start(), match[0], source) for match, source in zip(shown, sources)]
    return found


def wanted(number: Number, tables: Tables) -> str:
    """Return what a number has to be, printed as it is.

    Raises:
        UserError: its address leads to no number.
        ValueError: there is no such setting, or no interval of a number that has one.
    """
    if number.source == HAND:
        return number.shown
    parts = PARTS.fullmatch(number.shown)
    if parts is None:
        raise ValueError(f"{number.shown} is no number with an interval")
    sign, decimals, interval, unit = parts.groups()
    scale = {" %": 100.0, " M": 1e-6, None: 1.0}[unit]

    def printed(value: float) -> str:
        signed = "+" if sign else ""
        return f"{value * scale:{signed},.{len(decimals or '')}f}".replace("-", "−")

    value, ends = _value(number.source, tables)
    text = printed(value)
    if interval is not None:
        if ends is None:
            raise ValueError(f"the tables have no interval for {number.shown}")
        text += f" [{printed(ends[0])}, {printed(ends[1])}]"
    return text + (unit or "")


def _value(source: Address | Setting, tables: Tables) -> tuple[float, tuple[float, float] | None]:
    if isinstance(source, Address):
        return addresses.value(tables, source)
    setting = value_at(read_yaml(ROOT / "params.yaml"), source.setting)
    if setting is None:
        raise ValueError(f"params.yaml has no {source.setting}")
    return float(setting), None


def wrong(
    page: str, sections: Mapping[str, Sequence[Source]], tables: Tables
) -> list[tuple[Number, str]]:
    """Return the numbers of a page that the tables do not have, with what they have."""
    pairs = ((number, wanted(number, tables)) for number in numbers(page, sections))
    return [(number, right) for number, right in pairs if number.shown.split() != right.split()]


def corrected(page: str, sections: Mapping[str, Sequence[Source]], tables: Tables) -> str:
    """Return a page with the numbers that the tables have."""
    for number, right in sorted(wrong(page, sections, tables), reverse=True):
        page = page[: number.start] + right + page[number.start + len(number.shown) :]
    return page


def main() -> None:
    """Print, or with --write put right, the numbers that the tables do not have."""
    tables = addresses.tables_in(ROOT / "paper/results/default")
    for name, sections in read().items():
        path = ROOT / name
        page = path.read_text(encoding="utf-8")
        try:
            found = wrong(page, sections, tables)
        except (ValueError, UserError) as error:
            sys.exit(f"{name}: {error}")
        for number, right in found:
            print(f"{name}: {number.shown} → {right}")
        if "--write" in sys.argv:
            path.write_text(corrected(page, sections, tables), encoding="utf-8")


if __name__ == "__main__":
    main()
