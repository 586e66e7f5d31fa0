"""Stages are made anew from their recorded inputs: a result that no run made is found out."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from clearnets import UserError
from clearnets.cli import app
from clearnets.pipeline import times
from clearnets.provenance import lockfile, rerun

PIPELINE = """
stages:
  data:
    cmd: mkdir -p artifacts && seq 5 > artifacts/data
    outs: [artifacts/data]
  sums:
    foreach: [a, b]
    do:
      cmd:
        - mkdir -p artifacts/sums/${item}/deep
        - wc -l < artifacts/data > artifacts/sums/${item}/deep/lines
        - echo ${item} > artifacts/sums/${item}/name
      deps: [artifacts/data]
      outs:
        - artifacts/sums/${item}
  table:
    cmd: mkdir -p paper && test -e artifacts/data && cat artifacts/sums/*/name > paper/table
    deps: [artifacts/sums]
    outs: [paper/table]
"""
NAMES = ["data", "sums@a", "sums@b", "table"]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pipeline")
    (folder / "dvc.yaml").write_text(PIPELINE)
    (folder / "params.yaml").write_text("experiment: tiny\n")
    dvc = Path(sys.executable).with_name("dvc")
    for words in (["init", "--no-scm", "-q"], ["repro", "-q"]):
        subprocess.run([dvc, *words], cwd=folder, check=True, env={**os.environ, "CI": "1"})
    return folder


@pytest.fixture
def project(made, tmp_path, monkeypatch):
    shutil.copytree(made, tmp_path / "p")
    monkeypatch.chdir(tmp_path / "p")
    monkeypatch.setattr("clearnets.config.load", lambda: None)
    monkeypatch.setattr("clearnets.pipeline.stage.names_of", lambda _: NAMES)
    monkeypatch.setattr("clearnets.pipeline.dvc.code_fingerprints", lambda _: {})


def verify(*words: str) -> tuple[int, list[str]]:
    done = CliRunner().invoke(app, ["verify", *words])
    return done.exit_code, done.output.splitlines()


def fabricate(path: str, text: str) -> None:
    """Change a result, and the record with it: its hashes are right."""
    entries = {
        entry
        for step in lockfile.read_lock()
        for entry in (*step.reads, *step.writes)
        if path.startswith(entry.path)
    }
    Path(path).write_text(text)
    record = Path("dvc.lock").read_text()
    for entry in entries:
        record = record.replace(entry.md5, str(lockfile.md5(Path(entry.path))))
    Path("dvc.lock").write_text(record)


def states(lines: list[str]) -> dict[str, str]:
    start = next(n for n, line in enumerate(lines) if line.startswith("made anew")) + 1
    return {name: said for name, _, said in (line.partition(": ") for line in lines[start:])}


def test_all_stages_made_anew_have_the_recorded_bytes_and_nothing_is_left(project):
    before = lockfile.listing(Path())
    code, lines = verify("--rerun", "9")
    assert code == 0, lines
    found = states(lines)
    assert list(found) == [step.name for step in lockfile.read_lock()]
    assert all(said.startswith("the same bytes, ") for said in found.values())
    assert "2 files" in found["sums@a"]
    assert lockfile.listing(Path()) == before


def test_a_fabricated_result_with_right_hashes_is_found(project):
    fabricate("artifacts/sums/b/deep/lines", "6\n")
    code, lines = verify()
    assert (code, lines[0]) == (0, "4 of 4 stages as recorded")
    code, lines = verify("--rerun", "9")
    assert code == 1
    found = states(lines)
    assert found["sums@b"] == "OTHER BYTES: artifacts/sums/b/deep/lines"
    # The fabricated file is the input that is recorded of what reads it.
    assert [said for said in found.values() if "OTHER" in said] == [found["sums@b"]]


def test_a_command_that_no_longer_works_is_told_by_its_last_line(project):
    record = Path("dvc.lock").read_text()
    assert "seq 5 >" in record
    Path("dvc.lock").write_text(record.replace("seq 5 >", "no-such-command 5 >"))
    code, lines = verify("--rerun", "9")
    assert code == 1
    assert "no-such-command: " in states(lines)["data"]
    assert states(lines)["data"].startswith("FAILED: ")


def test_a_draw_is_by_its_number_alone(project):
    steps = lockfile.read_lock()
    draws = {tuple(step.name for step in rerun.drawn(steps, 2, draw)) for draw in range(20)}
    assert len(draws) > 3
    assert all(len(draw) == 2 for draw in draws)
    shuffled = sorted(steps, key=lambda step: step.name, reverse=True)
    one, other = (rerun.drawn(order, 2, 7) for order in (steps, shuffled))
    assert {step.name for step in one} == {step.name for step in other}
    first, again = (verify("--rerun", "2", "--draw", "7") for _ in range(2))
    assert list(states(first[1])) == list(states(again[1])) == [step.name for step in one]


def test_what_is_not_as_recorded_or_takes_long_is_not_drawn(project):
    steps = lockfile.read_lock()

    def names(**seconds: float) -> set[str]:
        found = list(lockfile.faults(steps, {}, NAMES))
        return {step.name for step in rerun.candidates(steps, found, seconds)}

    assert names() == set(NAMES)
    assert names(data=61.0, table=59.0) == {"sums@a", "sums@b", "table"}
    Path("artifacts/sums/a/name").write_text("x")
    assert names() == {"data", "sums@b"}  # what reads it is stale
    Path("artifacts/data").unlink()
    assert names() == set()
    with pytest.raises(UserError, match="no stage that is as recorded has its inputs here"):
        CliRunner().invoke(app, ["verify", "--rerun", "1"], catch_exceptions=False)


def test_times_of_this_machine_choose_what_is_short(project):
    times.TIMES.parent.mkdir(parents=True)
    times.TIMES.write_text('{"stage": "data", "seconds": 100}\n')
    assert "data" not in states(verify("--rerun", "9")[1])
