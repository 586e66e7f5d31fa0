"""Bring `dvc.yaml` and the fingerprints of code up to date: what DVC knows of the pipeline."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from clearnets import UserError
from clearnets.pipeline import dvc, paths
from clearnets.pipeline.artifacts import write_json, write_text
from clearnets.pipeline.stage import Stage

if TYPE_CHECKING:
    from clearnets.config import Config
    from clearnets.pipeline.artifacts import Unit
    from clearnets.pipeline.runtime import Runtime

STAGE = Stage(
    name="plan",
    does="Write dvc.yaml and the fingerprints of each stage's code.",
    example="clearnets plan",
    params=(
        "models",
        "families",
        "skip",
        "model",
        "coders.existing",
        "execute.families",
        "generalize",
    ),
    reads=("clearnets",),
    small=("artifacts/code.json",),
    without_models=True,
)


def units(config: Config) -> list[Unit]:
    """Return nothing: its file is written anew each time, in less than a second."""
    return []


def run(config: Config, *, runtime: Runtime) -> None:
    """Write `artifacts/code.json`, and `dvc.yaml` where it does not fit the parameters.

    Raises:
        UserError: DVC runs this command, and `dvc.yaml` was not the pipeline of these parameters,
            so what DVC is running is not, either. It is now.
    """
    write_json(paths.CODE, dvc.code_fingerprints(config))
    text = dvc.pipeline(config)
    there = paths.PIPELINE.read_text(encoding="utf-8") if paths.PIPELINE.exists() else ""
    if text == there:
        return
    write_text(paths.PIPELINE, text)
    if "DVC_STAGE" in os.environ:  # DVC has read the other one.
        raise UserError(
            f"{paths.PIPELINE} was not the pipeline of {config.experiment}'s parameters and has "
            "been written anew; run the same command again"
        )
