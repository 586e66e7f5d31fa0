"""The `match` stage: pair the dense model with its twins at equal validation loss."""

from __future__ import annotations

from typing import TYPE_CHECKING

from clearnets.pipeline import paths
from clearnets.pipeline.artifacts import Unit, build_all, read_json, write_json
from clearnets.pipeline.runtime import Runtime
from clearnets.pipeline.stage import Stage

if TYPE_CHECKING:
    from clearnets.config import Config


STAGE = Stage(
    name="match",
    does="Pair the dense model with its twins at equal validation loss.",
    example="clearnets match",
    params=("seeds", "models", "match"),
    reads=("artifacts/train",),
    small=("artifacts/match",),
    metrics=True,
)


def units(config: Config) -> list[Unit]:
    """One pair per seed."""
    return [
        Unit(
            stage="match",
            out=paths.match(seed),
            settings={"seed": seed, **config.dump(*STAGE.settings)},
            inputs={mlp: paths.train(mlp, seed) for mlp in config.models},
        )
        for seed in config.seeds
    ]


def run(config: Config, *, runtime: Runtime) -> None:
    """Write `pair.json` for every seed, and the metrics."""
    from clearnets.models.matching import PAIR, checkpoint_losses, match

    for unit, work in build_all(units(config)):
        seed = unit.settings["seed"]
        losses = {mlp: checkpoint_losses(unit.inputs[mlp]) for mlp in config.models}
        pair = match(losses, tolerance=config.match.tolerance)
        for mlp, member in pair.items():
            member["path"] = paths.checkpoint(mlp, seed, member["step"]).as_posix()
        write_json(work.out / PAIR, pair)
    metrics = {}
    for seed in config.seeds:
        pair = read_json(paths.match(seed) / PAIR)
        metrics[f"seed-{seed}"] = {
            f"{mlp}_{key}": value
            for mlp, member in pair.items()
            for key, value in member.items()
            if key != "path"
        }
    write_json(paths.metrics("match"), metrics)
