"""`clearnets intervene` on a tiny pipeline: what is drawn, reached and judged."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tiny_pipeline as tiny

from clearnets import UserError, config
from clearnets.autointerp.records import EFFECTS
from clearnets.latents import probed_corpus
from clearnets.pipeline import paths
from clearnets.pipeline.artifacts import Unit, build_all, read_jsonl, write_table
from clearnets.pipeline.runtime import Runtime
from clearnets.stages import cache, effects, explain, intervene, probes, words

RUNTIME = Runtime(device="cpu", threads=1)
FAMILY = "native"
WANTED = 0.01


def settings():
    """The tiny experiment, without concepts."""
    values = tiny.config().model_dump(mode="json")
    values["data"]["tokens"]["concept_fit"] = 0
    values["explain"] |= {"min_windows": 2, "n_examples_train": 4, "n_non_activating": 4}
    values["execute"] |= {"families": ["all"]}
    values["effects"] |= {"rows": 12, "tokens": 100, "min_tokens": 2}
    values["intervene"] |= {"steered_rows": 12, "latents": 5, "tokens": 4, "divergence": WANTED}
    values["intervene"] |= {"trials": 8}
    return config.parse(values, "test")


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("tiny")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        tiny.make_data(rows=40)
        words.run(settings(), runtime=RUNTIME)
        tiny.make_models()
        cache.run(settings(), runtime=RUNTIME, families=[FAMILY])
        explain.run(settings(), runtime=RUNTIME, family=FAMILY, layers=(0, 1))
        effects.run(settings(), runtime=RUNTIME, family=FAMILY)
        for _, work in build_all([Unit("probes", paths.probes(FAMILY, tiny.SEED), {}, {})]):
            write_table(work.out / probed_corpus.TABLE, probes.COLUMNS, [])
        intervene.run(settings(), runtime=RUNTIME, family=FAMILY)
    return folder


def test_some_told_latents_of_each_layer_are_steered_with(made, monkeypatch):
    monkeypatch.chdir(made)
    told = {
        (record["layer"], record["latent"])
        for record in read_jsonl(paths.effects(FAMILY, tiny.SEED) / EFFECTS)
        if record["effect"] is not None
    }
    steered = pd.DataFrame(read_jsonl(paths.intervene(FAMILY, tiny.SEED) / intervene.STEERED))
    assert set(zip(steered["layer"], steered["latent"])) <= told
    for layer, own in steered.groupby("layer"):
        assert len(own) == min(5, sum(number == layer for number, _ in told))
    reached = steered.dropna(subset=["strength"])
    assert len(reached) >= len(steered) / 2
    np.testing.assert_allclose(reached["divergence"], WANTED, rtol=intervene.REACHED)
    assert (reached["strength"] > 0).all()
    assert reached[["steer_auroc", "random_auroc"]].notna().all(axis=None)
    missed = steered[steered["strength"].isna()]
    assert missed[["divergence", "steer_auroc", "random_auroc"]].isna().all(axis=None)


def test_without_concepts_nothing_is_a_target(made, monkeypatch):
    monkeypatch.chdir(made)
    table = pd.read_csv(paths.intervene(FAMILY, tiny.SEED) / intervene.TARGETS)
    assert table.empty
    assert tuple(table.columns) == intervene.TARGET_COLUMNS


def test_missing_effects_are_one_line(made, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="is missing; run"):
        intervene.run(settings(), runtime=RUNTIME, family=FAMILY)
