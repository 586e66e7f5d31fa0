"""Match a dense with a sparse checkpoint of (nearly) equal validation loss, and load that pair."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clearnets import UserError
from clearnets.config import MLPS
from clearnets.pipeline import paths
from clearnets.pipeline.artifacts import check, missing, read_json, remake, settings_of

if TYPE_CHECKING:
    from clearnets.families import FamilySpec

PAIR = "pair.json"


@dataclass(frozen=True)
class Pair:
    """Checkpoint folders of the matched pair, and of the sparse model before its training.

    Where the experiment has no sparse model, the dense one is alone.
    """

    dense: Path
    sparse: Path | None = None
    untrained_sparse: Path | None = None

    def checkpoint(self, family: FamilySpec) -> Path:
        """Return the checkpoint of the model that a family reads.

        No untrained dense model is kept: there it is the trained one's, from which
        `untrained.untrained` makes the other.

        Raises:
            UserError: it reads a sparse model, and the pair has none.
        """
        if family.model == "dense":
            return self.dense
        found = self.untrained_sparse if family.untrained_model else self.sparse
        if found is None:
            raise UserError(f"family {family.name!r} needs a sparse model, and the pair has none")
        return found


def match(curves: Mapping[str, Mapping[int, float]], *, tolerance: float) -> dict[str, Any]:
    """Choose the steps of the pair: the better model is taken back to meet the other's final loss.

    Args:
        curves: by model, first the dense and then the sparse one if there is any, the validation
            loss in nats per token by step of the checkpoints of its run.
        tolerance: the largest difference in nats of a pair that counts as matched.

    Returns:
        For each run its step and loss and, of two, the difference (sparse minus dense) and whether
        it lies within the tolerance. Of two checkpoints that are equally near the later one is
        taken. A run alone is taken at its end.
    """
    final = {name: curve[max(curve)] for name, curve in curves.items()}
    target = max(final.values())
    chosen = {
        name: max(curve)
        if final[name] == target
        else min(curve, key=lambda step, curve=curve: (abs(curve[step] - target), -step))
        for name, curve in curves.items()
    }
    members = {
        name: {"step": step, "valid_loss": curves[name][step]} for name, step in chosen.items()
    }
    if len(members) == 1:
        return members
    dense, sparse = (member["valid_loss"] for member in members.values())
    difference = round(sparse - dense, 6)
    return {**members, "difference": difference, "matched": abs(difference) <= tolerance}


def checkpoint_losses(run: Path) -> dict[int, float]:
    """Return validation loss by step of the checkpoints of a training run (a unit folder).

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
    """Return the checkpoints that `clearnets match` chose for one seed.

    Raises:
        UserError: the pair or one of its checkpoints is missing.
    """
    check(paths.match(seed))
    pair = read_json(paths.match(seed) / PAIR)
    members = {mlp: Path(pair[mlp]["path"]) for mlp in MLPS if mlp in pair}
    for folder in members.values():
        if not (folder / "config.json").exists():
            raise UserError(missing(folder))
    dense = members.pop("dense")
    for mlp, sparse in members.items():
        # A model that was taken over was not untrained at its only checkpoint.
        beside = paths.untrained(mlp, seed)
        untrained = beside if beside.exists() else paths.checkpoint(mlp, seed, 0)
        return Pair(dense, sparse, untrained)
    return Pair(dense)


def attention_within(seed: int) -> bool:
    """Return whether attention stayed within documents in the training of the pair."""
    return settings_of(paths.train("dense", seed))["model"]["attention"] == "within"


def trained_tokens(run: Path, step: int) -> int | None:
    """Return how many tokens the checkpoint of a training run was trained on.

    None for a model that others trained, which counts as a run of no step.

    Raises:
        UserError: the run's curve has no such step.
    """
    curve = run / "curve.csv"
    with curve.open(newline="", encoding="utf-8") as file:
        tokens = {int(row["step"]): int(float(row["tokens"])) for row in csv.DictReader(file)}
    if step not in tokens:
        raise UserError(f"{curve} has no step {step}; {remake(run)}")
    return None if set(tokens) == {0} else tokens[step]
