"""Tracing and verifying, on small pipelines that DVC itself ran, and on the record in git."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from clearnets import UserError
from clearnets.cli import app
from clearnets.pipeline import commands, environment, times
from clearnets.pipeline.artifacts import Unit, build_all
from clearnets.provenance import dvc_cache, lockfile, runs
from clearnets.provenance import verify as verification

ROOT = Path(__file__).parents[2]

# Two families of numbers, their sums together, and a picture of the sums.
PIPELINE = """
stages:
  data:
    cmd: mkdir -p artifacts && seq 5 > artifacts/data
    params: [data.size]
    outs: [artifacts/data]
  cache:
    foreach: [a, b]
    do:
      cmd:
        - mkdir -p artifacts/cache/${item}/deep
        - cp artifacts/data artifacts/cache/${item}/deep/x
        - echo ${item} > artifacts/cache/${item}/y
      deps: [artifacts/data, clearnets/code.py]
      outs:
        - artifacts/cache/${item}
  other:
    cmd: echo 1 > artifacts/other
    outs: [artifacts/other]
  figures:
    cmd: mkdir -p paper/figures && cat artifacts/cache/a/y artifacts/cache/b/y > paper/figures/f.svg
    deps: [artifacts/cache]
    outs: [paper/figures]
"""


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pipeline")
    (folder / "dvc.yaml").write_text(PIPELINE)
    (folder / "params.yaml").write_text("data: {size: 5}\n")
    (folder / "clearnets").mkdir()
    (folder / "clearnets/code.py").write_text("x = 1\n")
    dvc = Path(sys.executable).with_name("dvc")
    for words in (["init", "--no-scm", "-q"], ["repro", "-q"]):
        subprocess.run([dvc, *words], cwd=folder, check=True, env={**os.environ, "CI": "1"})
    return folder


NAMES = ["data", "cache@a", "cache@b", "other", "figures"]


@pytest.fixture
def project(made, tmp_path, monkeypatch):
    """The pipeline that was run, and its stages in place of clearnets' own."""
    shutil.copytree(made, tmp_path / "p")
    monkeypatch.chdir(tmp_path / "p")
    monkeypatch.setattr("clearnets.config.load", lambda: None)
    monkeypatch.setattr("clearnets.pipeline.stage.names_of", lambda _: NAMES)
    monkeypatch.setattr("clearnets.pipeline.dvc.code_fingerprints", lambda _: {})


def verify() -> tuple[int, str]:
    """What `clearnets verify` says, without its last line, which is about the processor."""
    done = CliRunner().invoke(app, ["verify"])
    return done.exit_code, "".join(done.output.splitlines(keepends=True)[:-1])


def test_what_dvc_wrote_is_as_recorded_and_untouched_by_the_look(project):
    assert verify() == (0, "5 of 5 stages as recorded\n")
    record = {entry.path: entry.md5 for step in lockfile.read_lock() for entry in step.writes}
    cached = [path.relative_to(".dvc/cache/files/md5") for path in Path(".dvc").rglob("*.dir")]
    ours = {md5 for md5 in record.values() if md5.endswith(".dir")}
    assert ours == {path.as_posix().replace("/", "") for path in cached}


def test_a_library_of_another_version_than_the_runs_is_named(project):
    times.TIMES.parent.mkdir(parents=True)
    made_with = {**environment.here(), "torch": "1.0"}
    times.TIMES.write_text(json.dumps({"stage": "x", "seconds": 1, "made_with": made_with}))
    code, said = verify()
    found = environment.here()["torch"]
    assert (code, said.splitlines()[-1]) == (
        0,
        f"a run here: made with torch {found} instead of 1.0; a library of another version is the "
        "likely cause of other results",
    )


def test_a_result_comes_from_the_stages_behind_it_and_no_others(project):
    chain = [step.name for step in lockfile.trace(lockfile.read_lock(), "paper/figures/f.svg")]
    assert chain[0] == "figures"
    assert chain[-1] == "data"
    assert set(chain) == {"figures", "cache@a", "cache@b", "data"}
    done = CliRunner().invoke(app, ["trace", "artifacts/cache/b/y"])
    assert done.exit_code == 0
    lines = [line.split() for line in done.output.splitlines()]
    shown = lockfile.md5(Path("artifacts/cache/b"))[:12]
    assert ["cache@b", "artifacts/cache/b", shown, "12", "B", "data"] in lines
    assert not any("cache@a" in line for line in lines)
    assert "data.size: 5" in done.output


