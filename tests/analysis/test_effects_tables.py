"""Tables of what latents do, by sums over latents that are written out."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from clearnets.analysis import effects
from clearnets.config import load


@pytest.fixture
def config(monkeypatch):
    monkeypatch.chdir(Path(__file__).parents[2])
    return load()


def found(size: int = 40) -> tuple[pd.DataFrame, pd.DataFrame]:
    """What `clearnets effects` wrote of two families, one of which does nothing; their scores."""
    rng = np.random.default_rng(0)
    keys = {
        "family": np.repeat(["transcoder", "sae"], size),
        "seed": 0,
        "layer": np.tile(np.arange(size) % 2, 2),
        "latent": np.tile(np.arange(size), 2),
    }
    values = {name: rng.uniform(0.6, 1, 2 * size) for name in effects.MEASURES}
    values["effect_auroc_shuffled"] = rng.uniform(0.4, 0.6, 2 * size)
    values["divergence"] = np.r_[rng.exponential(size=size), np.zeros(size)]
    table = pd.DataFrame({**keys, "tokens_score": 16, "effect": 'Raises "he".', **values})
    judged = pd.DataFrame({**keys, "rate": rng.uniform(0, 0.1, 2 * size)})
    for scorer in effects.SCORERS:
        judged[scorer] = rng.uniform(0.5, 1, 2 * size)
    # No sentence for one.
    table.loc[3, list(effects.MEASURES)] = np.nan
    return table, judged


def test_means_and_weighted_means(config):
    table, judged = found()
    made = effects.tables(table, judged, config)
    means = made["effect_means"].set_index(["family", "measure"])
    own = table[table["family"] == "transcoder"].drop(index=3)
    row = means.loc[("transcoder", "lens_auroc")]
    assert row["n"] == 39
    assert row["mean"] == pytest.approx(own["lens_auroc"].mean())
    assert row["low"] < row["mean"] < row["high"]
    weighted = made["effect_weighted"].set_index(["family", "scorer"])
    scores = judged[: len(table) // 2].drop(index=3)
    weight = scores["rate"] * own["divergence"]
    for scorer in effects.SCORERS:
        row = weighted.loc[("transcoder", scorer)]
        assert row["mean"] == pytest.approx(scores[scorer].mean())
        assert row["weighted"] == pytest.approx((weight * scores[scorer]).sum() / weight.sum())
        assert row["low"] < row["weighted"] < row["high"]
        assert np.isnan(weighted.loc[("sae", scorer)]["weighted"])  # Whose latents do nothing.


def test_own_sentences_are_above_those_of_others(config):
    table, _ = found()
    rows = effects.above_others(table, config).set_index("a")
    own = table[table["family"] == "sae"]
    expected = (own["effect_auroc"] - own["effect_auroc_shuffled"]).mean()
    assert rows["difference"]["sae"] == pytest.approx(expected)
    assert rows["passes"]["sae"]
    table["effect_auroc"] = 0.4
    assert not effects.above_others(table, config)["passes"].any()
