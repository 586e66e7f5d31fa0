"""`clearnets effects` on a tiny pipeline, against one forward pass for each ablation."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tiny_pipeline as tiny
import torch

from clearnets import UserError, config
from clearnets.autointerp.records import EFFECTS, EXPLAINED, EXPLANATIONS
from clearnets.coders import feedforward
from clearnets.coders.batches import evenly_spaced
from clearnets.coders.written import open_written
from clearnets.data.tokens import open_tokens
from clearnets.families import FAMILIES
from clearnets.latents.readers import open_model
from clearnets.latents.store import load_layer
from clearnets.pipeline import paths
from clearnets.pipeline.artifacts import read_jsonl
from clearnets.pipeline.runtime import Runtime
from clearnets.stages import cache, effects, explain, words

RUNTIME = Runtime(device="cpu", threads=1)
ROWS = 12
POINTS = ("layers.0.mlp", "layers.1.mlp")


def settings():
    """The tiny experiment; every active token of a latent is ablated."""
    values = tiny.config().model_dump(mode="json")
    values["explain"] |= {"min_windows": 2, "n_examples_train": 4, "n_non_activating": 4}
    values["execute"] |= {"families": ["all"]}
    values["effects"] |= {"rows": ROWS, "tokens": 10_000, "min_tokens": 2}
    return config.parse(values, "test")


@pytest.fixture(scope="module", params=["native", "transcoder", "neurons", "step0-transcoder"])
def made(request, tmp_path_factory) -> tuple[str, Path]:
    """A family, and a folder with its effects."""
    folder, family = tmp_path_factory.mktemp("tiny"), request.param
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        tiny.make_data(rows=40)
        words.run(settings(), runtime=RUNTIME)
        tiny.make_models()
        tiny.make_coders()
        cache.run(settings(), runtime=RUNTIME, families=[family])
        explain.run(settings(), runtime=RUNTIME, family=family, layers=(0, 1))
        effects.run(settings(), runtime=RUNTIME, family=family)
    return family, folder


def test_every_explained_latent_is_ablated_where_it_is_active(made, monkeypatch):
    family, folder = made
    monkeypatch.chdir(folder)
    records = read_jsonl(paths.effects(family, tiny.SEED) / EFFECTS)
    explained = [
        (layer, record["latent"])
        for layer, point in enumerate(POINTS)
        for record in read_jsonl(paths.explain(family, tiny.SEED, point) / EXPLANATIONS)
        if record["status"] == EXPLAINED
    ]
    assert [(record["layer"], record["latent"]) for record in records] == explained
    opened = open_model(family, tiny.SEED)
    coders = paths.coders(family, tiny.SEED) if FAMILIES[family].is_coder else None
    written = open_written(opened.model, FAMILIES[family], coders, k=tiny.K)
    tokens_RS = open_tokens(paths.data()).split("score")
    rows = evenly_spaced(len(tokens_RS), ROWS)
    measured = [record for record in records if record["divergence"] is not None]
    assert measured
    for record in measured[:3]:
        entries = load_layer(paths.cache(family, tiny.SEED, "score"), POINTS[record["layer"]])
        own = entries.entries(record["latent"])
        there = np.isin(entries.row[own], rows)
        assert record["tokens_score"] == there.sum()
        direction_D = written[record["layer"]].weight_LD[record["latent"]].detach()
        values = [
            divergence(opened.model, record["layer"], tokens_RS[row], position, act * direction_D)
            for row, position, act in zip(
                entries.row[own][there], entries.position[own][there], entries.act[own][there]
            )
        ]
        assert record["divergence"] == pytest.approx(np.mean(values), rel=1e-2, abs=2e-6)
    lens = FAMILIES[family].untrained_model
    assert all((record["lens"] is None) == lens for record in measured)


@torch.no_grad()
def divergence(model, layer: int, tokens_S, position: int, taken_D) -> float:
    """KL of the prediction behind a token without what is taken away there, nats."""
    tokens_BS = torch.from_numpy(np.asarray(tokens_S)[None].astype(np.int64))
    where_BS = torch.zeros(tokens_BS.shape, dtype=torch.bool)
    where_BS[0, position] = True
    clean_V = model(tokens_BS).logits[0, position].double().log_softmax(-1)
    with feedforward.replaced(model, {layer: lambda _, y_ND: y_ND - taken_D}, where_BS):
        changed_V = model(tokens_BS).logits[0, position].double().log_softmax(-1)
    return float((clean_V.exp() * (clean_V - changed_V)).sum())


def test_missing_explanations_are_one_line(made, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="is missing; run"):
        effects.run(settings(), runtime=RUNTIME, family=made[0])
