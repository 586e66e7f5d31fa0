"""Which results of two runs agree: on other hardware, with other seeds, after a change.

A result is a number of a table; rows are matched by what names them (family, layer, scorer, ...).
Two numbers agree if they are the same, within a relative or absolute tolerance, or if their
intervals overlap. An overlap is weak agreement: it says that the intervals do not tell the runs
apart, not that nothing else could.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
import pandas as pd

from clearnets import UserError
from clearnets.paper.addresses import cells, numbers
from clearnets.pipeline import artifacts, paths, times
from clearnets.pipeline.commands import git

SAME, WITHIN, OVERLAP, DIFFERS = "same", "within tolerance", "intervals overlap", "differs"
ONLY_FIRST, ONLY_SECOND = "only in the first", "only in the second"
# Texts that are results themselves; every other text names its row.
OUTCOMES = {"status", "verdict", "holds"}
# Numbers that name their row.
INDEX = {"seed", "layer", "step", "latent"}
# But where they are results: a concept's best latent, where a run stopped.
FOUND = {"concepts": {"layer", "latent"}, "generalization_runs": {"step"}}
# Columns whose interval is `low` and `high`.
PLAIN = {"mean", "difference", "correlation"}
ENDS = ("low", "high", "low_layers", "high_layers", "low_seeds", "high_seeds")

NO_NUMBERS = pd.Series(dtype=str)
COLUMNS = ["table", "row", "column", "first", "second", "state"]

# Tables by name, whose cells are texts.
Run = Mapping[str, pd.DataFrame]


@dataclass(frozen=True)
class Tolerance:
    """How far two numbers may lie apart: by a share of the greater one, or absolutely."""

    relative: float = 0.02
    absolute: float = 0.002

    def holds(self, a: pd.Series, b: pd.Series) -> pd.Series:
        """Return where a and b are close enough; NaN never is."""
        greater = np.maximum(a.abs(), b.abs())
        return (a - b).abs() <= np.maximum(self.absolute, self.relative * greater)


def read(name: str) -> dict[str, pd.DataFrame]:
    """Read the tables of a run: a folder, an experiment in `paper/results/`, or `NAME@COMMIT`.

    Raises:
        UserError: there is no such run, or no such commit.
    """
    folder = Path(name)
    if not folder.is_dir():
        folder = paths.results(name)
    if folder.is_dir():
        texts = {path.stem: path.read_text(encoding="utf-8") for path in folder.glob("*.csv")}
        if not texts:
            raise UserError(f"{folder} holds no tables; {artifacts.missing(folder)}")
    elif "@" in name:
        texts = dict(_of_commit(*name.rsplit("@", 1)))
    else:
        raise UserError(
            f"no run {name!r}: give a folder of tables, a name in paper/results/, or NAME@COMMIT"
        )
    return {
        table: pd.read_csv(io.StringIO(text), dtype=str, keep_default_na=False)
        for table, text in sorted(texts.items())
    }


def _of_commit(name: str, commit: str) -> Iterator[tuple[str, str]]:
    folder = paths.results(name)
    cure = f"`git log --oneline -- {folder}` lists the commits that changed it"
    try:
        listed = git("ls-tree", "--name-only", commit, f"{folder}/")
    except UserError:
        raise UserError(f"no commit {commit!r} here; {cure}") from None
    if not listed:
        raise UserError(f"{folder} is not in commit {commit!r}; {cure}")
    for path in listed.splitlines():
        if path.endswith(".csv"):
            yield Path(path).stem, git("show", f"{commit}:{path}")


def made_with(name: str, own: str | None) -> dict[str, str]:
    """Return what a run that `read` takes was made with; nothing where that is not known.

    Args:
        own: the experiment of the checkout.
    """
    experiment, at, commit = name.partition("@")
    if experiment != own:
        return {}
    if not at:
        return times.made_with(experiment)
    try:
        record = json.loads(git("show", f"{commit}:{times.RECORD}"))
    except (UserError, ValueError):
        return {}
    return record.get("made_with", {}) if record.get("experiment") == own else {}


def compare(
    first: Run,
    second: Run,
    tolerance: Tolerance,
    *,
    intervals_only: bool = False,
    tables: Sequence[str] = (),
) -> pd.DataFrame:
    """Compare every result of two runs, or of some of their tables, or those that have intervals.

    Returns:
        A row per result, with its table, what names its row (as `column=value`), its column (empty
        where a row or a table is in one run only), its texts in both runs, and the state: SAME,
        WITHIN, OVERLAP, DIFFERS, ONLY_FIRST or ONLY_SECOND.

    Raises:
        UserError: neither run has one of the tables.
    """
    known = sorted({*first, *second})
    parts = []
    for table in sorted(tables) or known:
        if table not in known:
            raise UserError(f"no table {table!r}; there are: {', '.join(known)}")
        if table not in first or table not in second:
            part = _only([""], ONLY_SECOND if table in second else ONLY_FIRST)
        else:
            part = _compare_table(table, first[table], second[table], tolerance, intervals_only)
        parts.append(part.assign(table=table))
    results = pd.concat([pd.DataFrame(columns=COLUMNS), *parts], ignore_index=True)
    return results.loc[:, COLUMNS]


def agrees(results: pd.DataFrame) -> pd.Series:
    """Return in which results the runs agree."""
    return cast(pd.Series, results["state"].isin([SAME, WITHIN, OVERLAP]))


def _only(columns: list[str], state: str) -> pd.DataFrame:
    """Return results for columns, or for a whole table, that one run lacks."""
    return pd.DataFrame({"row": "", "column": columns, "first": "", "second": "", "state": state})


def _compare_table(
    table: str,
    first: pd.DataFrame,
    second: pd.DataFrame,
    tolerance: Tolerance,
    intervals_only: bool,
) -> pd.DataFrame:
    shared = [column for column in first if column in second]
    keys = [column for column in shared if _names_rows(table, column, first, second)]
    one, other = (_by_key(rows, keys) for rows in (first, second))
    index = one.index.union(other.index, sort=False)
    in_one, in_other = index.isin(one.index), index.isin(other.index)
    one, other = (
        rows.reindex(index, fill_value="").reset_index(drop=True) for rows in (one, other)
    )
    alone, both = in_one != in_other, in_one & in_other
    if intervals_only:
        alone &= np.where(in_one, _has_interval(one), _has_interval(other))
    state = np.where(in_one, ONLY_FIRST, ONLY_SECOND)
    found = {"": pd.DataFrame({"first": "", "second": "", "state": state})[alone]}
    for column in shared:
        if column in keys or _is_end(column, first):
            continue
        texts = cells(one, table, column), cells(other, table, column)
        ends = _interval(one, column), _interval(other, column)
        state = _states(*texts, *ends, tolerance)
        there = both
        if intervals_only:
            there = both & (ends[0].notna() & ends[1].notna()).all(axis=1)
        found[column] = pd.DataFrame(dict(zip(COLUMNS[3:], (*texts, state))))[there]
    results = pd.concat(found, names=["column", "place"]).reset_index("column")
    results = results.sort_index(kind="stable")
    names = [" ".join(f"{key}={cell}" for key, cell in zip(keys, row) if cell) for row in index]
    results["row"] = [names[place] for place in results.index]
    missing = [
        _only([column for column in rows if column not in shared], state)
        for rows, state in ((first, ONLY_FIRST), (second, ONLY_SECOND))
    ]
    return pd.concat([*missing, results])


def _states(
    first: pd.Series,
    second: pd.Series,
    first_ends: pd.DataFrame,
    second_ends: pd.DataFrame,
    tolerance: Tolerance,
) -> np.ndarray:
    overlap = (first_ends["low"] <= second_ends["high"]) & (
        second_ends["low"] <= first_ends["high"]
    )
    within = tolerance.holds(numbers(first), numbers(second))
    return np.select([first == second, within, overlap], [SAME, WITHIN, OVERLAP], DIFFERS)


def _names_rows(table: str, column: str, first: pd.DataFrame, second: pd.DataFrame) -> bool:
    """Tell whether a column says what a row is about: texts that are no outcome, indices, bins."""
    if column in OUTCOMES or _is_end(column, first):
        return False
    if column in INDEX - FOUND.get(table, set()) or column.endswith(("_low", "_high")):
        return True
    texts = pd.concat([cells(first, table, column), cells(second, table, column)])
    texts = texts.loc[~texts.isin(["", "True", "False"])]
    return bool(numbers(texts).isna().any())


def _by_key(rows: pd.DataFrame, keys: list[str]) -> pd.DataFrame:
    """Index rows by what names them; rows of one name are numbered in their order."""
    order = rows.groupby(keys).cumcount() if keys else pd.Series(rows.index)
    return rows.set_index(pd.MultiIndex.from_frame(rows[keys].assign(order=order.astype(str))))


def _interval(rows: pd.DataFrame, column: str) -> pd.DataFrame:
    """Return the ends of a column's intervals; NaN where it has none."""
    names = ["low", "high"] if column in PLAIN else [f"{column}_low", f"{column}_high"]
    low, high = (numbers(cast(pd.Series, rows.get(name, NO_NUMBERS))) for name in names)
    return pd.DataFrame({"low": low, "high": high}, rows.index)


