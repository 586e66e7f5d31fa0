"""Every stage of an experiment, from the table of stages, in this process and folder."""

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


def own_checkpoints() -> dict[str, Any]:
    """The section `generalize` at smoke size, with the one task that reads the experiment's own
    models."""
    smoke = config.read_yaml(ROOT / "experiments/smoke.yaml")["generalize"]
    return {**smoke, "tasks": ["checkpoints"]}


def run_behind_data(cfg: Config) -> None:
    """Run all stages from the models to the tables; the data unit is there."""
    for stage, item in items_of(cfg):
        if stage.name not in ("data", "plan", "figures", "paper"):
            stage.module.run(cfg, runtime=CPU, **stage.call(cfg, [item]))


# Making files of figures takes most of the time, and tests of figures see to that.
UNRENDERED = """

def save(figure, folder, name):
    for kind in ("pdf", "svg"):
        (folder / f"{name}.{kind}").touch()
    plt.close(figure)
"""


def copy_scripts() -> None:
    """Copy the figure scripts; the files that they write are empty."""
    Path("paper").mkdir(exist_ok=True)
    shutil.copytree(ROOT / "paper/scripts", "paper/scripts")
    shutil.copyfile(ROOT / "paper/clearnets.mplstyle", "paper/clearnets.mplstyle")
    with open("paper/scripts/common.py", "a") as file:
        file.write(UNRENDERED)


def draw_figures(cfg: Config) -> None:
    """Draw the figures from the tables, into empty files."""
    copy_scripts()
    figures.run(paths.results(cfg.experiment), paths.FIGURES)
