"""Every stage of an experiment, in this process and in the working directory."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from clearnets import config
from clearnets.config import Config
from clearnets.paper import figures
from clearnets.pipeline import paths
from clearnets.pipeline.runtime import Runtime
from clearnets.pipeline.stage import items_of

ROOT = Path(__file__).parents[1]
CPU = Runtime(device="cpu", threads=1)

# Below the smoke size: what is written counts here, not what it says.
TINY: dict[str, Any] = {
    "data": {"ctx_len": 64, "tokens": {"train": 30_000}},
    "model": {"hidden_size": 16, "expansion": 4, "rank_ratio": 4},
    "train": {"eval_steps": 1000},
    "coders": {"tokens": 4096},
}


def smoke(over: dict[str, Any]) -> Config:
    """Return the smoke experiment with other parameters."""
    values = config.read_yaml(ROOT / "params.yaml")
    for part in (config.read_yaml(ROOT / "experiments/smoke.yaml"), over):
        values = config.overlay(values, part)
    return config.parse(values, "test")


def tiny_experiment(models: list[str], families: list[str]) -> Config:
    """Return an experiment with these models and families that observes their checkpoints alone."""
    return smoke(
        {**TINY, "models": models, "families": families, "generalize": {"tasks": ["checkpoints"]}}
    )


def own_checkpoints() -> dict[str, Any]:
    """Return parameters of `generalize`: the task on the experiment's own models, at smoke size."""
    smoke = config.read_yaml(ROOT / "experiments/smoke.yaml")["generalize"]
    return {**smoke, "tasks": ["checkpoints"]}


def run_behind_data(cfg: Config) -> None:
    """Run all stages from the models to the tables; the data unit is there."""
    for stage, item in items_of(cfg):
        if stage.name not in ("data", "plan") and not stage.own_command:
            stage.module.run(cfg, runtime=CPU, **stage.selection(cfg, item))


def draw_figures(cfg: Config) -> None:
    """Draw the figures from the tables."""
    Path("paper").mkdir(exist_ok=True)
    shutil.copytree(ROOT / "paper/scripts", "paper/scripts")
    shutil.copyfile(ROOT / "paper/clearnets.mplstyle", "paper/clearnets.mplstyle")
    figures.run(paths.results(cfg.experiment), paths.FIGURES)