def came_home(name: str, lock: str) -> Path:
    """What `clearnets exp` leaves in the checkout, as far as a trace reads it."""
    home = Path("paper/results") / name
    shutil.copytree("paper/figures", home / "figures")
    (home / "dvc.lock").write_text(lock)
    (home / "commit.txt").write_text("0123456789abcdef\n")
    shutil.rmtree("paper/figures")
    return home


def test_results_of_an_experiment_are_traced_in_its_own_record(project):
    home = came_home(
        "wide",
        Path("dvc.lock").read_text().replace("artifacts/other", "paper/results/wide"),
    )
    # The checkout's own record and artifacts are not asked.
    Path("dvc.lock").unlink()
    done = CliRunner().invoke(app, ["trace", str(home / "figures/f.svg")])
    assert done.exit_code == 0
    lines = done.output.splitlines()
    assert lines[0] == f"{home}/figures/f.svg, of experiment wide, run at commit 0123456789ab"
    assert {line.split()[0] for line in lines[3:7]} == {"figures", "cache@a", "cache@b", "data"}
    said, _, cure = lines[-1].partition("; ")
    lacking = {"artifacts/cache/a", "artifacts/cache/b", "artifacts/data"}
    assert set(said.removeprefix("not here: ").split(", ")) == lacking
    assert cure == "`clearnets exp wide` makes it"
    # Where the experiment ran, all is there.
    Path(".clearnets/exp/wide").mkdir(parents=True)
    shutil.copytree("artifacts", ".clearnets/exp/wide/artifacts")
    again = CliRunner().invoke(app, ["trace", "--experiment", "wide", "paper/figures/f.svg"])
    assert again.output.splitlines()[1:] == lines[1:-1]
    with pytest.raises(UserError, match="no stage wrote paper/results/wide"):
        run = runs.of(f"{home}/figures/none.svg")
        lockfile.trace(run.steps, run.recorded(f"{home}/figures/none.svg"), run.here)


def test_an_experiment_that_compares_nothing_is_collated_and_drawn_outside_dvc(monkeypatch):
    monkeypatch.chdir(ROOT)
    path = "paper/results/grokking-113/figures/observed-grokking.pdf"
    run = runs.of(path)
    chain = lockfile.trace(run.steps, run.recorded(path), run.here)
    assert [step.name for step in chain] == ["figures", "collate", "generalize@grokking"]
    commit = Path("paper/results/grokking-113/commit.txt").read_text()
    assert commit.startswith(run.origin.split()[-1])
    assert [made.md5 for step in chain[:2] for made in step.writes] == [runs.NO_HASH] * 2


def test_an_experiment_without_a_record_is_to_run():
    shutil.copyfile(ROOT / "params.yaml", "params.yaml")
    shutil.copytree(ROOT / "experiments", "experiments")
    for words in (
        ["paper/results/smoke/means.csv"],
        ["paper/figures/a.pdf", "--experiment", "smoke"],
    ):
        done = CliRunner().invoke(app, ["trace", *words])
        assert str(done.exception).endswith("no run is recorded; run `clearnets exp smoke`")
    done = CliRunner().invoke(app, ["trace", "a", "--experiment", "nothing"])
    assert "unknown experiment 'nothing'" in str(done.exception)


def test_the_record_is_of_a_commit_or_modified_since():
    lock = Path("dvc.lock")
    lock.write_text("one")
    assert lockfile.commit_of(lock) is None
    who = ("-c", "user.name=a", "-c", "user.email=a@example.org")
    for words in (["init", "-q"], ["add", "."], [*who, "commit", "-q", "-m", "Run"]):
        subprocess.run(["git", *words], check=True)
    words = ["git", "show", "-s", "--format=%h of %cs"]
    commit = subprocess.run(words, capture_output=True, text=True, check=True).stdout.strip()
    assert lockfile.commit_of(lock) == commit
    lock.write_text("two")
    assert lockfile.commit_of(lock) == f"{commit} (dvc.lock is modified since)"
    subprocess.run(["git", "add", "."], check=True)
    assert lockfile.commit_of(lock) == f"{commit} (dvc.lock is modified since)"


