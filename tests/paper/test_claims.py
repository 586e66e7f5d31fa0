"""Claims hold where the numbers say so and fail where they do not; the paper makes each of them."""

from __future__ import annotations

import re
import shutil
import time
from pathlib import Path

import pandas as pd
import pytest
from ruamel.yaml import YAML
from typer.testing import CliRunner

from clearnets import UserError, cli
from clearnets.paper import addresses, claims
from clearnets.pipeline import artifacts

ROOT = Path(__file__).parents[2]
SECTIONS = ROOT / "paper/sections"
RESULTS = "paper/results/default"
TABLE = [
    {"family": "a", "seed": "0", "mean": "0.7", "low": "0.6", "flag": "True", "verdict": "with"},
    {"family": "b", "seed": "0", "mean": "-0.5", "low": "0.4", "flag": "False", "verdict": "after"},
    {"family": "c", "seed": "0", "mean": "", "low": "", "flag": "", "verdict": ""},
]
BOUND = [{"name": "x", "value": "0.65"}, {"name": "y", "value": "1"}]


def check(**relation) -> claims.Finding:
    holds = {"table": "t", **relation}
    claim = claims.Claim.model_validate({"name": "n", "says": "s", "holds": holds})

    def tables(name):
        if name == "absent":
            raise addresses.Missing("no absent.csv")
        return pd.DataFrame({"t": TABLE, "bounds": BOUND}[name])

    return claims.check(claim, tables)


X = {"table": "bounds", "where": {"name": "x"}, "column": "value"}


@pytest.mark.parametrize(
    ("relation", "state"),
    [
        ({"where": {"family": "a"}, "column": "mean", "above": 0.6}, "holds"),
        ({"where": {"family": "a"}, "column": "mean", "above": 0.7}, "FAILS"),
        ({"where": {"family": "a"}, "column": "mean", "above": 0.71, "tolerance": 0.02}, "holds"),
        ({"where": {"family": "a"}, "column": "mean", "below": 0.7}, "FAILS"),
        ({"where": {"family": "a"}, "column": "mean", "equal": 0.69, "tolerance": 0.02}, "holds"),
        ({"where": {"family": "a"}, "column": "mean", "equal": 0.69}, "FAILS"),
        # All selected rows must satisfy it.
        ({"where": {"family": ["a", "b"]}, "column": "low", "above": 0.3}, "holds"),
        ({"where": {"family": ["a", "b"]}, "column": "low", "above": 0.5}, "FAILS"),
        ({"where": {"seed": 0}, "column": "low", "above": 0.3}, "FAILS"),  # one has no number
        ({"where": {"seed": 0}, "column": "low", "above": 0.3, "at most": 2}, "holds"),
        ({"where": {"seed": 0}, "column": "low", "above": 0.3, "at most": 1}, "FAILS"),
        # Another number as the bound: of another table, or of the same row.
        ({"where": {"family": "a"}, "column": "mean", "above": X}, "holds"),
        ({"where": {"family": "a"}, "column": "mean", "below": X}, "FAILS"),
        ({"where": {"family": "a"}, "column": "low", "below": {"column": "mean"}}, "holds"),
        ({"where": {"family": "b"}, "column": "low", "below": {"column": "mean"}}, "FAILS"),
        ({"where": {"family": "b"}, "column": "mean", "above": 0.4, "absolute": True}, "holds"),
        # Truth values and words.
        ({"where": {"family": "a"}, "column": "flag", "equal": True}, "holds"),
        ({"where": {"family": "b"}, "column": "flag", "equal": True}, "FAILS"),
        ({"where": {"family": "a"}, "column": "verdict", "equal": ["with", "before"]}, "holds"),
        ({"where": {"family": "b"}, "column": "verdict", "equal": ["with", "before"]}, "FAILS"),
        # A claim about nothing does not hold.
        ({"where": {"family": "z"}, "column": "mean", "above": 0}, "not there"),
        ({"where": {"seed": 0}, "rows": 2, "column": "verdict", "equal": "with"}, "FAILS"),
        ({"table": "absent", "column": "mean", "above": 0}, "not there"),
    ],
)
def test_a_relation_holds_or_fails(relation, state):
    finding = check(**relation)
    assert finding.state == state
    assert finding.broken == (state != "holds")