def _has_interval(rows: pd.DataFrame) -> np.ndarray:
    """Tell whether any column of each row has an interval."""
    found = [_interval(rows, column).notna().all(axis=1).to_numpy() for column in rows]
    return np.any(found, axis=0)


def _is_end(column: str, rows: pd.DataFrame) -> bool:
    """Tell whether a column is an end of another one's interval, and no result or bin."""
    if column in ENDS:
        return any(name in rows for name in PLAIN)
    base = column.removesuffix("_low").removesuffix("_high")
    return base != column and base in rows


def format_difference(
    table: str, row: str, column: str, first: str, second: str, state: str
) -> str:
    """Return a result in which two runs do not agree as a line."""
    place = " ".join(filter(None, (f"{table}.csv", row, column)))
    if state != DIFFERS:
        return f"{place}: {state}"
    return f"{place}: {first or 'empty'} against {second or 'empty'}"


HEADER = ("table", "results", SAME, WITHIN, OVERLAP, DIFFERS, "in one only")


def count_by_table(results: pd.DataFrame) -> list[list[str]]:
    """Return for each table how many results it has, and how many are in each state."""
    counts = pd.crosstab(results["table"], results["state"])
    counts = counts.reindex(columns=[SAME, WITHIN, OVERLAP, DIFFERS, ONLY_FIRST, ONLY_SECOND])
    counts = counts.fillna(0).astype(int)
    counts.insert(0, "results", counts.sum(axis=1))
    counts["in one only"] = counts.pop(ONLY_FIRST) + counts.pop(ONLY_SECOND)
    return counts.astype(str).reset_index().to_numpy().tolist()
