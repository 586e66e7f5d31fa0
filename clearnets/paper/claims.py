"""The paper's claims, checked on the tables of results.

`paper/claims.yaml` lists the claims and explains how one is written. A claim holds, or fails with
the row that breaks it, or cannot be checked because the experiment has no such table. What must be
true of an experiment NAME besides the paper's is a list of its own, `paper/claims-NAME.yaml`.
"""

from __future__ import annotations

import shlex
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import pandas as pd
from pydantic import Field, ValidationError, model_validator

from clearnets import UserError
from clearnets.config import read_yaml
from clearnets.paper import addresses
from clearnets.paper.addresses import Address, Missing, Rows, Strict, Tables

SOURCE = Path("paper/claims.yaml")
# Hypotheses that were written down before the runs that test them.
REGISTRATION = Path("paper/registration.yaml")
HOLDS, FAILS, ABSENT, TRAINING = "holds", "FAILS", "not there", "needs training"
PASS, FAIL = "PASS", "FAIL"
STYLES = {
    HOLDS: "green",
    FAILS: "bold red",
    ABSENT: "red",
    TRAINING: "yellow",
    PASS: "green",
    FAIL: "bold red",
}


class OtherColumn(Strict):
    """Another number of the same row."""

    column: str


Bound = float | OtherColumn | Address


class Relation(Rows):
    """What must be true of a column in the selected rows; `paper/claims.yaml` explains the keys."""

    column: str
    above: Bound | None = None
    below: Bound | None = None
    equal: bool | str | list[str] | Bound | None = None
    absolute: bool = False
    tolerance: float = 0.0
    rows: int | None = None
    at_most: Annotated[int | None, Field(alias="at most")] = None

    @model_validator(mode="after")
    def _one_relation(self) -> Relation:
        if sum(bound is not None for bound in (self.above, self.below, self.equal)) != 1:
            raise ValueError("give one of above, below, equal")
        return self


class Claim(Strict):
    """One claim: what it says, and a relation, a command or a file that checks it.

    Attributes:
        registered: the id of the registered hypothesis that it answers; None: it is exploratory.
    """

    name: str
    says: str
    registered: str | None = None
    holds: Relation | None = None
    command: str | None = None
    file: Path | None = None
    cost: str = "none"
    training: bool = False

    @model_validator(mode="after")
    def _one_check(self) -> Claim:
        if sum(check is not None for check in (self.holds, self.command, self.file)) != 1:
            raise ValueError("give one of holds, command, file")
        if self.command and not self.training and shlex.split(self.command)[0] != "clearnets":
            raise ValueError("a command that is run is one of clearnets")
        return self


@dataclass(frozen=True)
class Finding:
    """The outcome of checking a claim.

    Attributes:
        claim: the claim.
        state: HOLDS, FAILS, ABSENT or TRAINING; of a test, PASS or FAIL.
        found: the number nearest to breaking it, what broke it, or the command to run.
    """

    claim: Claim
    state: str
    found: str

    @property
    def broken(self) -> bool:
        """Whether the paper may not say so: the claim fails, or its table or rows are absent."""
        return self.state in (FAILS, ABSENT, FAIL)

    def as_test(self) -> Finding:
        """Return the finding in the words of a test: what is not there fails it, too."""
        return replace(self, state=FAIL if self.broken else PASS)


def source(experiment: str) -> Path:
    """Return the list of claims that an experiment is checked by: its own, or the paper's."""
    own = SOURCE.with_stem(f"{SOURCE.stem}-{experiment}")
    return own if own.exists() else SOURCE


def read(path: Path = SOURCE) -> list[Claim]:
    """Read all claims, in the order of the paper.

    Raises:
        UserError: the file is missing, or a claim is not one, or refers to no registered
            hypothesis.
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
    registration = path.with_name(REGISTRATION.name)
    known = read_yaml(registration)["hypotheses"] if registration.exists() else {}
    for claim in claims:
        if claim.registered not in (None, *known):
            raise UserError(
                f"{path}: {claim.name}: {registration} has no hypothesis {claim.registered}; "
                f"there are: {', '.join(known) or 'none'}"
            )
    return claims


def check(claim: Claim, tables: Tables) -> Finding:
    """Check a claim's relation on tables, given as a function from their names."""
    assert claim.holds is not None
    try:
        passed, found = _judge(claim.holds, tables)
    except Missing as missing:
        return Finding(claim, ABSENT, str(missing))
    return Finding(claim, HOLDS if passed else FAILS, found)


