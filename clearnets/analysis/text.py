"""Numbers, intervals and tables written as Markdown, and numbers parsed from a table's cells."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

DASH = "–"
Row = dict[str, Any]


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table, its first column to the left and all others to the right; nothing
    where it has no row."""
    if not rows:
        return ""
    lines = [list(head), ["---"] + ["---:"] * (len(head) - 1), *map(list, rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def number(value: float, form: str) -> str:
    """Return a number, or a dash where there is none."""
    return DASH if value is None or math.isnan(value) else format(value, form).replace("-", "−")


def parsed(cell: str) -> float | None:
    """Return the number in a cell of a table; None where it holds none."""
    try:
        return float(cell)
    except ValueError:
        return None


def several(values: Sequence[float], form: str) -> str:
    """Return numbers with slashes between them, or one dash where there is none at all."""
    texts = [number(value, form) for value in values]
    return DASH if set(texts) == {DASH} else " / ".join(texts)


def percent(value: float) -> str:
    """Return a share as a whole percentage."""
    return f"{100 * value:.0f} %"


def interval(row: Row, key: str) -> str:
    """Return `0.81 [0.80, 0.82]` of the columns key, key_low, key_high, or low and high."""
    low, high = (f"{key}_{end}" if f"{key}_{end}" in row else end for end in ("low", "high"))
    if math.isnan(row[low]):
        return number(row[key], ".2f")
    return f"{row[key]:.2f} [{row[low]:.2f}, {row[high]:.2f}]".replace("-", "−")


def ends(row: Row, level: str) -> str:
    """Return `[−0.003, +0.045]` of the interval over a level, and whether it shows equivalence."""
    low, high = row[f"low_{level}"], row[f"high_{level}"]
    if math.isnan(low):
        return DASH
    equal = " ≈" if row[f"equivalent_{level}"] else ""
    return f"[{low:+.3f}, {high:+.3f}]".replace("-", "−") + equal


def difference(row: Row, key: str = "") -> str:
    """Return `+0.021 [−0.003, +0.045]` of key, key_low, key_high, or difference, low, high."""
    columns = (key, f"{key}_low", f"{key}_high") if key else ("difference", "low", "high")
    value, low, high = (row[column] for column in columns)
    if math.isnan(low):
        return number(value, "+.3f")
    return f"{value:+.3f} [{low:+.3f}, {high:+.3f}]".replace("-", "−")
