from __future__ import annotations

import pytest
import torch
from tiny_pair import write_project

from clearnets.pipeline import processes


@pytest.fixture(autouse=True)
def _one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def project(tmp_path, monkeypatch):
    """The working directory holds a tiny project up to `match`; gives its parameters."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(processes, "cores", lambda: 1)
    return write_project()
