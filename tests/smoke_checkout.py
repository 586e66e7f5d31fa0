"""A fresh repository with this checkout's source, and the commands of its environment."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from ruamel.yaml import YAML

from clearnets import config

ROOT = Path(__file__).parents[1]
BIN = Path(sys.executable).parent
_RESULTS = ("artifacts/", "paper/results/", "paper/figures/", "paper/tables/", "dvc.lock")


def with_source(at: Path) -> dict[str, str]:
    """The variables of this process, but for the code: that of the folder, not of this checkout."""
    return {**os.environ, "PYTHONPATH": str(at), "GIT_CONFIG_GLOBAL": os.devnull}


def environment(at: Path) -> dict[str, str]:
    """The same with the commands of this environment in front of all others."""
    return {**with_source(at), "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}"}


def run(*words: str, at: Path, code: int = 0) -> str:
    """Run a command and return all that it prints."""
    done = subprocess.run(
        words,
        cwd=at,
        env=environment(at),
        check=False,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert done.returncode == code, f"{' '.join(words)}\n{done.stdout[-4000:]}"
    return done.stdout


def clone(folder: Path) -> Path:
    """A fresh repository with this checkout's source and none of its results."""
    listed = run("git", "ls-files", "-co", "--exclude-standard", at=ROOT).splitlines()
    for name in listed:
        if (ROOT / name).is_file() and not name.startswith(_RESULTS):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, folder / name)
    run("git", "init", "-q", at=folder)
    run("git", "config", "user.name", "test", at=folder)
    run("git", "config", "user.email", "test@example.org", at=folder)
    run("git", "add", "-A", at=folder)
    run("git", "commit", "-qm", "source", at=folder)
    return folder


def make_smoke(folder: Path) -> None:
    """Let the repository's own pipeline be that of the smoke experiment."""
    base, smoke = ROOT / "params.yaml", ROOT / "experiments/smoke.yaml"
    values = config.overlay(config.read_yaml(base), config.read_yaml(smoke))
    with (folder / "params.yaml").open("w") as file:
        YAML().dump(values, file)
    run("clearnets", "plan", at=folder)


def out_hashes(lock: Path) -> dict[str, str]:
    """The hashes of all outputs by path, as a dvc.lock records them."""
    stages = YAML(typ="safe").load(lock.read_text())["stages"]
    return {out["path"]: out["md5"] for stage in stages.values() for out in stage["outs"]}
