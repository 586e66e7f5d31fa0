"""Tables of interventions, by means that are written out."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from clearnets.analysis import interventions, summary_interventions
from clearnets.config import load

FAMILIES = ("transcoder", "random-transcoder")


@pytest.fixture
def config(monkeypatch):
    monkeypatch.chdir(Path(__file__).parents[2])
    return load()


def found(size: int = 40) -> tuple[pd.DataFrame, pd.DataFrame]:
    """What `clearnets intervene` wrote: the trained family is on target, the other is not."""
    rng = np.random.default_rng(0)
    targets = pd.DataFrame(
        {
            "family": np.repeat(FAMILIES, 2 * size),
            "seed": np.tile([0, 1], 2 * size),
            "concept": np.tile(np.repeat([f"c{n:02d}" for n in range(size)], 2), 2),
            "kind": "lexical",
            "layer": 0,
            "latent": 1,
            "tokens": 50,
            "inside": rng.exponential(size=4 * size),
            "outside": 0.01,
            "share": np.repeat([0.7, 0.3], 2 * size) + 0.1 * rng.random(4 * size),
            "share_others": 0.1,
            "share_tokens": 0.05,
            "own": rng.integers(2, size=4 * size),
        }
    )
    targets.loc[0, "share"] = np.nan
    steered = pd.DataFrame(
        {
            "family": np.repeat(FAMILIES, size),
            "seed": 0,
            "layer": np.tile(np.arange(size) % 4, 2),
            "latent": np.tile(np.arange(size), 2),
            "strength": 2.0,
            "divergence": 0.2,
            "steer_auroc": rng.uniform(0.7, 0.9, 2 * size),
            "steer_auroc_shuffled": np.repeat([0.5, 0.8], size),
            "random_auroc": 0.5,
        }
    )
    return targets, steered


def test_means_are_over_concepts_each_over_its_seeds(config):
    targets, steered = found()
    made = interventions.tables(targets, steered, config)["interventions"]
    made = made.set_index(["family", "measure", "kind"])
    own = targets[targets["family"] == "transcoder"]
    for kind in ("all", "lexical"):
        row = made.loc[("transcoder", "share", kind)]
        assert row["n"] == 40
        # The concept without one value has that of its other seed.
        assert row["mean"] == pytest.approx(own.groupby("concept")["share"].mean().mean())
        assert row["low"] < row["mean"] < row["high"]
    assert ("transcoder", "share", "local") not in made.index
    row = made.loc[("transcoder", "steer_auroc", "all")]
    assert row["mean"] == pytest.approx(steered["steer_auroc"][:40].mean())


def test_known_groups_tell_what_is_on_target_and_what_is_named(config):
    targets, steered = found()
    rows = interventions.known_groups(targets, steered, config).set_index(["scorer", "a"])
    row = rows.loc[("on target", "transcoder")]
    assert (row["test"], row["b"], bool(row["passes"])) == ("trained", "random-transcoder", True)
    assert row["difference"] == pytest.approx(0.4, abs=0.05)
    assert rows.loc[("steering", "transcoder"), "passes"]
    assert not rows.loc[("steering", "random-transcoder"), "passes"]


def test_without_concepts_there_is_steering_alone(config):
    _, steered = found()
    made = interventions.tables(pd.DataFrame(), steered, config)
    assert set(made) == {"steering", "interventions"}
    (text,) = summary_interventions.intervention_tables(made["interventions"])
    assert text.startswith("| steering: family")
