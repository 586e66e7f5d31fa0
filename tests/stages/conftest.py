"""A tiny corpus with hand-made caches, and a language model that follows rules."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from tiny_caches import LAYERS, make_cache, make_data


@pytest.fixture(scope="session")
def _tiny_artifacts(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("tiny")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        make_data()
        make_cache("native", {f"layers.{layer}.mlp": layer for layer in LAYERS})
        make_cache("token-unigram", {"tokens": 0})
    return folder / "artifacts"


@pytest.fixture
def tiny_caches(_tiny_artifacts):
    """The data, and the caches of `native` and `token-unigram`, in the present folder."""
    shutil.copytree(_tiny_artifacts, "artifacts")


@pytest.fixture
def connected(monkeypatch):
    """Connect the stages to a model; None is a model that must not be asked."""
    from clearnets.autointerp.llm import concurrency

    def connect(model):
        def backend(client, *, threads):
            assert model is not None, "the model was asked"
            return model

        monkeypatch.setattr(concurrency, "connect", backend)
        return model

    return connect
