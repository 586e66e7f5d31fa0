"""The smoke experiment, smaller, with other models and families."""

from __future__ import annotations

from typing import Any

from whole_pipeline import ROOT, own_checkpoints

from clearnets import config
from clearnets.config import Config

# Below the smoke size: what is written counts here, not what it says.
TINY: dict[str, Any] = {
    "data": {"ctx_len": 64, "tokens": {"train": 30_000}},
    "model": {"hidden_size": 16, "expansion": 4, "rank_ratio": 4},
    "train": {"eval_steps": 1000},
    "coders": {"tokens": 4096},
}
NATIVE = ("native", "random-native")


def experiment(models: list[str], families: list[str]) -> Config:
    """The smoke experiment with these models and families, whose checkpoints alone it observes."""
    values = config.read_yaml(ROOT / "params.yaml")
    values = config.overlay(values, config.read_yaml(ROOT / "experiments/smoke.yaml"))
    weights = {family: f"coders/{family}" for family in families}
    weights |= {family: f"train/{models[-1]}" for family in families if family in NATIVE}
    weights |= {"neurons": "train/dense"} if "neurons" in families else {}
    coders = [family for family in families if weights[family] == f"coders/{family}"]
    over = {
        "models": models,
        "coders": {"families": coders},
        "generalize": own_checkpoints(),
    }
    return config.parse(
        config.overlay(config.overlay(values, TINY), over) | {"families": weights}, "test"
    )
