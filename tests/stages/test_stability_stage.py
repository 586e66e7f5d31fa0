"""`clearnets reseed` and `clearnets stability` on a tiny pipeline."""

from __future__ import annotations

import csv
import shutil

import numpy as np
import pytest
import tiny_pipeline as tiny
import torch
from safetensors.torch import load_file, save_file

from clearnets import UserError, config
from clearnets.coders import fitting, reseeding
from clearnets.latents.store import load_layer
from clearnets.pipeline import paths
from clearnets.pipeline.artifacts import Unit, build_all
from clearnets.pipeline.runtime import Runtime
from clearnets.stages import cache, reseed, stability

RUNTIME = Runtime(device="cpu", threads=1)
POINTS = ("layers.0.mlp", "layers.1.mlp")
FAMILY = "transcoder"
ROWS = 9


def settings(**coders):
    values = tiny.config().model_dump(mode="json")
    values["stability"] |= {"reseeded": ["all"], "rows": ROWS}
    values["coders"] |= {"tokens": 128, "warmup_steps": 2, **coders}
    return config.parse(values, "test")


@pytest.fixture(autouse=True)
def _root(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    tiny.make_data(rows=12)
    tiny.make_models()
    # A training run of this size has no settings that would say it.
    for module in (fitting, reseeding):
        monkeypatch.setattr(module, "attention_within", lambda seed: False)


def swap_latents(order: torch.Tensor) -> None:
    """Write, as the coders of another seed, the same ones with their latents in another order."""
    for _, work in build_all([Unit("reseed", paths.reseed(FAMILY, tiny.SEED), {}, {})]):
        for point in POINTS:
            source = paths.coders(FAMILY, tiny.SEED) / point
            weights = load_file(source / "sae.safetensors")
            for name in ("encoder.weight", "encoder.bias", "W_dec"):
                weights[name] = weights[name][order].clone()
            (work.out / point).mkdir()
            save_file(weights, work.out / point / "sae.safetensors")
            shutil.copy(source / "cfg.json", work.out / point)


def rows_of(family: str) -> list[dict[str, str]]:
    with (paths.stability(family, tiny.SEED) / stability.LATENTS).open() as file:
        return list(csv.DictReader(file))


def test_the_same_latents_in_another_order_are_their_counterparts():
    tiny.make_coders()
    order = torch.randperm(tiny.LATENTS, generator=torch.Generator().manual_seed(0))
    swap_latents(order)
    cache.run(settings(), runtime=RUNTIME, families=[FAMILY])
    stability.run(settings(), runtime=RUNTIME, family=FAMILY)
    table = rows_of(FAMILY)
    assert len(table) == len(POINTS) * tiny.LATENTS
    live = [row for row in table if int(row["tokens"]) > 0]
    assert live
    for row in live:
        assert float(row["correlation"]) == pytest.approx(1)
        assert order[int(row["partner"])] == int(row["latent"])
        assert float(row["decoder_cosine"]) == pytest.approx(1)
    assert np.mean([float(row["null_correlation"]) for row in live]) < 0.9
    # Activity is counted on the chosen rows.
    chosen = np.arange(ROWS) * 12 // ROWS
    for layer, point in enumerate(POINTS):
        entries = load_layer(paths.cache(FAMILY, tiny.SEED, "explain"), point)
        counts = np.bincount(entries.latent[np.isin(entries.row, chosen)], minlength=tiny.LATENTS)
        own = [int(row["tokens"]) for row in table if row["layer"] == str(layer)]
        assert own == counts.tolist()


def test_missing_coders_of_another_seed_are_one_line():
    tiny.make_coders()
    cache.run(settings(), runtime=RUNTIME, families=[FAMILY])
    with pytest.raises(UserError, match=r"reseed.* missing; run"):
        stability.run(settings(), runtime=RUNTIME, family=FAMILY)


def test_another_seed_changes_the_coders_and_nothing_else(monkeypatch, tmp_path):
    cfg, layers = settings(), (0, 1)
    families = [FAMILY, "sae"]
    reseed.run(cfg, runtime=RUNTIME, families=families)
    first = {f: load_file(paths.reseed(f, 0) / POINTS[0] / "sae.safetensors") for f in families}
    # With the training seed they are the coders of `clearnets sparsify`.
    monkeypatch.setattr(reseeding, "seed_for", lambda seed, *names: seed)
    make = {"config": cfg, "seed": 0, "layers": layers, "runtime": RUNTIME, "label": "test"}
    again = reseeding.refit(states={f: tmp_path / f"{f}-again.pt" for f in families}, **make)
    usual = fitting.fit(states={f: tmp_path / f"{f}.pt" for f in families}, **make)
    for family in families:
        for point in POINTS:
            weights = usual[family].coders[point].state_dict()
            for name, value in again[family].coders[point].state_dict().items():
                assert torch.equal(value, weights[name]), (family, point, name)
        own = usual[family].coders[POINTS[0]].state_dict()
        assert not torch.equal(first[family]["encoder.weight"], own["encoder.weight"])


def test_untrained_coders_are_made_anew_too():
    reseed.run(settings(), runtime=RUNTIME, families=[FAMILY, "random-transcoder"])
    trained, untrained = (
        load_file(paths.reseed(family, 0) / POINTS[1] / "sae.safetensors")
        for family in (FAMILY, "random-transcoder")
    )
    assert not untrained["W_dec"].any()
    assert trained["W_dec"].any()