def test_without_git_a_result_is_traced_and_no_commit_named(project, monkeypatch):
    there = runs.of("paper/figures/f.svg")
    monkeypatch.setenv("PATH", "nothing")
    without = runs.of("paper/figures/f.svg")
    assert (without.steps, without.origin) == (there.steps, "as recorded")
    assert dvc_cache.committed_files(there.steps[0].writes[0]) is None
    with pytest.raises(UserError, match="there is no git on the PATH; install it"):
        commands.git("status")


@pytest.mark.parametrize("path", ["artifacts/nothing", "README.md", "paper/figures/none.svg"])
def test_what_no_stage_wrote_is_one_line(project, path):
    with pytest.raises(UserError, match=f"no stage wrote {path}"):
        lockfile.trace(lockfile.read_lock(), path)
    with pytest.raises(UserError, match="name one of artifacts/cache/a, artifacts/cache/b, "):
        lockfile.trace(lockfile.read_lock(), "artifacts")


def test_a_result_changed_by_hand_is_distinguished_from_stale_and_missing_ones(project):
    # The same size and, a second later, no look at time stamps either.
    before = Path("artifacts/cache/a/y")
    stamp = before.stat()
    before.unlink()  # It may be a link into the cache.
    before.write_text("z\n")
    os.utime(before, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    code, said = verify()
    assert code == 1
    assert said.splitlines() == [
        "changed: artifacts/cache/a/y",
        "restore from DVC's cache: `dvc checkout --force artifacts/cache/a`",
        # The stage behind it read something else.
        "stale until then, as they read these: figures",
        "",
        "3 of 5 stages as recorded; 1 changed, 1 stale",
    ]


def test_files_of_a_folder_are_named_and_brought_back_by_the_cure(project):
    shutil.rmtree("artifacts/cache/a/deep")
    Path("artifacts/cache/b/more").write_text("")
    code, said = verify()
    assert code == 1
    assert said.splitlines()[:2] == [
        "extra: artifacts/cache/b/more",
        "missing: artifacts/cache/a/deep/x",
    ]
    assert said.endswith("2 of 5 stages as recorded; 1 missing, 1 extra, 1 stale\n")
    cure = re.search("`(dvc .*)`", said)[1].split()
    dvc = Path(sys.executable).with_name("dvc")
    subprocess.run([dvc, *cure[1:]], check=True, capture_output=True)
    assert verify() == (0, "5 of 5 stages as recorded\n")


def test_many_files_are_counted(project):
    for number in range(8):
        Path(f"artifacts/cache/b/{number}").write_text("")
    said = verify()[1].splitlines()
    assert said[:5] == [f"extra: artifacts/cache/b/{number}" for number in range(5)]
    assert said[5] == "extra: and 3 more in artifacts/cache/b"


def test_what_is_changed_in_dvcs_cache_too_cannot_come_from_there(project):
    entry = next(
        e for step in lockfile.read_lock() for e in step.writes if e.path == "artifacts/other"
    )
    held = dvc_cache.object_path(entry.md5, commands.dvc_cache())
    held.chmod(0o644)
    for path in (held, Path(entry.path)):
        path.unlink()
        path.write_text("2\n")
    said = verify()[1]
    assert f"changed in DVC's cache, too: `rm -f {held}`, then `dvc repro`" in said
    assert "dvc checkout" not in said
    held.unlink()
    dvc = Path(sys.executable).with_name("dvc")
    subprocess.run([dvc, "repro", "-q", "other"], check=True)
    assert Path(entry.path).read_text() == "1\n"
    assert verify()[0] == 0


def test_what_is_in_git_comes_from_there_if_it_is_there_as_recorded(project):
    shutil.rmtree(".dvc/cache")
    who = ("-c", "user.name=a", "-c", "user.email=a@example.org")
    for words in (["init", "-q"], ["add", "-f", "artifacts"], [*who, "commit", "-qm", "Run"]):
        subprocess.run(["git", *words], check=True)
    Path("artifacts/cache/b/y").write_text("changed\n")
    Path("artifacts/other").unlink()
    said = verify()[1]
    assert "changed: artifacts/cache/b/y\n" in said
    cure = re.search("`(git checkout .*)`", said)[1].split()
    assert cure[2:4] == ["HEAD", "--"]
    assert set(cure[4:]) == {"artifacts/cache/b", "artifacts/other"}
    subprocess.run(cure, check=True, capture_output=True)
    assert verify()[0] == 0
    # A commit of something else is no cure.
    Path("artifacts/cache/b/y").write_text("changed\n")
    for words in (["add", "-f", "artifacts"], [*who, "commit", "-qm", "Another"]):
        subprocess.run(["git", *words], check=True)
    said = verify()[1]
    assert said.startswith("changed: artifacts/cache/b\nneither in DVC's cache nor as recorded")


def test_without_cache_and_git_manifests_tell_the_files():
    def fill(work: Path) -> None:
        (work / "one").write_text("1")
        (work / "deep").mkdir()
        (work / "deep/two").write_text("2")

    Path(".dvc").mkdir()
    Path(".dvc/config").touch()
    for item in "ab":
        unit = Unit("cache", Path("out") / item, {}, {})
        for _, work in build_all([unit]):
            fill(work.out)
    entry = lockfile.Entry("out", lockfile.md5(Path("out")), 4, 6)
    step = lockfile.Step("cache", "", (), (entry,), {})
    Path("out/a/one").write_text("3")
    Path("out/a/deep/two").unlink()
    Path("out/b/deep/three").write_text("")
    found = list(lockfile.faults([step], {}, ()))
    assert {(one.path, one.state) for one in verification.differences([step], found)} == {
        ("out/a/one", "changed"),
        ("out/a/deep/two", "missing"),
        ("out/b/deep/three", "extra"),
    }


def test_code_and_parameters_make_stale_what_was_made_from_them(project):
    Path("clearnets/code.py").write_text("x = 2\n")
    code, said = verify()
    assert code == 1
    assert said.startswith("stale: clearnets/code.py, changed since cache@a, cache@b read it\n")
    assert said.endswith("3 of 5 stages as recorded; 2 stale\n")
    Path("params.yaml").write_text("data: {size: 6}\n")
    code, said = verify()
    assert code == 1
    assert "stale: parameter data.size, changed since data read it\n" in said
    assert said.endswith("2 of 5 stages as recorded; 3 stale\n")
    Path("params.yaml").write_text("data: null\n")
    assert "parameter data.size" in verify()[1]


def test_what_is_not_here_is_no_fault(project):
    shutil.rmtree("artifacts/cache/b")
    code, said = verify()
    assert code == 0
    assert said.startswith("missing: artifacts/cache/b\nrestore from DVC's cache: `dvc checkout")
    assert said.endswith("4 of 5 stages as recorded; 1 missing\n")
    # A list of files without one of them brings nothing back.
    written = (entry for step in lockfile.read_lock() for entry in step.writes)
    (listed,) = (entry.md5 for entry in written if entry.path == "artifacts/cache/b")
    cache = commands.dvc_cache()
    first, *_ = json.loads(dvc_cache.object_path(listed, cache).read_text())
    dvc_cache.object_path(first["md5"], cache).unlink()
    assert "neither in DVC's cache" in verify()[1]
    shutil.rmtree(".dvc/cache")
    assert "`dvc pull` brings what a remote has, `dvc repro` makes it" in verify()[1]


def test_a_stage_that_has_not_run_is_named(project, monkeypatch):
    monkeypatch.setattr("clearnets.pipeline.stage.names_of", lambda _: [*NAMES, "cache@c"])
    code, said = verify()
    assert code == 1
    assert said.startswith("unrecorded: cache@c\n")
    assert said.endswith("5 of 6 stages as recorded; 1 unrecorded\n")


def test_without_a_record_one_line():
    done = CliRunner().invoke(app, ["verify"])
    assert isinstance(done.exception, UserError)
    assert "dvc.lock is missing; run `dvc repro`" in str(done.exception)


def test_every_figure_in_the_repository_is_traced_to_the_data(monkeypatch):
    monkeypatch.chdir(ROOT)
    steps = lockfile.read_lock()
    for figure in sorted(Path("paper/figures").glob("*.pdf")):
        chain = [step.name for step in lockfile.trace(steps, str(figure))]
        assert chain[:2] == ["figures", "collate"]
        assert "data" in chain
        assert {"train@dense", "train@sparse", "match", "sparsify@sae", "score@sae"} < set(chain)
