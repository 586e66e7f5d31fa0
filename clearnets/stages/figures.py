"""Draw the paper's figures from the tables."""

from __future__ import annotations

from typing import TYPE_CHECKING

from clearnets.pipeline import paths
from clearnets.pipeline.stage import Stage

if TYPE_CHECKING:
    from clearnets.config import Config
    from clearnets.pipeline.artifacts import Unit
    from clearnets.pipeline.runtime import Runtime

STAGE = Stage(
    name="figures",
    does="Draw the paper's figures from the tables in paper/results/, without training.",
    example="clearnets figures",
    params=("experiment",),
    reads=("paper/results", "paper/clearnets.mplstyle", "paper/scripts"),
    small=("paper/figures",),
    without_models=True,
    own_command=True,
)


def units(config: Config) -> list[Unit]:
    """Return nothing: figures are drawn anew each time."""
    return []


def run(config: Config, *, runtime: Runtime) -> None:
    """Draw every figure of the experiment."""
    from clearnets.paper import figures

    figures.run(paths.results(config.experiment), paths.FIGURES)
