"""The Dockerfile names only what is there. Building the image takes a daemon and the network."""

from __future__ import annotations

import re
import subprocess
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]
LINES = (ROOT / "Dockerfile").read_text().splitlines()


def test_it_copies_tracked_files_and_calls_targets_of_the_makefile():
    listed = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, check=True, capture_output=True, text=True
    ).stdout.splitlines()
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
