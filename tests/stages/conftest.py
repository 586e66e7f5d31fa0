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
        def backend(client):
            assert model is not None, "the model was asked"
            return model

        monkeypatch.setattr(concurrency, "connect", backend)
        return model

    return connect


@pytest.fixture
def used(monkeypatch) -> dict[str, list]:
    """The text and examples that the explainer `tokens` and the judge of rules are given."""
    from clearnets.autointerp import scored_layer
    from clearnets.autointerp.rules import explainer

    found: dict[str, list] = {"explain": [], "score": []}
    learn, judge = explainer.explain, scored_layer.judge_all

    def explain(text, examples, **options):
        found["explain"].append((text, examples))
        return learn(text, examples, **options)

    def judge_all(trials, rules):
        found["score"] += [(trial.text, trial.examples) for trial in trials]
        return judge(trials, rules)

    monkeypatch.setattr(explainer, "explain", explain)
    monkeypatch.setattr(scored_layer, "judge_all", judge_all)
    return found
