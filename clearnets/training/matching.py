"""The pair: a sparse and a dense checkpoint of (nearly) equal validation loss."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clearnets import paths
from clearnets.artifacts import UserError, check, missing, read_json, remake

PAIR = "pair.json"


@dataclass(frozen=True)
class Pair:
    """Checkpoint folders of the matched pair, and of the sparse model before its training."""

    dense: Path
    sparse: Path
    untrained_sparse: Path


def match(
    dense: Mapping[int, float], sparse: Mapping[int, float], *, tolerance: float
) -> dict[str, Any]:
    """Choose the steps of the pair: the better model is taken back to meet the other's final loss.

    Args:
        dense: validation loss in nats per token by step, of the checkpoints of the dense run.
        sparse: the same of the sparse run.
        tolerance: the largest difference in nats of a pair that counts as matched.

    Returns:
        For each run its step and loss, the difference (sparse minus dense), and whether it lies
        within the tolerance. Of two checkpoints that are equally near the later one is taken.
    """
    curves = {"dense": dense, "sparse": sparse}
    final = {name: curve[max(curve)] for name, curve in curves.items()}
    target = max(final.values())
    chosen = {
        name: max(curve)
        if final[name] == target
        else min(curve, key=lambda step, curve=curve: (abs(curve[step] - target), -step))
        for name, curve in curves.items()
    }
    loss = {name: curves[name][step] for name, step in chosen.items()}
    difference = round(loss["sparse"] - loss["dense"], 6)
    return {
        **{name: {"step": step, "valid_loss": loss[name]} for name, step in chosen.items()},
        "difference": difference,
        "matched": abs(difference) <= tolerance,
    }


def checkpoint_losses(run: Path) -> dict[int, float]:
    """Validation loss by step of the checkpoints that a training run (a unit folder) has kept.

    Raises:
        UserError: the curve is missing or has no row for a checkpoint.
    """
    check(run)
    with (run / "curve.csv").open(newline="", encoding="utf-8") as file:
        losses = {int(row["step"]): float(row["valid_loss"]) for row in csv.DictReader(file)}
    steps = sorted(int(path.name.removeprefix("step-")) for path in run.glob("checkpoints/step-*"))
    for step in steps:
        if step not in losses:
            raise UserError(f"{run}/curve.csv has no row for step {step}; {remake(run)}")
    return {step: losses[step] for step in steps}


def load_pair(seed: int) -> Pair:
    """The checkpoints that `clearnets match` chose for one seed.

    Raises:
        UserError: the pair or one of its checkpoints is missing.
    """
    check(paths.match(seed))
    pair = read_json(paths.match(seed) / PAIR)
    folders = Pair(
        dense=Path(pair["dense"]["path"]),
        sparse=Path(pair["sparse"]["path"]),
        untrained_sparse=paths.checkpoint("sparse", seed, 0),
    )
    for folder in (folders.dense, folders.sparse):
        if not (folder / "config.json").exists():
            raise UserError(missing(folder))
    return folders
