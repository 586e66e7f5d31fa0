"""Tables of probes, by means over concepts that are written out."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from clearnets.analysis import probes, summary_probes
from clearnets.config import load


def found() -> pd.DataFrame:
    rng = np.random.default_rng(0)
    rows = [
        {"family": family, "seed": seed, "kind": kind, "concept": f"{kind}-{n}", "probe": probe,
         "positives_test": 9, "token_set_f1": 0.3 * n, "ngram_f1": 0.2, "layer": 0,
         "f1_fit": 0.5, "f1": rng.random(), "auroc": rng.random()}
        for family in ("native", "random-native", "random-directions")
        for seed in (0, 1)
        for kind in ("lexical", "contextual")
        for n in range(3)
        for probe in (1, 5, 16, "dense")
    ]  # fmt: skip
    return pd.DataFrame(rows)


def test_a_summary_is_the_mean_over_concepts(monkeypatch):
    monkeypatch.chdir(Path(__file__).parents[2])
    table = found()
    made = probes.tables(table, load())
    summary = made["probe_summary"].set_index(["family", "kind", "probe"])
    row = summary.loc[("native", "contextual", "5")]

    def mean(family: str, probe: object, column: str) -> float:
        own = table[(table["family"] == family) & (table["probe"] == probe)]
        return float(own.loc[own["kind"] == "contextual", column].mean())

    assert row["concepts"] == 3
    assert row["f1"] == pytest.approx(mean("native", 5, "f1"))
    assert row["f1_low"] < row["f1"] < row["f1_high"]
    assert row["auroc"] == pytest.approx(mean("native", 5, "auroc"))
    assert row["dense_f1"] == pytest.approx(mean("native", "dense", "f1"))
    assert row["untrained_f1"] == pytest.approx(mean("random-native", 5, "f1"))
    assert row["null_auroc"] == pytest.approx(mean("random-directions", 5, "auroc"))
    assert row["trivial_f1"] == pytest.approx((0.2 + 0.3 + 0.6) / 3)
    assert len(made["probes"]) == len(table)
    text = summary_probes.probe_table(made["probe_summary"])
    assert "native, 3 contextual" in text
    assert "nan" not in text
