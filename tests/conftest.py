"""Shared by all tests: helper modules of this folder are importable, and no test touches the
checkout's own artifacts: each begins in an empty folder."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

# sparsify takes its Triton kernels wherever triton is installed, a GPU there or not.
os.environ.setdefault("SPARSIFY_DISABLE_TRITON", "1")
sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
