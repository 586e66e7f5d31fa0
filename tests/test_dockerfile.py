"""The Dockerfile names only what is there. Building the image takes a daemon and the network."""

from __future__ import annotations

import re
import subprocess
import tomllib
from pathlib import Path

from clearnets.config import read_yaml

ROOT = Path(__file__).parents[1]
LINES = (ROOT / "Dockerfile").read_text().splitlines()


def tracked() -> list[str]:
    done = subprocess.run(["git", "ls-files"], cwd=ROOT, check=True, capture_output=True, text=True)
    return done.stdout.splitlines()


def ignored(path: str) -> bool:
    """Whether Docker leaves a file out: the last pattern that fits it or a folder above decides."""
    out = False
    for line in (ROOT / ".dockerignore").read_text().splitlines():
        if line and not line.startswith("#"):
            pattern = re.escape(line.removeprefix("!")).replace(r"\*\*/", "(.*/)?")
            if re.fullmatch(pattern + "(/.*)?", path):
                out = not line.startswith("!")
    return out


def test_the_image_has_every_tracked_file_and_no_large_output():
    assert [path for path in tracked() if ignored(path)] == []
    stages = read_yaml(ROOT / "dvc.yaml")["stages"].values()
    outs = [out for stage in stages for out in stage.get("do", stage).get("outs", [])]
    kept = [out.split("/${")[0] for out in outs if isinstance(out, str)]
    assert len(kept) > 5
    assert [out for out in kept if not ignored(f"{out}/x")] == []
    assert ignored(".dvc/config.local")
    assert ignored("clearnets/data/__pycache__/x.pyc")


def test_it_copies_tracked_files_and_calls_targets_of_the_makefile():
    listed = tracked()
    copied = [path for line in LINES if line.startswith("COPY ") for path in line.split()[1:-1]]
    assert {"requirements.txt", "."} <= set(copied)
    assert not set(copied) - {*listed, "."}
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.M)
    called = [words[-1] for line in LINES if (words := line.split())[:2] == ["RUN", "make"]]
    assert called
    assert not set(called) - set(targets)


def test_its_python_is_one_that_the_package_takes():
    (base,) = (line for line in LINES if line.startswith("FROM python:"))
    wanted = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["requires-python"]
    least = tuple(map(int, wanted.removeprefix(">=").split(".")))
    assert tuple(map(int, re.findall(r"\d+", base)[:2])) >= least
