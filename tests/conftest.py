"""Shared by all tests: helper modules of this folder are importable, and no test touches the
checkout's own artifacts: each begins in an empty folder."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

import clearnets  # noqa: F401 - before numpy and torch, which read their environment once

# sparsify takes its Triton kernels wherever triton is installed, a GPU there or not.
os.environ.setdefault("SPARSIFY_DISABLE_TRITON", "1")
# Workers side by side share the cores: one thread each, in the commands that they run, too.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).parent))

ROOT = Path(__file__).parents[1]
RESULTS = ("paper/results", "paper/figures")
LONGEST = "test_pipeline.py"
"""Begins first, so that a worker is not left alone with it at the end."""


def pytest_collection_modifyitems(items):
    items.sort(key=lambda item: item.path.name != LONGEST)


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="session")
def committed(tmp_path_factory) -> Path:
    """A folder with `paper/results` and `paper/figures` as git has them: committed, or staged.

    What the repository states was written with these results. Those in the working tree may be of a
    run on this machine, whose processor rounds otherwise. Outside of a git checkout they are all
    there is.
    """
    folder = tmp_path_factory.mktemp("committed")
    listed = _git("ls-files", "-z", *RESULTS)
    if listed:
        _git("checkout-index", "-z", "--stdin", f"--prefix={folder}/", text=listed)
    else:
        for name in RESULTS:
            if (ROOT / name).exists():
                shutil.copytree(ROOT / name, folder / name)
    if not (folder / "paper/results/default").exists():
        pytest.skip("the results are not in this checkout")
    return folder


def _git(*words: str, text: str = "") -> str:
    """Return what a git command prints in the checkout; nothing if this is none."""
    if not (ROOT / ".git").exists() or not shutil.which("git"):
        return ""
    done = subprocess.run(
        ["git", *words], cwd=ROOT, input=text, capture_output=True, text=True, check=True
    )
    return done.stdout


@pytest.fixture(scope="session")
def load_script() -> Callable[[str], ModuleType]:
    """Return a function that loads a script of the repository, which no package holds."""

    def load(path: str) -> ModuleType:
        spec = importlib.util.spec_from_file_location(
            Path(path).stem, Path(__file__).parents[1] / path
        )
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[spec.name] = module
        spec.loader.exec_module(module)
        return module

    return load
