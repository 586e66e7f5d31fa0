"""Shared by the tests of data."""

import pytest


@pytest.fixture
def datasets_cache(tmp_path, monkeypatch):
    """An empty cache of `datasets` for each test."""
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
