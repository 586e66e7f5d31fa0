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


def experiment(models: list[str], families: list[str]) -> Config:
    """Return a small experiment with these models and families; it observes its checkpoints."""
    over = {"models": models, "families": families, "generalize": own_checkpoints()}
    values = config.read_yaml(ROOT / "params.yaml")
    for part in (config.read_yaml(ROOT / "experiments/smoke.yaml"), TINY, over):
        values = config.overlay(values, part)
    return config.parse(values, "test")
