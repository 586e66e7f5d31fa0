"""The paper's claims, checked on its tables: a small language of relations, no code is evaluated.

`paper/claims.yaml` explains the language. A claim holds, or fails with the row that breaks it, or
cannot be checked because the experiment has no such table.
"""

from __future__ import annotations

import shlex
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from clearnets import UserError
from clearnets.analysis.text import parsed
from clearnets.config import read_yaml

SOURCE = Path("paper/claims.yaml")
HOLDS, FAILS, ABSENT, TRAINING = "holds", "FAILS", "not there", "needs training"
STYLES = {HOLDS: "green", FAILS: "bold red", ABSENT: "red", TRAINING: "yellow"}

Scalar = bool | int | float | str
Row = Mapping[str, str]
Tables = Callable[[str], Sequence[Row]]


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)


class Reference(_Strict):
    """A number of a table as a bound; without a table, of the same row."""

    table: str | None = None
    where: dict[str, Scalar | list[Scalar]] = {}
    column: str


class Count(_Strict):
    """How many of the selected rows satisfy the relation."""

    at_least: Annotated[int, Field(alias="at least")] = 0
    at_most: Annotated[int | None, Field(alias="at most")] = None


class Relation(_Strict):
    """What must be true of the rows that `where` selects; see `paper/claims.yaml`."""

    table: str
    where: dict[str, Scalar | list[Scalar]] = {}
    column: str
    above: float | Reference | None = None
    below: float | Reference | None = None
    equal: Scalar | list[Scalar] | Reference | None = None
    absolute: bool = False
    tolerance: float = 0.0
    rows: int | None = None
    count: Count | None = None

    @model_validator(mode="after")
    def _one_relation(self) -> Relation:
        if sum(bound is not None for bound in (self.above, self.below, self.equal)) != 1:
            raise ValueError("give one of above, below, equal")
        if isinstance(self.equal, list) and any(map(_is_number, self.equal)):
            raise ValueError("equal takes a list of words, or one number")
        return self


class Claim(_Strict):
    """One claim: what it says, and a relation or a command that checks it."""

    name: str
    says: str
    holds: Relation | None = None
    command: str | None = None
    cost: str = "none"
    training: bool = False

    @model_validator(mode="after")
    def _one_check(self) -> Claim:
        if (self.holds is None) == (self.command is None):
            raise ValueError("give one of holds, command")
        if self.command and not self.training and shlex.split(self.command)[0] != "clearnets":
            raise ValueError("a command that is run is one of clearnets")
        return self


@dataclass(frozen=True)
class Finding:
    """What checking a claim gave.

    Attributes:
        claim: the claim.
        state: HOLDS, FAILS, ABSENT or TRAINING.
        found: the number nearest to breaking it, what broke it, or the command to run.
    """

    claim: Claim
    state: str
    found: str

    @property
    def broken(self) -> bool:
        """Whether the paper may not say so: the claim fails, or its table or rows are not there."""
        return self.state in (FAILS, ABSENT)


class _Absent(Exception):
    """The experiment has no such table, or no such row in it."""


def read(path: Path = SOURCE) -> list[Claim]:
    """All claims, in the order of the paper.

    Raises:
        UserError: the file is missing, or a claim is not one.
    """
    if not path.exists():
        raise UserError(f"{path} is missing; run in the project's folder")
    values = read_yaml(path)
    claims = []
    for number, value in enumerate(values["claims"], 1):
        try:
            claims.append(Claim.model_validate(value))
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"]))
            raise UserError(f"{path}, claim {number}: {where}: {first['msg']}") from None
    return claims


def check(claim: Claim, tables: Tables) -> Finding:
    """Check a claim's relation on tables, given as a function from their names to their rows."""
    assert claim.holds is not None
    try:
        passed, found = _judge(claim.holds, tables)
    except _Absent as absent:
        return Finding(claim, ABSENT, str(absent))
    return Finding(claim, HOLDS if passed else FAILS, found)


def run(claim: Claim) -> Finding:
    """Run a claim's command, which is one of clearnets, without a shell."""
    assert claim.command is not None
    words = [sys.executable, "-m", *shlex.split(claim.command)]
    done = subprocess.run(words, check=False, capture_output=True, text=True)
    last = ((done.stdout + done.stderr).strip().splitlines() or ["done"])[-1]
    return Finding(claim, FAILS if done.returncode else HOLDS, last)


def check_all(claims: Sequence[Claim], tables: Tables) -> list[Finding]:
    """Check what needs no training; of the rest say what it takes."""
    return [_checked(claim, tables) for claim in claims]


def _checked(claim: Claim, tables: Tables) -> Finding:
    if claim.training:
        return Finding(claim, TRAINING, claim.command or "")
    return run(claim) if claim.command else check(claim, tables)


def marked(claims: Sequence[Claim]) -> list[tuple[str, Claim]]:
    """Claims with the marks that they have in the paper."""
    return [(f"C{number}", claim) for number, claim in enumerate(claims, 1)]


