"""Deposits: a stranger clones one and has all that the pipeline made, without running it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
from typer.testing import CliRunner

from clearnets import UserError
from clearnets.cli import app
from clearnets.provenance import deposit as bundle
from clearnets.provenance import lockfile

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent

PIPELINE = """
stages:
  data:
    cmd: mkdir -p artifacts && seq 5 > artifacts/data
    outs: [artifacts/data]
  cache:
    matrix:
      aux: [a, b]
    cmd: mkdir -p artifacts/cache/${item.aux}/deep && cp artifacts/data artifacts/cache/${item.aux}/deep/x
    deps: [artifacts/data]
    outs:
      - artifacts/cache/${item.aux}
  collate:
    cmd: mkdir -p paper && cat artifacts/cache/a/deep/x artifacts/cache/b/deep/x > paper/table.csv
    deps: [artifacts/cache]
    outs:
      - paper/table.csv:
          cache: false
"""  # noqa: E501


def run(*words: str, at: Path) -> str:
    environment = {**os.environ, "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}", "CI": "1"}
    environment |= {"GIT_CONFIG_GLOBAL": os.devnull}
    done = subprocess.run(
        words, cwd=at, env=environment, check=False, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("project")
    run("git", "init", "-q", "-b", "trunk", at=folder)
    run("git", "config", "user.name", "test", at=folder)
    run("git", "config", "user.email", "test@example.org", at=folder)
    run("dvc", "init", "-q", at=folder)
    (folder / "dvc.yaml").write_text(PIPELINE)
    (folder / "params.yaml").write_text("experiment: default\ndata: {corpus: {kind: storybook}}\n")
    (folder / ".gitignore").write_text("/artifacts\n")
    for name in ("LICENSE", "CITATION.cff"):
        shutil.copyfile(ROOT / name, folder / name)
    run("dvc", "repro", "-q", at=folder)
    run("git", "add", "-A", at=folder)
    run("git", "commit", "-qm", "run", at=folder)
    return folder


@pytest.fixture
def project(made, tmp_path, monkeypatch):
    shutil.copytree(made, tmp_path / "project")
    monkeypatch.chdir(tmp_path / "project")
    return tmp_path


def write(*words: str) -> tuple[int, str]:
    done = CliRunner().invoke(app, ["bundle", *words])
    return done.exit_code, done.output


def clone(deposit: Path) -> Path:
    """Run the commands of the deposit's README, but for the environment's and our own.

    The project here has other stages than clearnets: `verify` would miss those.
    """
    text = (deposit / "README.md").read_text()
    commands = text.split("```")[1].replace("make env", "true").replace("source .venv", "true #")
    commands = commands.replace("clearnets verify", "true")
    run("bash", "-euc", commands, at=deposit)
    return deposit / "clearnets"


def test_a_clone_pulls_everything_and_nothing_is_stale(project, monkeypatch):
    code, said = write("../deposit")
    assert (code, said.split(":")[0]) == (0, "../deposit")
    here = clone(project / "deposit")
    assert "up to date" in run("dvc", "status", at=here)
    for path in ("artifacts/data", "artifacts/cache/b/deep/x", "paper/table.csv"):
        assert (here / path).read_bytes() == Path(path).read_bytes()
    monkeypatch.chdir(here)
    assert not list(lockfile.faults(lockfile.read_lock(), {}, ()))
    outputs = json.loads((project / "deposit/MANIFEST.json").read_text())["outputs"]
    places = {entry["path"]: entry["place"] for entry in outputs}
    assert places["artifacts/data"] == places["artifacts/cache/a"] == "deposit"
    assert places["paper/table.csv"] == "git"


def test_one_file_holds_the_same_and_comes_out_the_same_again(project):
    assert write("../one.tar")[0] == 0
    (project / "two").mkdir()
    assert write("../two/one.tar")[0] == 0
    first, second = project / "one.tar", project / "two/one.tar"
    assert first.read_bytes() == second.read_bytes()
    assert sorted(path.name for path in project.iterdir()) == ["one.tar", "project", "two"]
    with tarfile.open(first) as archive:
        archive.extractall(project / "out", filter="data")
    assert "up to date" in run("dvc", "status", at=clone(project / "out/one"))


def test_the_crate_names_every_stage_with_what_it_read_and_wrote(project):
    assert write("../deposit")[0] == 0
    deposit = project / "deposit"
    found = json.loads((deposit / "ro-crate-metadata.json").read_text())
    graph = {entity["@id"]: entity for entity in found["@graph"]}
    assert len(graph) == len(found["@graph"])
    assert graph["ro-crate-metadata.json"]["about"] == {"@id": "./"}
    root = graph["./"]
    assert root["datePublished"] == run("git", "log", "-1", "--format=%cs", at=Path()).strip()
    assert {"name", "description", "license", "author"} <= root.keys()

    def referred(value) -> list[str]:
        if isinstance(value, dict):
            inside = [one for part in value.values() for one in referred(part)]
            return [value["@id"]] if value.keys() == {"@id"} else inside
        return [one for part in value for one in referred(part)] if isinstance(value, list) else []

    inside = [one for one in referred(found["@graph"]) if not one.startswith("https:")]
    assert set(inside) <= graph.keys()
    # Its files are those of the deposit.
    parts = {part["@id"] for part in root["hasPart"]}
    there = {path.name + "/" * path.is_dir() for path in deposit.iterdir()}
    assert parts | {"ro-crate-metadata.json"} == there

    def names(ids) -> set[str]:
        return {graph[one["@id"]]["name"] for one in ids}

    action = graph["#stage/collate"]
    assert names(action["object"]) == {"artifacts/cache"}
    assert names(action["result"]) == {"paper/table.csv"}
    table = graph[action["result"][0]["@id"]]
    assert table["identifier"] == f"md5:{lockfile.md5(Path('paper/table.csv'))}"
    assert {one for one in graph if one.startswith("#stage/")} == {
        f"#stage/{name}" for name in ("data", "cache@a", "cache@b", "collate")
    }


def test_without_a_stage_the_rest_is_there(project):
    assert write("../small", "--without", "cache")[0] == 0
    here = clone(project / "small")
    assert (here / "artifacts/data").exists()
    assert not (here / "artifacts/cache/a/deep").exists()
    outputs = json.loads((project / "small/MANIFEST.json").read_text())["outputs"]
    left = {entry["path"] for entry in outputs if entry["place"] == "left out"}
    assert left == {"artifacts/cache/a", "artifacts/cache/b"}


def test_errors_are_one_line_and_leave_nothing(project):
    (project / "there").mkdir()
    (project / "file").write_text("")
    cases = {
        ("../there",): "../there is already there",
        ("../none/deposit",): "../none is not a folder; make it first",
        ("../file/deposit",): "../file is not a folder; make it first",
        ("../d", "cash"): "no such stage; there are: data, cache, collate",
    }
    for (out, *without), message in cases.items():
        with pytest.raises(UserError, match=message):
            bundle.run(Path(out), without=without)
    shutil.rmtree(Path(".dvc/cache/files/md5"))
    with pytest.raises(UserError, match="DVC's cache lacks artifacts/"):
        bundle.run(Path("../d"))
    Path("params.yaml").write_text("experiment: other\n")
    with pytest.raises(UserError, match="commit or restore them first"):
        bundle.run(Path("../d.tar"))
    assert sorted(path.name for path in project.iterdir()) == ["file", "project", "there"]
