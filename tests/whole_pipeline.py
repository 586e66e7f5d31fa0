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
from clearnets.stages import (
    browse,
    cache,
    collate,
    concepts,
    embed,
    evaluate,
    explain,
    generalize,
    match,
    overlap,
    qualify,
    score,
    similarity,
    sparsify,
    train,
)

ROOT = Path(__file__).parents[1]
CPU = Runtime(device="cpu", threads=1)


def own_checkpoints() -> dict[str, Any]:
    """Above the default's section `generalize`: of its tasks the one that reads the experiment's
    own models, at the smoke size."""
    every = config.read_yaml(ROOT / "params.yaml")["generalize"]["tasks"]
    smoke = config.read_yaml(ROOT / "experiments/smoke.yaml")["generalize"]
    return {**smoke, "tasks": dict.fromkeys(set(every) - {"checkpoints"})}


def run_behind_data(cfg: Config) -> None:
    """From the models to the tables; the data unit is there."""
    for mlp in cfg.models:
        train.run(cfg, runtime=CPU, mlp=mlp)
    match.run(cfg, runtime=CPU)
    for family in cfg.coders.families:
        sparsify.run(cfg, runtime=CPU, family=family)
    evaluate.run(cfg, runtime=CPU)
    embed.run(cfg, runtime=CPU)
    qualify.run(cfg, runtime=CPU)
    for family in cfg.families:
        cache.run(cfg, runtime=CPU, family=family)
        explain.run(cfg, runtime=CPU, family=family, layers=cfg.model.layers)
        score.run(cfg, runtime=CPU, family=family, layers=cfg.model.layers)
        overlap.run(cfg, runtime=CPU, family=family)
        concepts.run(cfg, runtime=CPU, family=family)
    similarity.run(cfg, runtime=CPU)
    for task in cfg.generalize.tasks:
        generalize.run(cfg, runtime=CPU, task=task)
    browse.run(cfg, runtime=CPU)
    collate.run(cfg, runtime=CPU)


def draw_figures(cfg: Config) -> None:
    """The figures from the tables."""
    Path("paper").mkdir(exist_ok=True)
    shutil.copytree(ROOT / "paper/scripts", "paper/scripts")
    shutil.copyfile(ROOT / "paper/clearnets.mplstyle", "paper/clearnets.mplstyle")
    figures.run(paths.results(cfg.experiment), paths.FIGURES)