def counted(findings: Sequence[Finding]) -> str:
    """How many claims hold, fail and so on, in one line."""
    counts = Counter(finding.state for finding in findings)
    states = (HOLDS, FAILS, ABSENT, TRAINING)
    return ", ".join(f"{counts[state]} {state}" for state in states if counts[state])


def _judge(relation: Relation, tables: Tables) -> tuple[bool, str]:
    """Whether a relation holds, and the number that comes nearest to breaking it."""
    selected = _select(tables(relation.table), relation.where, relation.table)
    if not selected:
        raise _Absent(f"no such row in {relation.table}")
    if relation.rows is not None and len(selected) != relation.rows:
        return False, f"{len(selected)} rows instead of {relation.rows}"
    results = [_judge_row(relation, row, tables) for row in selected]
    passed = sum(result.passed for result in results)
    if relation.count is not None:
        most = len(results) if relation.count.at_most is None else relation.count.at_most
        return relation.count.at_least <= passed <= most, f"{passed} of {len(results)} rows"
    if all(result.passed for result in results):
        nearest = min(results, key=lambda result: result.slack)
        return True, nearest.text
    broken = next(result for result in results if not result.passed)
    more = f" ({len(results) - passed} of {len(results)} rows)" if len(results) > 1 else ""
    return False, broken.text + more


@dataclass(frozen=True)
class _RowResult:
    passed: bool
    text: str
    # How far a number is from breaking the relation; infinite where there is no distance.
    slack: float = float("inf")


def _judge_row(relation: Relation, row: Row, tables: Tables) -> _RowResult:
    cell = _cell(row, relation.column, relation.table)
    if relation.equal is not None and not isinstance(relation.equal, Reference):
        wanted = relation.equal if isinstance(relation.equal, list) else [relation.equal]
        if not any(map(_is_number, wanted)):
            texts = ", ".join(map(_text, wanted))
            passed = cell in set(map(_text, wanted))
            return _RowResult(passed, f"{relation.column} is {cell or 'empty'} (wanted {texts})")
    value = parsed(cell)
    if value is None:
        # A number that does not exist breaks no count and satisfies no relation.
        return _RowResult(False, f"{relation.column} is {cell or 'empty'}")
    value = abs(value) if relation.absolute else value
    name, bound = _bound(relation, row, tables)
    bound = abs(bound) if relation.absolute else bound
    distance = {"above": value - bound, "below": bound - value, "equal": -abs(value - bound)}[name]
    text = f"{relation.column} = {value:g}, {name} {bound:g}"
    if relation.tolerance:
        text += f" ± {relation.tolerance:g}"
    slack = distance + relation.tolerance
    return _RowResult(slack >= 0 if name == "equal" else slack > 0, text, slack)


def _bound(relation: Relation, row: Row, tables: Tables) -> tuple[str, float]:
    """The one relation to a number, and the number."""
    for name in ("above", "below", "equal"):
        bound: Any = getattr(relation, name)
        if bound is not None:
            return name, _value(bound, row, relation.table, tables)
    raise AssertionError("a relation has a bound")


def _value(bound: float | Reference, row: Row, table: str, tables: Tables) -> float:
    if not isinstance(bound, Reference):
        return float(bound)
    if bound.table is not None:
        found = _select(tables(bound.table), bound.where, bound.table)
        if len(found) != 1:
            raise UserError(f"{SOURCE}: {len(found)} rows of {bound.table} as a bound, not one")
        row, table = found[0], bound.table
    value = parsed(_cell(row, bound.column, table))
    if value is None:
        raise UserError(f"{SOURCE}: {table}.csv has no number in {bound.column} as a bound")
    return value


def _select(rows: Sequence[Row], where: Mapping[str, Any], table: str) -> list[Row]:
    """The rows whose columns have the wanted texts; a list stands for any of its values."""
    wanted = {
        key: set(map(_text, value if isinstance(value, list) else [value]))
        for key, value in where.items()
    }
    return [
        row for row in rows if all(_cell(row, key, table) in texts for key, texts in wanted.items())
    ]


def _cell(row: Row, column: str, table: str) -> str:
    if column not in row:
        raise UserError(f"{SOURCE}: {table}.csv has no column {column!r}")
    return row[column]


def _text(value: Scalar) -> str:
    """A value as the tables write it."""
    return str(value)


def tables_in(folder: Path) -> Tables:
    """The tables of a folder as rows of texts, each read once; `NAME/table` is of an experiment
    beside it."""
    import csv

    read: dict[str, list[Row]] = {}

    def rows(name: str) -> list[Row]:
        if name not in read:
            path = (folder.parent if "/" in name else folder) / f"{name}.csv"
            if not path.exists():
                raise _Absent(f"no {path}")
            with path.open(encoding="utf-8", newline="") as file:
                read[name] = list(csv.DictReader(file))
        return read[name]

    return rows