def test_what_was_found_is_the_number_nearest_to_breaking_it():
    both = {"where": {"family": ["a", "b"]}, "column": "low"}
    assert check(**both, above=0.3).found == "low = 0.4, above 0.3"
    assert check(**both, below=0.9).found == "low = 0.6, below 0.9"
    assert check(**both, above=0.5).found == "low = 0.4, above 0.5 (1 of 2 rows)"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{name: a, says: b}", "give one of holds, command"),
        ("{name: a, says: b, command: rm -r x}", "a command that is run is one of clearnets"),
        ("{name: a, says: b, holds: {table: t, column: c}}", "give one of above, below, equal"),
        ("{name: a, says: b, holds: {table: t, column: c, over: 1}}", "holds.over"),
        ("{name: a, says: b, holds: {table: t, column: c, equal: [0.1]}}", "holds.equal"),
        ("{name: a, holds: {table: t, column: c, above: 1}}", "says"),
    ],
)
def test_what_is_no_claim_gives_one_line(tmp_path, text, message):
    path = tmp_path / "claims.yaml"
    path.write_text(f"claims:\n  - {text}\n")
    with pytest.raises(UserError, match=re.escape(message)) as error:
        claims.read(path)
    assert str(error.value).startswith(f"{path}, claim 1: ")
    assert "\n" not in str(error.value)


def test_a_column_that_is_not_there_is_an_error_and_no_failure():
    with pytest.raises(UserError, match=r"t.csv has no column 'nothing'"):
        check(column="nothing", above=0)


def test_the_paper_makes_every_claim_and_no_other():
    known = claims.read(ROOT / claims.SOURCE)
    text = "".join(path.read_text() for path in SECTIONS.glob("*.typ"))
    made = re.findall(r'#claim\("([^"]+)"\)', text)
    of_results = [claim.name for claim in known if claim.holds is not None]
    assert set(made) == set(of_results)
    assert len(set(of_results)) == len(of_results)


def test_every_claim_reads_numbers_that_the_results_have_and_can_fail(committed, monkeypatch):
    """With every number's sign turned, and every word another, no claim about results holds but
    those that say what is not there."""
    monkeypatch.chdir(ROOT)
    tables = addresses.tables_in(committed / RESULTS)

    def spoilt(name):
        frame = tables(name).copy()
        for column in {"matched", "equivalent", "equivalent_seeds", "holds", "passes"} & set(
            frame.columns
        ):
            frame[column] = frame[column].map(
                lambda cell: {"True": "False", "False": "True"}.get(cell, "both")
            )
        for column in frame.columns.difference(
            ["rate_low", "seed", "layer", "rank", "equivalence", "probe"]
        ):
            numbers = pd.to_numeric(frame[column], errors="coerce")
            frame[column] = frame[column].where(numbers.isna(), (-numbers).astype(str))
        return frame

    for claim in claims.read():
        if claim.holds is not None and claim.name != "neurons-like-null":
            assert claims.check(claim, tables).state in ("holds", "FAILS"), claim.name
        # Below a bound that a turned number is below as well: checked by hand.
        turned = {"below-trigram", "fvu-below-baselines", "label-noise-says-more"}
        turned |= {"few-dead", "grades-carry-more", "circuits-without-errors", "half-are-shared"}
        turned |= {"depth-matters-over-seeds", "native-latents-do-not-come-back"}
        turned |= {"errors-are-needed-over-seeds"}
        if claim.holds is not None and claim.name not in turned | {"neurons-like-null"}:
            assert claims.check(claim, spoilt).state == "FAILS", claim.name


def test_every_claim_about_results_holds_on_the_committed_ones(committed, monkeypatch):
    monkeypatch.chdir(ROOT)
    started = time.monotonic()
    known = [claim for claim in claims.read() if claim.holds is not None]
    findings = claims.check_all(known, addresses.tables_in(committed / RESULTS))
    assert time.monotonic() - started < 10
    assert len(findings) >= 15
    assert [(one.claim.name, one.state, one.found) for one in findings if one.broken] == []


