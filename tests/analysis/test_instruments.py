"""The known-groups test of scores, on tables whose answers are known."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from clearnets.analysis.instruments import COLUMNS, CONCEPTS, instrument_table
from clearnets.config import load

FAMILIES = ("transcoder", "random-transcoder", "planted-rule", "planted-noisy", "token-unigram")


def contrast(kind: str, a: str, b: str, low: float, **changes) -> dict:
    return {
        "kind": kind,
        "a": a,
        "b": b,
        "scorer": "rule-detection",
        "layers": "all",
        "latents": "explained",
        "matching": "none",
        "seed": "all",
        "measure": "balanced_accuracy",
        "difference": low + 0.1,
        "low": low,
        "high": low + 0.2,
        **changes,
    }


def test_pairs_whose_order_is_known_are_told_from_all_others(monkeypatch):
    twins = ("untrained twin", "transcoder", "random-transcoder")
    rows = [
        contrast(*twins, 0.02, latents="live"),
        contrast(*twins, -0.9),
        contrast(*twins, -0.9, latents="live", matching="rate"),
        contrast(*twins, -0.9, latents="live", measure="recall"),
        contrast("own shuffled", "transcoder", "shuffled", 0.3),
        contrast("own shuffled", "random-transcoder", "shuffled", -0.9),
        contrast("planted", "planted-rule", "planted-noisy", -0.01),
        contrast("primary", "transcoder", "planted-noisy", -0.9),
    ]
    monkeypatch.chdir(Path(__file__).parents[2])
    config = load().model_copy(update={"families": FAMILIES})
    bounds = {"family": ["transcoder", "random-transcoder"], "f1": [0.5, 0.3]}
    concepts = pd.DataFrame({**bounds, "f1_low": [0.4, 0.2], "f1_high": [0.6, 0.41]})
    concepts = concepts.assign(seed="all", kind="all")
    table = instrument_table([pd.DataFrame(rows)], concepts, config)
    assert tuple(table) == COLUMNS
    found = table[["scorer", "test", "a", "b", "passes"]].astype(object).to_numpy().tolist()
    assert found == [
        ["rule-detection", "trained", "transcoder", "random-transcoder", True],
        ["rule-detection", "own", "transcoder", "shuffled", True],
        ["rule-detection", "planted", "planted-rule", "planted-noisy", False],
        [CONCEPTS, "trained", "transcoder", "random-transcoder", False],
    ]
