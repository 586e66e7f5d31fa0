"""Worktrees of experiments."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from clearnets import UserError
from clearnets.pipeline import experiments


def git(*words: str) -> None:
    identity = ["-c", "user.name=a", "-c", "user.email=a@b.c"]
    subprocess.run(["git", *identity, *words], check=True, capture_output=True)


def dvc_cache(at: Path) -> Path:
    """What DVC itself says."""
    command = [sys.executable, "-m", "dvc", "cache", "dir"]
    said = subprocess.run(command, cwd=at, check=True, capture_output=True, text=True)
    return Path(said.stdout.strip()).resolve()


@pytest.fixture
def _checkout(tmp_path, monkeypatch):
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.chdir(home)
    git("init", "-q")
    Path(".dvc").mkdir()
    Path(".dvc/config").write_text("[core]\n    analytics = false\n")
    Path(".dvc/.gitignore").write_text("/config.local\n/cache\n/tmp\n")
    Path(".gitignore").write_text(".clearnets\n")
    git("add", ".")
    git("commit", "-qm", "first")


@pytest.mark.usefixtures("_checkout")
def test_a_worktree_shares_the_cache_wherever_it_is(tmp_path):
    # A relative path is relative to the file.
    Path(".dvc/config.local").write_text("[cache]\n    dir = ../../big disk\n")
    folder = experiments._update_worktree("smoke")
    assert dvc_cache(folder) == tmp_path / "big disk"


@pytest.mark.usefixtures("_checkout")
def test_a_damaged_configuration_is_one_line():
    Path(".dvc/config.local").write_text("[cache\n")
    with pytest.raises(UserError, match=r"correct \.dvc/config\.local") as error:
        experiments._update_worktree("smoke")
    assert "\n" not in str(error.value)
