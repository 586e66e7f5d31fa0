"""Helpers for pandas frames: choose rows and columns, sort them, write CSV."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, cast

import numpy as np
import pandas as pd

from clearnets.config import MLPS
from clearnets.families import FAMILIES, NO_LAYER


def pick(frame: pd.DataFrame, **equals: object) -> pd.DataFrame:
    """Return the rows whose columns have these values."""
    keep = np.ones(len(frame), dtype=bool)
    for column, value in equals.items():
        keep &= (frame[column] == value).to_numpy(bool)
    return cast(pd.DataFrame, frame[keep])


def columns_of(frame: pd.DataFrame, names: Sequence[str]) -> pd.DataFrame:
    """Return these columns in this order; empty ones if the frame has no rows.

    Raises:
        KeyError: a column is missing.
    """
    if frame.empty:
        return cast(pd.DataFrame, frame.reindex(columns=list(names)))
    return cast(pd.DataFrame, frame[list(names)])


def records(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """Return the rows as dictionaries."""
    return cast(list[dict[str, Any]], frame.to_dict("records"))


def stacked(*frames: pd.DataFrame) -> pd.DataFrame:
    """Concatenate frames, with all their columns; types of a frame without rows do not count."""
    columns = dict.fromkeys(name for frame in frames for name in frame)
    rows = pd.concat([frame for frame in frames if len(frame)] or frames[:1], ignore_index=True)
    return rows.reindex(columns=list(columns))


def ordered(families: Iterable[str]) -> list[str]:
    present = set(families)
    return [family for family in FAMILIES if family in present]


def sort(table: pd.DataFrame, keys: list[str]) -> pd.DataFrame:
    """Sort rows by `keys`: families and models in the order of their tables, other values
    ascending."""
    rank = {name: index for index, name in enumerate((*MLPS, *FAMILIES))}
    named = ("family", "model", "name")
    order = table.sort_values(
        keys,
        kind="stable",
        key=lambda column: column.map(rank) if column.name in named else column,
    )
    return order.reset_index(drop=True)


def to_csv(frame: pd.DataFrame) -> str:
    """Return a table as CSV: six significant digits, an empty cell where there is no value."""
    frame = frame.copy()
    if "layer" in frame:
        frame["layer"] = frame["layer"].replace(NO_LAYER, np.nan)
    for name in frame.select_dtypes("float"):
        values = frame[name].to_numpy(np.float64)
        if (np.isnan(values) | (values == np.floor(values))).all():
            frame[name] = frame[name].astype("Int64")
    return frame.to_csv(index=False, float_format="%.6g", lineterminator="\n")