def run(claim: Claim) -> Finding:
    """Run a claim's command, which is one of clearnets, without a shell."""
    assert claim.command is not None
    words = [sys.executable, "-m", *shlex.split(claim.command)]
    done = subprocess.run(words, check=False, capture_output=True, text=True)
    last = ((done.stdout + done.stderr).strip().splitlines() or ["done"])[-1]
    return Finding(claim, FAILS if done.returncode else HOLDS, last)


def find(claim: Claim) -> Finding:
    """Look for a claim's file, which must have content."""
    assert claim.file is not None
    size = claim.file.stat().st_size if claim.file.is_file() else 0
    found = f"{claim.file}, {size:,} bytes" if size else f"no {claim.file}"
    return Finding(claim, HOLDS if size else FAILS, found)


def check_all(claims: Sequence[Claim], tables: Tables) -> list[Finding]:
    """Check what needs no training; of the rest say what it takes."""
    return [_checked(claim, tables) for claim in claims]


def _checked(claim: Claim, tables: Tables) -> Finding:
    if claim.training:
        return Finding(claim, TRAINING, claim.command or "")
    if claim.file:
        return find(claim)
    return run(claim) if claim.command else check(claim, tables)


def counted(findings: Sequence[Finding]) -> str:
    """Return how many claims hold, fail and so on, in one line."""
    counts = Counter(finding.state for finding in findings)
    return ", ".join(f"{counts[state]} {state}" for state in STYLES if counts[state])


def _judge(relation: Relation, tables: Tables) -> tuple[bool, str]:
    """Return whether a relation holds, and the number that comes nearest to breaking it."""
    rows = addresses.select(tables, relation)
    if rows.empty:
        raise Missing(f"no such row in {relation.table}")
    if relation.rows is not None and len(rows) != relation.rows:
        return False, f"{len(rows)} rows instead of {relation.rows}"
    judged = _judge_rows(relation, rows, tables)
    passed = sum(judged["passed"])
    if relation.at_most is not None:
        return passed <= relation.at_most, f"{passed} of {len(rows)} rows"
    if passed == len(rows):
        return True, judged["text"].iloc[judged["slack"].argmin()]
    more = f" ({len(rows) - passed} of {len(rows)} rows)" if len(rows) > 1 else ""
    return False, judged.loc[~judged["passed"], "text"].iloc[0] + more


def _judge_rows(relation: Relation, rows: pd.DataFrame, tables: Tables) -> pd.DataFrame:
    """Return by row whether the relation holds, in words, and how far it is from breaking."""
    column = relation.column
    texts = addresses.cells(rows, relation.table, column)
    shown = f"{column} is " + texts.replace("", "empty")
    words = _words(relation.equal)
    if words:
        text = shown + f" (wanted {', '.join(words)})"
        return pd.DataFrame({"passed": texts.isin(words), "text": text, "slack": 0.0})
    (name, bound), *_ = (
        (name, bound)
        for name in ("above", "below", "equal")
        if (bound := getattr(relation, name)) is not None
    )
    values, bounds = addresses.numbers(texts), _bounds(bound, relation, rows, tables)
    if relation.absolute:
        values, bounds = values.abs(), bounds.abs()
    distance = {"above": values - bounds, "below": bounds - values, "equal": -abs(values - bounds)}
    slack = distance[name] + relation.tolerance
    margin = f" ± {relation.tolerance:g}" if relation.tolerance else ""
    text = [
        f"{column} = {value:g}, {name} {limit:g}{margin}" for value, limit in zip(values, bounds)
    ]
    # A cell without a number satisfies no relation.
    return pd.DataFrame(
        {
            "passed": slack >= 0 if name == "equal" else slack > 0,
            "text": shown.where(values.isna(), pd.Series(text, rows.index)),
            "slack": slack,
        }
    )


def _words(equal: object) -> list[str]:
    """Return the words or truth values that a cell must be equal to; none for a number."""
    values = equal if isinstance(equal, list) else [equal]
    return [str(value) for value in values if isinstance(value, bool | str)]


def _bounds(
    bound: float | OtherColumn | Address, relation: Relation, rows: pd.DataFrame, tables: Tables
) -> pd.Series:
    """Return the bound of each row.

    Raises:
        UserError: a bound is no number.
    """
    if isinstance(bound, Address):
        bound, _ = addresses.value(tables, bound)
    if not isinstance(bound, OtherColumn):
        return pd.Series(float(bound), rows.index)
    found = addresses.numbers(addresses.cells(rows, relation.table, bound.column))
    if found.isna().any():
        raise UserError(f"{relation.table}.csv has no number in {bound.column} as a bound")
    return found
