"""Match checkpoints of a dense model and its twins at (nearly) equal loss, and load them."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clearnets import UserError
from clearnets.config import SPARSE
from clearnets.pipeline import paths
from clearnets.pipeline.artifacts import check, missing, read_json, remake, settings_of

if TYPE_CHECKING:
    from clearnets.families import FamilySpec

PAIR = "pair.json"


@dataclass(frozen=True)
class Pair:
    """Checkpoint folders of the matched models, a dense one and its twins, by feedforward.

    Attributes:
        trained: of equal validation loss.
        untrained: of the sparse ones before their training.
    """

    trained: Mapping[str, Path]
    untrained: Mapping[str, Path]

    @property
    def dense(self) -> Path:
        """The matched checkpoint of the dense model."""
        return self.trained["dense"]

    def checkpoint(self, family: FamilySpec) -> Path:
        """Return the checkpoint of the model that a family reads.

        Coders and neurons of an untrained model are read in one that `untrained.untrained` makes of
        the trained one's config.

        Raises:
            UserError: it reads a model that was not matched.
        """
        native = family.kind == "native" and family.untrained_model
        found = (self.untrained if native else self.trained).get(str(family.model))
        if found is None:
            raise UserError(
                f"family {family.name!r} reads the model {family.model}; add it to `models` and "
                "run `clearnets match`"
            )
        return found


def checkpoint_of(family: FamilySpec, seed: int) -> Path:
    """Return the checkpoint of the model that a family reads.

    Raises:
        UserError: it is missing or damaged, or its model was not matched.
    """
    if family.equal_loss is None:
        return load_pair(seed).checkpoint(family)
    folder = paths.equalize(family.name, seed)
    check(folder)
    return folder / "model"


def match(
    curves: Mapping[str, Mapping[int, float]], *, tolerance: float
) -> dict[str, dict[str, Any]]:
    """Choose the step of each model: the better ones are taken back to meet the worst final loss.

    Args:
        curves: by model, first the dense one, the validation loss in nats per token by step of the
            checkpoints of its run.
        tolerance: the largest difference in nats from the dense model that counts as matched.

    Returns:
        For each run its step, loss, difference from the dense model's, and whether that lies within
        the tolerance. Of two checkpoints that are equally near the later one is taken. A run alone
        is taken at its end.
    """
    final = {name: curve[max(curve)] for name, curve in curves.items()}
    target = max(final.values())
    chosen = {
        name: max(curve)
        if final[name] == target
        else min(curve, key=lambda step, curve=curve: (abs(curve[step] - target), -step))
        for name, curve in curves.items()
    }
    losses = {name: curves[name][step] for name, step in chosen.items()}
    members = {}
    for name, loss in losses.items():
        difference = round(loss - losses["dense"], 6)
        members[name] = {
            "step": chosen[name],
            "valid_loss": loss,
            "difference": difference,
            "matched": abs(difference) <= tolerance,
        }
    return members


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
    trained = {mlp: Path(member["path"]) for mlp, member in pair.items()}
    for folder in trained.values():
        if not (folder / "config.json").exists():
            raise UserError(missing(folder))
    untrained = {}
    for mlp in trained.keys() & SPARSE:
        # A model that was taken over was not untrained at its only checkpoint.
        beside = paths.untrained(mlp, seed)
        untrained[mlp] = beside if beside.exists() else paths.checkpoint(mlp, seed, 0)
    return Pair(trained, untrained)


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
