"""Tables of counterparts, by sums over latents that are written out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy.stats import spearmanr

from clearnets.analysis import stability, summary_stability
from clearnets.config import load

SIZE = 60


@pytest.fixture
def config(monkeypatch):
    monkeypatch.chdir(Path(__file__).parents[2])
    return load()


def found() -> pd.DataFrame:
    """Of two families, each with another coder seed; of one with two other training seeds."""
    rng = np.random.default_rng(0)
    parts = []
    for family, other in (
        ("transcoder", "reseeded"),
        ("random-transcoder", "reseeded"),
        ("transcoder", "seed-1"),
        ("transcoder", "seed-2"),
    ):
        table = pd.DataFrame({"latent": np.arange(SIZE), "layer": np.arange(SIZE) % 2})
        table["tokens"] = rng.integers(0, 100, SIZE)
        table["correlation"] = rng.random(SIZE)
        table["null_correlation"], table["decoder_cosine"] = 0.1, np.nan
        parts.append(table.assign(family=family, seed=0, other=other))
    return pd.concat(parts, ignore_index=True)


def test_levels_are_means_over_live_latents(config):
    table = found()
    made = stability.tables(table, {}, config)["stability"]
    row = made.set_index(["family", "differs", "layer"]).loc[("transcoder", "coder seed", "all")]
    own = table[(table["family"] == "transcoder") & (table["other"] == "reseeded")]
    live = own[own["tokens"] >= config.stability.min_tokens]
    assert row["n"] == len(live)
    assert row["live"] == pytest.approx(len(live) / SIZE)
    assert row["correlation"] == pytest.approx(live["correlation"].mean())
    assert row["correlation_low"] < row["correlation"] < row["correlation_high"]
    assert row["shared"] == pytest.approx((live["correlation"] >= 0.7).mean())
    twin = table[(table["family"] == "random-transcoder")]
    twin = twin[twin["tokens"] >= config.stability.min_tokens]
    assert row["untrained_correlation"] == pytest.approx(twin["correlation"].mean())
    assert row["null_correlation"] == pytest.approx(0.1)
    assert {(f, d) for f, d, _ in made[["family", "differs", "layer"]].itertuples(index=False)} == {
        ("transcoder", "coder seed"),
        ("transcoder", "training seed"),
        ("random-transcoder", "coder seed"),
    }


def test_relations_are_rank_correlations_within_layers(config):
    table = found()
    rng = np.random.default_rng(1)
    live: Any = table[(table["family"] == "transcoder") & (table["tokens"] >= 20)]
    training = live[live["other"] != "reseeded"].groupby("latent")["correlation"].mean()
    score = pd.DataFrame({"latent": np.arange(SIZE), "layer": np.arange(SIZE) % 2})
    score["rule-detection"] = rng.random(SIZE)
    score = score.assign(family="transcoder", seed=0)
    made = stability.tables(table, {"rule-detection": score}, config)
    rows = made["stability_relations"].set_index(["family", "differs"])
    row = rows.loc[("transcoder", "training seed")]
    both = score.set_index("latent").join(training, how="inner")
    assert row["n"] == len(both)
    ranks = both.groupby("layer")[["rule-detection", "correlation"]].rank(pct=True)
    expected: Any = spearmanr(ranks["rule-detection"], ranks["correlation"])
    assert row["correlation"] == pytest.approx(expected.statistic)
    text = summary_stability.stability_table(made["stability"], made["stability_relations"])
    assert "transcoder, other training seed" in text
    assert "nan" not in text


def test_what_goes_with_the_firing_rate_alone_is_taken_out(config):
    table = found()
    table = table[table["other"] == "reseeded"].assign(tokens=lambda t: 20 + t["latent"])
    noise = np.random.default_rng(2).normal(0, 10, (2, len(table)))
    table["correlation"] = (table["tokens"] + noise[0]) / 200
    score = table[stability.KEYS].assign(**{"rule-detection": table["tokens"] + noise[1]})
    made = stability.tables(table, {"rule-detection": score}, config)["stability_relations"]
    for row in made.to_dict("records"):
        assert row["correlation"] > 0.7
        assert abs(row["at_equal_rate"]) < 0.3
