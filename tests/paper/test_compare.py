"""Two runs agree where their numbers or their intervals do, and every difference is listed."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pandas as pd
import pytest
from typer.testing import CliRunner

from clearnets import UserError, cli
from clearnets.paper import compare as comparison
from clearnets.paper.compare import (
    DIFFERS,
    ONLY_FIRST,
    ONLY_SECOND,
    OVERLAP,
    SAME,
    WITHIN,
    Tolerance,
)

MEANS = {"family": "a", "seed": "0", "n": "10", "mean": "0.5", "low": "0.4", "high": "0.6"}


def compare(first, second, **options) -> list[dict[str, str]]:
    one, other = (
        {name: pd.DataFrame(rows, dtype=str) for name, rows in run.items()}
        for run in (first, second)
    )
    tolerance = Tolerance(relative=0.02, absolute=0.002)
    return comparison.compare(one, other, tolerance, **options).to_dict("records")


def states(a, b, table="t", **options) -> dict[str, str]:
    found = compare({table: [a]}, {table: [b]}, **options)
    return {result["column"]: result["state"] for result in found}


@pytest.mark.parametrize(
    ("change", "state"),
    [
        ({}, SAME),
        ({"mean": "0.5019"}, WITHIN),
        ({"mean": "0.509"}, WITHIN),
        ({"mean": "0.55", "low": "0.59", "high": "0.7"}, OVERLAP),
        ({"mean": "0.3", "low": "0.2", "high": "0.4"}, OVERLAP),
        ({"mean": "0.65", "low": "0.61", "high": "0.7"}, DIFFERS),
        ({"mean": "0.55", "low": "", "high": ""}, DIFFERS),
        ({"mean": "", "low": "", "high": ""}, DIFFERS),
    ],
)
def test_numbers_agree_within_tolerance_or_by_their_intervals(change, state):
    assert states(MEANS, MEANS | change) == {"n": SAME, "mean": state}
    assert states(MEANS | change, MEANS) == {"n": SAME, "mean": state}


def test_a_column_of_its_own_has_its_own_interval():
    a = {"family": "a", "f1": "0.5", "f1_low": "0.4", "f1_high": "0.6", "latents": "100"}
    b = a | {"f1": "0.55", "f1_low": "0.5", "f1_high": "0.7", "latents": "90"}
    assert states(a, b) == {"f1": OVERLAP, "latents": DIFFERS}
    assert states(a, b, intervals_only=True) == {"f1": OVERLAP}


def test_rows_are_matched_by_what_names_them_and_not_by_their_place():
    first = [
        {"family": name, "rate_low": low, "mean": mean, "verdict": verdict}
        for name, low, mean, verdict in [
            ("a", "0.1", "0.5", "with"),
            ("a", "0.2", "0.6", "before"),
            ("b", "0.1", "0.7", "with"),
        ]
    ]
    second = [first[2], first[0] | {"verdict": "after"}, first[1] | {"family": "c"}]
    found = compare({"t": first}, {"t": second})
    assert {(result["row"], result["column"]): result["state"] for result in found} == {
        ("family=a rate_low=0.1", "mean"): SAME,
        ("family=a rate_low=0.1", "verdict"): DIFFERS,
        ("family=a rate_low=0.2", ""): ONLY_FIRST,
        ("family=b rate_low=0.1", "mean"): SAME,
        ("family=b rate_low=0.1", "verdict"): SAME,
        ("family=c rate_low=0.2", ""): ONLY_SECOND,
    }


def test_rows_of_one_name_are_matched_in_their_order():
    rows = [{"family": "a", "x": "1"}, {"family": "a", "x": "2"}]
    found = compare({"t": rows}, {"t": rows[:1]})
    assert [result["state"] for result in found] == [SAME, ONLY_FIRST]


def test_tables_and_columns_of_one_run_only_are_listed_once():
    first = {"t": [{"family": "a", "x": "1", "new": "2"}], "u": [{"x": "1"}]}
    second = {"t": [{"family": "a", "x": "1"}], "v": [{"x": "1"}]}
    found = compare(first, second)
    assert [(result["table"], result["column"], result["state"]) for result in found] == [
        ("t", "new", ONLY_FIRST),
        ("t", "x", SAME),
        ("u", "", ONLY_FIRST),
        ("v", "", ONLY_SECOND),
    ]


@pytest.fixture
def project(tmp_path, monkeypatch) -> Path:
    """A repository with one run committed, and a second state of it in the folder."""
    monkeypatch.chdir(tmp_path)
    folder = Path("paper/results/default")
    folder.mkdir(parents=True)
    (folder / "t.csv").write_text("family,mean\na,0.5\nb,0.7\n")
    for words in (
        ["init", "-q"],
        ["add", "-A"],
        ["-c", "user.name=t", "-c", "user.email=t@example.org", "commit", "-qm", "one"],
    ):
        subprocess.run(["git", *words], check=True)
    (folder / "t.csv").write_text("family,mean\na,0.5\nb,0.9\n")
    return tmp_path


def ask(*words: str):
    return CliRunner().invoke(cli.app, ["compare", *words])


def test_a_run_is_a_folder_a_name_or_a_name_at_a_commit(project):
    assert ask("default", "paper/results/default").exit_code == 0
    done = ask("default", "default@HEAD")
    assert done.exit_code == 1
    assert "t.csv family=b mean: 0.9 against 0.7" in done.output
    assert "1 of 2 results agree" in done.output
    assert ask("default", "default@HEAD", "--abs", "0.3").exit_code == 0
    assert ask("default", "default@HEAD", "--rel", "0.3").exit_code == 0
    nothing = ask("default", "default@HEAD", "--intervals")
    assert nothing.exit_code == 1
    assert nothing.output.endswith("0 of 0 results agree\n")
    assert "and 1 more" in ask("default", "default@HEAD", "--show", "0").output


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["default", "nothing"], "no run 'nothing': give a folder of tables"),
        (["default", "default@nowhere"], "no commit 'nowhere' here; `git log"),
        (["default", "other@HEAD"], "paper/results/other is not in commit 'HEAD'; `git log"),
        (["default", "default@HEAD", "--tables", "t,u"], "no table 'u'; there are: t"),
    ],
)
def test_what_is_no_run_gives_one_line(project, words, message):
    done = ask(*words)
    assert isinstance(done.exception, UserError)
    assert message in str(done.exception)
    assert "\n" not in str(done.exception)


def test_what_a_run_found_names_no_row():
    """The best latent of a concept, where a run stopped, and the place of a metric are results."""

    best = {"seed": "0", "family": "a", "concept": "c", "layer": "0", "latent": "7", "f1": "0.5"}
    other = best | {"layer": "1", "latent": "9"}
    assert states(best, other, "concepts") == {"layer": DIFFERS, "latent": DIFFERS, "f1": SAME}
    run = {"run": "dense-0", "seed": "0", "step": "100", "test_loss": "0.5"}
    found = states(run, run | {"step": "120"}, "generalization_runs")
    assert found == {"step": DIFFERS, "test_loss": SAME}
    place = {"metric": "hoyer", "rank": "1", "tau": "0.5", "tau_low": "0.4", "tau_high": "0.6"}
    found = states(place, place | {"rank": "2"}, "generalization_ranking")
    assert found == {"rank": DIFFERS, "tau": SAME}
    # Where they name a row, another one is another row.
    latent = {"layer": "0", "latent": "7", "f1": "0.5"}
    tables = ({"concept_latents": [row]} for row in (latent, latent | {"latent": "9"}))
    assert [result["state"] for result in compare(*tables)] == [ONLY_FIRST, ONLY_SECOND]
