"""Which results of two runs agree: on other hardware, with other seeds, after a change.

A result is a number of a table; rows are matched by what names them (family, layer, scorer, ...).
Two numbers agree where they are the same, within a relative or absolute tolerance, or where their
intervals overlap. An overlap is weak agreement: it says that the intervals do not tell the runs
apart, not that nothing else could.
"""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from clearnets import UserError
from clearnets.analysis.text import parsed
from clearnets.pipeline import artifacts, paths
from clearnets.pipeline.git import git

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

Row = Mapping[str, str]
Run = Mapping[str, Sequence[Row]]


@dataclass(frozen=True)
class Tolerance:
    """How far two numbers may lie apart: by a share of the greater one, or absolutely."""

    relative: float = 0.02
    absolute: float = 0.002

    def holds(self, a: float, b: float) -> bool:
        """Whether a and b are close enough."""
        return abs(a - b) <= max(self.absolute, self.relative * max(abs(a), abs(b)))


@dataclass(frozen=True)
class Compared:
    """One result of two runs.

    Attributes:
        table: its table.
        row: what names its row, as `column=value`.
        column: its column; empty where a row or a table is in one run only.
        first, second: its texts.
        state: SAME, WITHIN, OVERLAP, DIFFERS, ONLY_FIRST or ONLY_SECOND.
    """

    table: str
    row: str
    column: str
    first: str
    second: str
    state: str

    @property
    def agrees(self) -> bool:
        """Whether the runs agree here."""
        return self.state in (SAME, WITHIN, OVERLAP)


def read(name: str) -> dict[str, list[Row]]:
    """The tables of a run: a folder, an experiment in `paper/results/`, or `NAME@COMMIT`.

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
    return {table: list(csv.DictReader(io.StringIO(text))) for table, text in sorted(texts.items())}


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


def compare(
    first: Run, second: Run, tolerance: Tolerance, *, intervals_only: bool = False
) -> Iterator[Compared]:
    """Every result of two runs, table by table; with `intervals_only` those that have intervals."""
    for table in sorted({*first, *second}):
        if table not in first or table not in second:
            yield Compared(table, "", "", "", "", ONLY_SECOND if table in second else ONLY_FIRST)
            continue
        yield from _compare_table(table, first[table], second[table], tolerance, intervals_only)


def _compare_table(
    table: str,
    first: Sequence[Row],
    second: Sequence[Row],
    tolerance: Tolerance,
    intervals_only: bool,
) -> Iterator[Compared]:
    columns = [_columns(rows) for rows in (first, second)]
    for state, one, other in ((ONLY_FIRST, *columns), (ONLY_SECOND, *columns[::-1])):
        for column in one if other else ():
            if column not in other:
                yield Compared(table, "", column, "", "", state)
    shared = [column for column in columns[0] if column in columns[1]]
    rows = [*first, *second]
    keys = [column for column in shared if _names_rows(table, column, rows)]
    by_key = [_by_key(rows, keys) for rows in (first, second)]
    for key in dict.fromkeys((*by_key[0], *by_key[1])):
        a, b = by_key[0].get(key), by_key[1].get(key)
        row = " ".join(f"{name}={value}" for name, value in zip(keys, key) if value)
        if a is None or b is None:
            there = a or b or {}
            if not intervals_only or any(_interval(there, column) for column in there):
                yield Compared(table, row, "", "", "", ONLY_FIRST if b is None else ONLY_SECOND)
            continue
        for column in shared:
            if column in keys or _is_end(column, a):
                continue
            texts = a[column], b[column]
            ends = _interval(a, column), _interval(b, column)
            if intervals_only and not (ends[0] and ends[1]):
                continue
            yield Compared(table, row, column, *texts, _judged(texts, ends, tolerance))


def _judged(
    texts: tuple[str, str],
    ends: tuple[tuple[float, float] | None, tuple[float, float] | None],
    tolerance: Tolerance,
) -> str:
    if texts[0] == texts[1]:
        return SAME
    a, b = map(parsed, texts)
    if a is not None and b is not None and tolerance.holds(a, b):
        return WITHIN
    one, other = ends
    if one and other and one[0] <= other[1] and other[0] <= one[1]:
        return OVERLAP
    return DIFFERS


def _columns(rows: Sequence[Row]) -> list[str]:
    return list(rows[0]) if rows else []


def _names_rows(table: str, column: str, rows: Sequence[Row]) -> bool:
    """Whether a column says what a row is about: texts that are no outcome, indices, bins."""
    if column in OUTCOMES or _is_end(column, rows[0]):
        return False
    if column in INDEX - FOUND.get(table, set()) or column.endswith(("_low", "_high")):
        return True
    cells = (row.get(column) or "" for row in rows)
    return any(cell and cell not in ("True", "False") and parsed(cell) is None for cell in cells)


def _by_key(rows: Sequence[Row], keys: Sequence[str]) -> dict[tuple[str, ...], Row]:
    """Rows by what names them; rows of one name are numbered in their order."""
    seen: Counter[tuple[str, ...]] = Counter()
    found = {}
    for row in rows:
        key = tuple(row.get(name) or "" for name in keys)
        found[(*key, str(seen[key]))] = row
        seen[key] += 1
    return found


def _interval(row: Row, column: str) -> tuple[float, float] | None:
    """The ends of a column's interval, where it has one."""
    names = ("low", "high") if column in PLAIN else (f"{column}_low", f"{column}_high")
    low, high = (parsed(row.get(name) or "") for name in names)
    return None if low is None or high is None else (low, high)


def _is_end(column: str, row: Row) -> bool:
    """Whether a column is an end of another one's interval, and no result or bin of its own."""
    if column in ENDS:
        return any(name in row for name in PLAIN)
    base = column.removesuffix("_low").removesuffix("_high")
    return base != column and base in row


def chosen(first: Run, second: Run, names: str | None) -> tuple[Run, Run]:
    """Both runs with nothing but the named tables, written with commas between.

    Raises:
        UserError: neither run has a table of that name.
    """
    if names is None:
        return first, second
    known = sorted({*first, *second})
    wanted = names.split(",")
    for name in wanted:
        if name not in known:
            raise UserError(f"no table {name!r}; there are: {', '.join(known)}")
    one, other = ({name: run[name] for name in wanted if name in run} for run in (first, second))
    return one, other


HEADER = ("table", "results", SAME, WITHIN, OVERLAP, DIFFERS, "in one only")


def told(result: Compared) -> str:
    """A result in which two runs do not agree, as a line."""
    place = " ".join(filter(None, (f"{result.table}.csv", result.row, result.column)))
    if result.state != DIFFERS:
        return f"{place}: {result.state}"
    return f"{place}: {result.first or 'empty'} against {result.second or 'empty'}"


def by_table(results: Sequence[Compared]) -> list[list[str]]:
    """A row per table: results in it, how many agree in which way, and how many do not."""
    counts: dict[str, Counter[str]] = {}
    for result in results:
        counts.setdefault(result.table, Counter())[result.state] += 1
    states = (SAME, WITHIN, OVERLAP, DIFFERS)
    return [
        [
            table,
            str(found.total()),
            *(str(found[state]) for state in states),
            str(found[ONLY_FIRST] + found[ONLY_SECOND]),
        ]
        for table, found in counts.items()
    ]
