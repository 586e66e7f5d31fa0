"""Addresses of numbers in result tables: a table, a column and what other columns must hold.

The paper's claims (`paper/claims.yaml`) and the numbers of README and docs (`docs/numbers.yaml`)
are written with them; the manuscript uses the same words and defaults (`paper/typst/results.typ`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Literal, cast

import pandas as pd
from pydantic import BaseModel, ConfigDict

from clearnets import UserError

# What a column holds where an address does not say so and the table has such rows.
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

Scalar = bool | int | float | str
Where = Mapping[str, Scalar | list[Scalar] | None]
Tables = Callable[[str], pd.DataFrame]


class Missing(UserError):
    """The experiment has no such table, or the table no such row."""


class Strict(BaseModel):
    """A frozen part of a YAML file that has no keys but these."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)


class Rows(Strict):
    """Rows of a table.

    Attributes:
        table: a table of the experiment, or `NAME/table` of another experiment.
        where: what columns hold: a value, any of a list of values, or anything where it is null.
    """

    table: str
    where: Where = {}


class Address(Rows):
    """A number of a table.

    Attributes:
        column: its column; without one the number is how many rows there are.
        how: take the smallest or greatest number of several rows.
        level: what the interval is over if it is not over latents.
        per: a number by which this one is divided.
    """

    column: str | None = None
    how: Literal["min", "max"] | None = None
    level: Literal["layers", "seeds"] | None = None
    per: Address | None = None


def tables_in(folder: Path) -> Tables:
    """Return a function from names to the tables of a folder, whose cells are texts.

    `NAME/table` is a table of another experiment, in a folder next to this one. The function raises
    `Missing` if there is no such table.
    """

    @cache
    def table(name: str) -> pd.DataFrame:
        path = (folder.parent if "/" in name else folder) / f"{name}.csv"
        if not path.exists():
            raise Missing(f"no {path}")
        return pd.read_csv(path, dtype=str, keep_default_na=False)

    return table


def select(tables: Tables, wanted: Rows) -> pd.DataFrame:
    """Return the rows that an address selects, with `USUAL` values where it gives none.

    Raises:
        Missing: there is no such table.
        UserError: the table has no such column.
    """
    table = tables(wanted.table)
    usual = {
        column: value
        for column, value in USUAL.items()
        if column in table and value in set(table[column])
    }
    for column, value in (usual | dict(wanted.where)).items():
        if value is not None:
            values = value if isinstance(value, list) else [value]
            table = table.loc[cells(table, wanted.table, column).isin(list(map(str, values)))]
    return table


def cells(rows: pd.DataFrame, table: str, column: str) -> pd.Series:
    """Return a column of a table.

    Raises:
        UserError: the table has no such column.
    """
    if column not in rows:
        raise UserError(f"{table}.csv has no column {column!r}")
    return cast(pd.Series, rows[column])


def numbers(texts: pd.Series) -> pd.Series:
    """Return the numbers in cells; NaN where a cell holds none."""
    return cast(pd.Series, pd.to_numeric(texts, errors="coerce")).astype(float)


def value(tables: Tables, address: Address) -> tuple[float, tuple[float, float] | None]:
    """Return the number at an address, and the ends of its interval where it has one.

    Raises:
        Missing: there is no such table.
        UserError: there is no such column, not one row, or no number.
    """
    rows = select(tables, address)
    if address.column is None:
        return float(len(rows)), None
    found = numbers(cells(rows, address.table, address.column))
    if address.how is None and len(found) != 1:
        where = " ".join(f"{key}={value}" for key, value in address.where.items())
        raise UserError(f"{address.table}.csv has {len(found)} rows with {where}, not one")
    number = float(found.max() if address.how == "max" else found.min())
    if math.isnan(number):
        raise UserError(f"{address.table}.csv has no number in {address.column} there")
    if address.per is not None:
        return number / value(tables, address.per)[0], None
    return number, None if address.how else _interval(rows.iloc[0], address.column, address.level)


def _interval(row: pd.Series, column: str, level: str | None) -> tuple[float, float] | None:
    own = [f"{column}_low", f"{column}_high"]
    names = own if own[0] in row else ["low", "high"]
    names = [f"{name}_{level}" for name in names] if level else names
    low, high = numbers(row.reindex(names).fillna(""))
    return None if math.isnan(low) or math.isnan(high) else (low, high)
