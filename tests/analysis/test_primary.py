"""Which contrasts are primary, their correction, and their interaction with layers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
import synthetic_results
from scipy import stats as scipy_stats

from clearnets.analysis.contrasts import comparisons
from clearnets.analysis.layer_contrasts import layer_contrast_tables
from clearnets.analysis.primary import primary_table
from clearnets.families import FAMILIES

CONFIG = synthetic_results.small(
    seeds=[0, 1, 2], families=["native", "groupmax-transcoder", "transcoder"]
)
PAIR = {"a": "native", "b": "groupmax-transcoder"}


def test_primary_contrasts_have_the_same_selection():
    present = ["native", "topk-native", "transcoder", "groupmax-transcoder", "sae", "neurons"]
    found = comparisons(present)
    assert found[:2] == [
        ("primary", "native", "groupmax-transcoder"),
        ("primary", "topk-native", "transcoder"),
    ]
    assert {pair for pair in found if pair[0] == "secondary"} == {
        ("secondary", "topk-native", "sae"),
        ("secondary", "native", "topk-native"),
    }
    assert ("neurons", "topk-native", "neurons") in found
    for kind, a, b in found:
        if kind == "primary":
            assert FAMILIES[a].selection == FAMILIES[b].selection


def test_other_families_are_compared_with_the_native_one_that_is_most_alike():
    present = ["native", "topk-native", "low-rank-native", "transcoder", "wide-transcoder"]
    present += ["e2e-transcoder", "batchtopk-transcoder"]
    secondary = {(a, b) for kind, a, b in comparisons(present) if kind == "secondary"}
    assert secondary == {
        ("topk-native", "wide-transcoder"),
        ("topk-native", "e2e-transcoder"),
        ("native", "batchtopk-transcoder"),
        ("low-rank-native", "transcoder"),
        ("native", "topk-native"),
        ("topk-native", "low-rank-native"),
    }
    alone = comparisons(["native", "transcoder"])
    assert alone == [("secondary", "native", "transcoder")]
    assert comparisons(["transcoder", "random-transcoder"]) == [
        ("untrained twin", "transcoder", "random-transcoder")
    ]
    # Without native latents coders are compared with each other.
    assert comparisons(["sae", "transcoder", "skip-transcoder"]) == [
        ("secondary", "transcoder", "skip-transcoder"),
        ("secondary", "transcoder", "sae"),
    ]
    assert comparisons(["neurons"]) == []


def contrast_rows(values_RS: np.ndarray) -> pd.DataFrame:
    """A contrast per row of differences by seed, with the t interval over seeds."""
    mean, error = values_RS.mean(1), scipy_stats.sem(values_RS, axis=1)
    reach = error * scipy_stats.t.ppf(0.975, values_RS.shape[1] - 1)
    columns = {"a": "a", "b": [f"b{i}" for i in range(len(mean))], "scorer": "s"}
    columns |= {"difference": mean, "low_seeds": mean - reach, "high_seeds": mean + reach}
    columns |= {"low": mean - 0.01, "high": mean + 0.01, "n_a": 40, "n_b": 30}
    return pd.DataFrame(columns).assign(role="primary")


def test_primary_contrasts_are_tested_under_one_correction():
    values = np.random.default_rng(0).normal([[0.05], [0.01], [-0.03]], 0.01, (3, 3))
    rows = contrast_rows(values)
    others = rows.assign(role="exploratory", difference=9.0)
    table = primary_table(pd.concat([rows, others]), CONFIG)
    assert list(table["b"]) == ["b0", "b1", "b2"]
    test: Any = scipy_stats.ttest_1samp
    p = test(values, 0, axis=1).pvalue
    margin = CONFIG.collate.equivalence
    low = test(values, -margin, axis=1, alternative="greater").pvalue
    high = test(values, margin, axis=1, alternative="less").pvalue
    assert table["p"].to_numpy() == pytest.approx(p)
    assert table["p_equivalent"].to_numpy() == pytest.approx(np.maximum(low, high))
    for name, plain in (("p_adjusted", p), ("p_equivalent_adjusted", np.maximum(low, high))):
        worst, adjusted = 0.0, {}
        for rank, index in enumerate(np.argsort(plain)):
            worst = max(worst, (3 - rank) * plain[index])
            adjusted[index] = min(1, worst)
        assert table[name].to_dict() == pytest.approx(adjusted)
    reach = scipy_stats.t.ppf(1 - 0.05 / 6, 2) * scipy_stats.sem(values, axis=1)
    assert table["high"].to_numpy() == pytest.approx(values.mean(1) + reach)
    assert set(table["level"]) == {"seeds"}


def test_with_few_seeds_the_tests_are_over_latents():
    rows = contrast_rows(np.full((2, 2), 0.01)).drop(columns=["low_seeds", "high_seeds"])
    one_seed = synthetic_results.few(seeds=[0])
    table = primary_table(rows, one_seed)
    # The interval ends at 0: the two-sided test is at its level.
    assert table["p"].to_numpy() == pytest.approx(0.05)
    assert table["p_adjusted"].to_numpy() == pytest.approx(0.1)
    assert set(table["level"]) == {"latents"}
    assert set(table["units"]) == {30}
    assert primary_table(rows.assign(role="exploratory"), one_seed).empty


def latents(slope: float) -> pd.DataFrame:
    """Five layers of both families, of which the first one's scores rise by `slope` per layer."""
    rng = np.random.default_rng(1)
    rows = [
        {
            "family": family,
            "seed": seed,
            "layer": layer,
            "s": 0.7 + rng.normal(0, 0.05) + slope * layer * (family == "native"),
            "rate": 0.1,
            "windows": 0.5,
            "status": "explained",
            "matters": layer < 4,
        }
        for family in PAIR.values()
        for seed in CONFIG.seeds
        for layer in range(5)
        for _ in range(30)
    ]
    return pd.DataFrame(rows)


