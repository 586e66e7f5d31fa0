"""The verdict on a run: which claims hold on this machine, and which results are as committed.

The reference are the tables of a commit, which git has also where a run has replaced them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from clearnets import UserError
from clearnets.paper import claims, compare
from clearnets.paper.addresses import Missing, Tables
from clearnets.paper.claims import Claim
from clearnets.paper.compare import DIFFERS, ONLY_FIRST, ONLY_SECOND, OVERLAP, SAME, WITHIN
from clearnets.pipeline import artifacts, environment, paths
from clearnets.pipeline.artifacts import MANIFEST
from clearnets.pipeline.commands import git

REPORT = Path("verdict.md")
CLAIMS = ("", "claim", "committed", "here", "verdict")
RESULTS = ("results", "number", SAME, WITHIN, OVERLAP, "differ", "in one only")
UNCHANGED = "the same"
# Results that are listed one by one in the report.
LISTED = 100


@dataclass(frozen=True)
class Verdict:
    """What a run here says of the committed one.

    Attributes:
        reference: the commit and its date, in words.
        claims: a row for each claim about results, as CLAIMS.
        results: a row for those that have an interval and one for all, as RESULTS.
        agreement: how many results that have an interval agree, of how many.
        apart: a line for each result with an interval in which the runs do not agree.
        made_with: in what the machines and libraries differ, in words.
    """

    reference: str
    claims: list[tuple[str, ...]]
    results: list[tuple[str, ...]]
    agreement: str
    apart: list[str]
    made_with: str

    @property
    def summary(self) -> str:
        """Return the verdict in one sentence."""
        states = [row[-1] for row in self.claims]
        return (
            f"{states.count(claims.HOLDS)} of {len(states)} claims about results hold here; "
            f"{self.agreement} results that have an interval agree with commit {self.reference}"
        )


def stamp(experiment: str) -> str:
    """Return what a verdict is about: the commit that is checked out, and the tables here.

    Raises:
        UserError: this is no git checkout, or has no tables of the experiment.
    """
    artifacts.check(paths.results(experiment))
    here = artifacts.sha256(paths.results(experiment) / MANIFEST)
    return f"{experiment} at {git('rev-parse', 'HEAD')}, tables {here}"


def reach(experiment: str) -> Verdict:
    """Check the claims on the committed tables of an experiment and on those here; compare both.

    Raises:
        UserError: git has no committed tables, or there are none here.
    """
    commit = git("rev-parse", "HEAD")
    committed, here = compare.read(f"{experiment}@{commit}"), compare.read(experiment)
    known = claims.read(claims.source(experiment))
    tolerance = compare.Tolerance()
    some = compare.compare(committed, here, tolerance, intervals_only=True)
    every = compare.compare(committed, here, tolerance)
    agrees = compare.agrees(some)
    differing = some.loc[~agrees].itertuples(index=False)
    made = [compare.made_with(name, experiment) for name in (f"{experiment}@{commit}", experiment)]
    return Verdict(
        git("log", "-1", "--format=%h of %cs", commit),
        judge(known, _tables(committed), _tables(here)),
        [_counted("with an interval", some), _counted("all", every)],
        f"{agrees.sum():,} of {len(some):,}",
        [compare.format_difference(*result) for result in differing],
        environment.format_differences(*made),
    )


def judge(known: Sequence[Claim], committed: Tables, here: Tables) -> list[tuple[str, ...]]:
    """Return a row as CLAIMS for each claim about results of which either run has the tables."""
    rows = []
    for number, claim in enumerate(known, 1):
        if claim.holds is None:
            continue
        then, now = claims.check(claim, committed), claims.check(claim, here)
        if then.state == now.state == claims.ABSENT:
            continue
        before = then.found if then.state == claims.HOLDS else f"{then.state}: {then.found}"
        found = UNCHANGED if now == then else now.found
        rows.append((f"C{number}", claim.says, before, found, now.state))
    return rows


def _tables(run: Mapping[str, pd.DataFrame]) -> Tables:
    def table(name: str) -> pd.DataFrame:
        if name not in run:
            raise Missing(f"no table {name}")
        return run[name]

    return table


def _counted(what: str, results: pd.DataFrame) -> tuple[str, ...]:
    counts = Counter(results["state"])
    alone = counts[ONLY_FIRST] + counts[ONLY_SECOND]
    numbers = [counts[state] for state in (SAME, WITHIN, OVERLAP, DIFFERS)]
    return (what, *(f"{number:,}" for number in (len(results), *numbers, alone)))


def format_report(verdict: Verdict, about: str) -> Iterator[str]:
    """Yield the lines of the report, in Markdown.

    Args:
        verdict: of `reach`.
        about: of `stamp`, by which `is_kept` knows the report again.
    """
    yield from (f"<!-- {about} -->", "# What this run says of the committed one", "")
    yield from (f"{verdict.summary}.", "")
    yield from ("## Claims", "", *_markdown(CLAIMS, verdict.claims), "")
    yield "Claims that a command checks, such as `clearnets verify`, are in `clearnets claims`."
    yield from ("", "## Results", "", *_markdown(RESULTS, verdict.results), "")
    yield (
        "The same: to the last digit. Within tolerance: 2 % or 0.002. Intervals overlap: weak "
        "agreement, they do not tell the runs apart. Many results without an interval are of "
        "single latents, which on another processor or with other libraries are others."
    )
    yield from ("", f"The run here: {verdict.made_with}.")
    if verdict.apart:
        yield from ("", "## Results with an interval that do not agree", "")
        yield "The number of the committed run against that of the run here."
        yield from ("", *(f"- `{line}`" for line in verdict.apart[:LISTED]))
        if len(verdict.apart) > LISTED:
            yield f"- and {len(verdict.apart) - LISTED:,} more; `clearnets compare` prints them"


def _markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    for cells in (header, ["---"] * len(header), *rows):
        yield f"| {' | '.join(cell.replace('|', '/') for cell in cells)} |"


def is_kept(about: str) -> bool:
    """Return whether REPORT is of this commit and these tables."""
    try:
        with REPORT.open(encoding="utf-8") as file:
            return file.readline() == f"<!-- {about} -->\n"
    except OSError:
        return False


def has_reference(experiment: str) -> bool:
    """Return whether git has tables of an experiment, and there are claims to check on them."""
    try:
        listed = git("ls-tree", "--name-only", "HEAD", f"{paths.results(experiment)}/")
    except UserError:  # No git, no checkout, no commit.
        return False
    return bool(listed) and claims.source(experiment).exists()
