"""Compile the paper and its tables in LaTeX."""

from __future__ import annotations

from typing import TYPE_CHECKING

from clearnets.pipeline.stage import Stage

if TYPE_CHECKING:
    from clearnets.config import Config
    from clearnets.pipeline.artifacts import Unit
    from clearnets.pipeline.runtime import Runtime

STAGE = Stage(
    name="paper",
    does="Compile the paper and its LaTeX tables from the tables and figures, in seconds.",
    example="clearnets paper",
    reads=(
        *("params.yaml", "paper/results", "paper/figures", "paper/claims.yaml"),
        *("paper/clearnets.typ", "paper/references.bib", "paper/sections", "paper/typst"),
    ),
    small=("paper/clearnets.pdf", "paper/tables"),
    own_command=True,
)


def units(config: Config) -> list[Unit]:
    """Return nothing: the paper is compiled anew each time."""
    return []


def run(config: Config, *, runtime: Runtime) -> None:
    """Compile the paper of the experiment."""
    from clearnets.paper import manuscript

    manuscript.run(manuscript.place_of(config.experiment, tracked=True))
