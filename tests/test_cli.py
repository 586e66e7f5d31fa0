"""The face: help, errors of one line, exit codes, dry runs that write nothing."""

from __future__ import annotations

import errno
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from clearnets import cli

ROOT = Path(__file__).parents[1]
COMMANDS = [
    "data",
    "train",
    "match",
    "sparsify",
    "evaluate",
    "cache",
    "explain",
    "score",
    "collate",
    "figures",
    "exp",
]


@pytest.fixture
def place(tmp_path, monkeypatch):
    """An empty project: parameters and experiments, no artifacts."""
    (tmp_path / "params.yaml").write_text((ROOT / "params.yaml").read_text())
    (tmp_path / "experiments").mkdir()
    text = (ROOT / "experiments/smoke.yaml").read_text()
    (tmp_path / "experiments/smoke.yaml").write_text(text)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(*words: str) -> tuple[int, str]:
    done = subprocess.run(
        [sys.executable, "-m", "clearnets.cli", *words], capture_output=True, text=True, check=False
    )
    return done.returncode, done.stdout + done.stderr


def files(folder: Path) -> dict[str, bytes]:
    return {str(p): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_with_an_example(command):
    done = CliRunner().invoke(cli.app, [command, "--help"])
    assert done.exit_code == 0
    assert f"clearnets {command}" in done.output
    assert "Example:" in done.output


def test_help_lists_every_command():
    output = CliRunner().invoke(cli.app, ["--help"]).output
    assert all(f" {command} " in output for command in COMMANDS)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["explain", "--aux", "saes"], "unknown --aux 'saes'; choose one of native"),
        (["explain", "--aux", "sae", "--layers", "9"], "layers go from 0 to 7"),
        (["score", "--aux", "sae", "--layers", "7-0"], "backwards; write 0-7"),
        (["train", "--mlp", "spare"], "unknown --mlp 'spare'; choose one of dense, sparse"),
        (["sparsify", "--aux", "native"], "choose one of sae"),
        (["match", "--set", "seeds=[1]"], "add --experiment NAME"),
        (["exp", "nothing"], "unknown experiment 'nothing'; there are: smoke"),
        (["exp", "smoke", "--dry-run", "--set", "nope=1"], "unknown key 'nope'"),
        (["exp", "smoke", "--dry-run", "--set", "train.epochs=no"], "train.epochs"),
        (["exp", "smoke", "--dry-run", "--set", "train.epochs"], "write key=value"),
        (["train", "--mlp", "dense"], "artifacts/data is missing; run `dvc repro data` first"),
        (["explain", "--aux", "sae"], "run `dvc repro"),
        (["figures"], "run `dvc repro collate` first"),
    ],
)
def test_mistakes_get_one_line_exit_2_and_nothing_written(place, words, says):
    before = files(place)
    code, output = run(*words)
    assert code == 2, output
    assert says in output
    assert len(output.strip().splitlines()) == 1, output
    assert output.startswith("clearnets: ")
    assert files(place) == before


@pytest.mark.parametrize("change", ["colour: red", "seeds: [zero]"])
def test_a_bad_params_file_is_refused(place, change):
    (place / "params.yaml").write_text(f"{(place / 'params.yaml').read_text()}\n{change}\n")
    code, output = run("match")
    assert code == 2
    assert len(output.strip().splitlines()) == 1
    assert output.startswith("clearnets: params.yaml")


@pytest.mark.parametrize("command", [["data"], ["train", "--mlp", "sparse"], ["match"]])
def test_dry_run_shows_and_writes_nothing(place, command):
    before = files(place)
    code, output = run(*command, "--dry-run")
    assert code == 0, output
    assert "hidden_size: 64" in output
    assert "# writes\nartifacts/" in output
    assert files(place) == before


def test_a_full_disk_is_one_line(capsys):
    def full() -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    assert cli._guarded(full) == 2
    assert "the disk is full" in capsys.readouterr().err