@pytest.fixture
def project(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = Path("paper/results/default")
    artifacts.write_text(folder / "t.csv", "family,mean\na,0.5\n")
    artifacts.write_json(folder / "manifest.json", {"settings": {}, "files": {}})
    text = """claims:
  - {name: fine, says: It is so., holds: {table: t, column: mean, above: 0.4}}
  - {name: run, says: It runs., command: clearnets --help, cost: 1 second}
  - {name: long, says: It learns., command: dvc repro && true, cost: a day, training: true}
"""
    artifacts.write_text(claims.SOURCE, text)
    return tmp_path


def ask(*words: str):
    return CliRunner().invoke(cli.app, ["claims", "--experiment", "default", *words])


def test_the_command_ticks_claims_and_exits_with_1_where_one_fails(project):
    done = ask()
    lines = [line.split("\t") for line in done.output.splitlines()]
    assert done.exit_code == 0
    assert [line[:2] + line[3:4] for line in lines[1:3]] == [
        ["C1", "fine", "holds"],
        ["C2", "run", "holds"],
    ]
    assert lines[-1] == ["2 holds"]
    assert "a day" not in done.output
    every = ask("--all")
    assert every.exit_code == 0
    assert "C3\tlong\tIt learns.\tneeds training\tdvc repro && true\ta day" in every.output
    Path("paper/results/default/t.csv").write_text("family,mean\na,0.3\n")
    failed = ask()
    assert failed.exit_code == 1
    assert "1 holds, 1 FAILS" in failed.output


def test_a_command_that_fails_is_a_claim_that_fails(project):
    text = Path(claims.SOURCE).read_text().replace("clearnets --help", "clearnets no-such-command")
    Path(claims.SOURCE).write_text(text)
    assert ask().exit_code == 1


def test_an_experiment_with_a_list_of_its_own_is_tested_by_that(project):
    own = """claims:
  - {name: low, says: It is low., holds: {table: t, column: mean, below: 0.4}}
  - {name: more, says: There is more., holds: {table: u, column: mean, below: 0.4}}
  - {name: runs, says: It runs., command: clearnets no-such-command}
  - {name: file, says: It is there., file: paper/results/default/t.csv}
  - {name: empty, says: So is this., file: empty}
"""
    artifacts.write_text(claims.SOURCE.with_name("claims-default.yaml"), own)
    Path("empty").touch()
    done = ask()
    assert done.exit_code == 1
    assert [line.split("\t")[3:5] for line in done.stdout.splitlines()[1:-1]] == [
        ["FAIL", "mean = 0.5, below 0.4"],
        ["FAIL", "no paper/results/default/u.csv"],
        ["FAIL", "clearnets: no such command 'no-such-command'; see `clearnets --help`"],
        ["PASS", "paper/results/default/t.csv, 18 bytes"],
        ["FAIL", "no empty"],
    ]
    assert done.stdout.splitlines()[-1] == "1 PASS, 4 FAIL"


def test_another_experiment_breaks_no_claim_that_it_does_not_ask_about(
    committed, tmp_path, monkeypatch
):
    """Only the paper's own tables must have what its claims are about."""
    shutil.copytree(committed / "paper/results/smollm2", tmp_path / "paper/results/smollm2")
    for name in ("params.yaml", "paper/claims.yaml", "paper/registration.yaml"):
        shutil.copyfile(ROOT / name, tmp_path / name)
    monkeypatch.chdir(tmp_path)
    few = [
        claim.model_dump(exclude_none=True, by_alias=True)
        for claim in claims.read()
        if claim.name in ("pair-matched", "dense-groks", "paper-follows")
    ]
    YAML().dump({"claims": few}, tmp_path / claims.SOURCE)
    done = CliRunner().invoke(cli.app, ["claims", "--experiment", "smollm2"])
    assert [line.split("\t")[3] for line in done.stdout.splitlines()[1:-1]] == [
        "holds",
        "not there",
    ]
    assert done.stdout.splitlines()[-1] == "1 holds, 1 not there"
    assert done.exit_code == 0