@pytest.mark.parametrize("slope", [0.0, 0.02])
def test_the_interaction_with_layers_is_that_of_a_loop(slope):
    frame = latents(slope)
    tables = layer_contrast_tables({"s": frame}, CONFIG)
    by_layer, test = tables["layer_contrasts"], tables["layer_interactions"].iloc[0]
    assert list(by_layer["matters"]) == [True] * 4 + [False]
    difference, variance, per_seed = [], [], {seed: [] for seed in CONFIG.seeds}
    rows: Any
    for _, rows in frame.groupby("layer"):
        own, other = (rows[rows["family"] == family] for family in PAIR.values())
        difference.append(own["s"].mean() - other["s"].mean())
        within = [one.groupby("seed")["s"].var(ddof=0).sum() for one in (own, other)]
        variance.append(sum(within) * 30 / 90**2)
        for seed, values in per_seed.items():
            means = [one[one["seed"] == seed]["s"].mean() for one in (own, other)]
            values.append(means[0] - means[1])
    assert by_layer["difference"].to_numpy() == pytest.approx(np.array(difference))
    width = (by_layer["high"] - by_layer["low"]) / (2 * 1.96)
    assert width.to_numpy() == pytest.approx(np.sqrt(variance), rel=0.3)
    # The last layer does not matter.
    difference = np.array(difference[:4])
    weight = 1 / np.array(variance[:4])
    q = (weight * (difference - np.average(difference, weights=weight)) ** 2).sum()
    assert test["q"] == pytest.approx(q, rel=0.3)
    assert test["p"] == pytest.approx(scipy_stats.chi2.sf(test["q"], 3))
    assert (test["p"] < 0.001) == bool(slope)
    assert test["slope"] == pytest.approx(np.polyfit(range(4), difference, 1)[0])
    slopes = [np.polyfit(range(4), values[:4], 1)[0] for values in per_seed.values()]
    reach = scipy_stats.sem(slopes) * scipy_stats.t.ppf(0.975, 2)
    assert test["slope_high_seeds"] - test["slope"] == pytest.approx(reach, rel=0.2)
    assert (test["slope_low"] > 0) == bool(slope)
