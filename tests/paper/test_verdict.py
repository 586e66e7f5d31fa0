"""A run ends with a verdict: claims and results, as committed and as they are here."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from typer.testing import CliRunner

from clearnets import cli
from clearnets.paper import claims
from clearnets.pipeline import artifacts
from clearnets.pipeline.scheduler import repro

ROOT = Path(__file__).parents[2]
TABLES = Path("paper/results/default")
REPORT = Path("verdict.md")
CLAIMS = """claims:
  - {name: clear, says: It is clear., holds: {table: t, where: {n: 7}, column: mean, above: 0.4}}
  - {name: alike, says: It is alike., holds: {table: t, where: {family: b}, column: mean, below: 1}}
  - {name: elsewhere, says: It is nowhere., holds: {table: none, column: mean, below: 1}}
  - {name: runs, says: It runs., command: clearnets no-such-command}
"""
COMMITTED = "family,mean,low,high,n\na,0.5,0.45,0.55,7\nb,0.7,0.69,0.71,9\n"


def write(table: str) -> None:
    artifacts.write_text(TABLES / "t.csv", table)
    files = {"t.csv": {"size": len(table), "sha256": artifacts.sha256(TABLES / "t.csv")}}
    artifacts.write_json(TABLES / "manifest.json", {"settings": {}, "files": files})


@pytest.fixture
def project(tmp_path, monkeypatch) -> None:
    """A repository whose tables are committed."""
    monkeypatch.chdir(tmp_path)
    shutil.copyfile(ROOT / "params.yaml", "params.yaml")
    artifacts.write_text(claims.SOURCE, CLAIMS)
    write(COMMITTED)
    for words in (
        ["init", "-q"],
        ["add", "-A"],
        ["-c", "user.name=t", "-c", "user.email=t@example.org", "commit", "-qm", "one"],
    ):
        subprocess.run(["git", *words], check=True)


def ask(*words: str):
    return CliRunner().invoke(cli.app, [*words])


def rows(output: str) -> list[list[str]]:
    return [line.split("\t") for line in output.splitlines() if "\t" in line]


def test_the_same_tables_give_a_verdict_without_a_difference(project):
    done = ask("compare")
    assert done.exit_code == 0, done.output
    found = rows(done.output)
    assert found[1] == ["C1", "It is clear.", "mean = 0.5, above 0.4", "the same", "holds"]
    assert ["with an interval", "2", "2", "0", "0", "0", "0"] in found
    assert ["all", "4", "4", "0", "0", "0", "0"] in found
    assert "2 of 2 claims about results hold here; 2 of 2 results" in done.output


def test_another_run_keeps_the_committed_one_in_sight(project):
    write("family,mean,low,high,n\na,0.3,0.25,0.35,7\nb,0.702,0.69,0.712,8\nc,1,,,1\n")
    done = ask("compare")
    assert done.exit_code == 1
    found = rows(done.output)
    assert found[1] == [
        *("C1", "It is clear.", "mean = 0.5, above 0.4", "mean = 0.3, above 0.4", "FAILS"),
    ]
    assert found[2][2:] == ["mean = 0.7, below 1", "mean = 0.702, below 1", "holds"]
    assert ["with an interval", "2", "0", "1", "0", "1", "0"] in found
    assert ["all", "5", "1", "1", "0", "2", "1"] in found
    report = REPORT.read_text()
    assert "| C1 | It is clear. | mean = 0.5, above 0.4 | mean = 0.3, above 0.4 | FAILS |" in report
    assert "- `t.csv family=a mean: 0.5 against 0.3`" in report
    assert "It is nowhere" not in report
    assert "1 of 2 claims about results hold here; 1 of 2 results" in report
    # Of two runs by name it says nothing about claims.
    REPORT.unlink()
    assert "C1" not in ask("compare", "default@HEAD", "default").output
    assert not REPORT.exists()


def test_a_whole_run_prints_the_verdict_once(project, monkeypatch):
    failed = []
    monkeypatch.setattr(repro, "run", lambda *_: not failed)
    assert "It is clear." in ask("repro", "--jobs", "1").output
    assert ask("repro", "--jobs", "1").output == "verdict: verdict.md\n"
    write(COMMITTED.replace("0.5,", "0.2,"))
    assert ask("repro", "collate", "--jobs", "1").output == ""
    failed.append("score@sae")
    assert ask("repro", "--jobs", "1").exit_code == 1
    assert "0.2" not in REPORT.read_text()
    failed.clear()
    done = ask("repro", "--jobs", "1")
    # Whether results agree is no matter of the run's success.
    assert done.exit_code == 0
    assert "mean = 0.2, above 0.4\tFAILS" in done.output


@pytest.mark.parametrize("lacking", [".git", "paper/claims.yaml"])
def test_without_a_reference_a_run_ends_as_before(project, lacking, monkeypatch):
    monkeypatch.setattr(repro, "run", lambda *_: True)
    shutil.rmtree(lacking) if lacking == ".git" else Path(lacking).unlink()
    done = ask("repro", "--jobs", "1")
    assert (done.exit_code, done.output) == (0, "")
    assert not REPORT.exists()
