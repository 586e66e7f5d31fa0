"""The `equalize` stage: take a sparse model back to the loss of the dense one with coders in place.

Coders lose something of what their model knows; native latents lose nothing. At equal loss of the
plain models the comparison is therefore between models of unequal loss end to end. Here the sparse
model is taken back to the checkpoint whose validation loss is nearest to that of the dense model
with the coders of all layers in place.
"""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

from clearnets.families import FAMILIES
from clearnets.pipeline import paths
from clearnets.pipeline.artifacts import Unit, build_all, read_json, write_json
from clearnets.pipeline.runtime import Runtime
from clearnets.pipeline.stage import EARLY, Stage

if TYPE_CHECKING:
    from clearnets.config import Config


STAGE = Stage(
    name="equalize",
    does="Take a sparse model back to the loss of the dense one with coders in place.",
    example="clearnets equalize --aux early-native",
    over=EARLY,
    params=("seeds", "threads"),
    reads=("artifacts/data", "artifacts/match", "artifacts/train", "{source}"),
    writes=("artifacts/equalize/{item}",),
    on_device=True,
)


def units(config: Config, *, family: str) -> list[Unit]:
    """One unit per seed."""
    spec = FAMILIES[family]
    coders, model = str(spec.equal_loss), str(spec.model)
    return [
        Unit(
            stage="equalize",
            out=paths.equalize(family, seed),
            settings={"seed": seed, "family": family, **config.dump(*STAGE.settings)},
            inputs={
                "data": paths.data(),
                "match": paths.match(seed),
                "dense": paths.train("dense", seed),
                model: paths.train(model, seed),
                "coders": paths.coders(coders, seed),
            },
        )
        for seed in config.seeds
    ]


def run(config: Config, *, runtime: Runtime, family: str) -> None:
    """Write the checkpoint and `equal.json`: step, losses and by how much they differ, in nats."""
    from clearnets.models.matching import PAIR, checkpoint_losses

    model = str(FAMILIES[family].model)
    for unit, work in build_all(units(config, family=family)):
        seed = unit.settings["seed"]
        dense = read_json(paths.match(seed) / PAIR)["dense"]["valid_loss"]
        target = dense + _lost(seed, str(FAMILIES[family].equal_loss), runtime)
        losses = checkpoint_losses(unit.inputs[model])
        step = min(losses, key=lambda step: (abs(losses[step] - target), -step))
        shutil.rmtree(work.out / "model", ignore_errors=True)
        shutil.copytree(paths.checkpoint(model, seed, step), work.out / "model")
        found = {"step": step, "valid_loss": losses[step], "spliced_loss": target}
        write_json(work.out / "equal.json", found | {"difference": losses[step] - target})


def _lost(seed: int, family: str, runtime: Runtime) -> float:
    """Return what the coders of all layers in place cost the dense model, in nats per token."""
    from clearnets.coders import cross_layer, evaluation
    from clearnets.coders.batches import HeldOut
    from clearnets.data.tokens import open_tokens
    from clearnets.models import hookpoints
    from clearnets.models.loading import load
    from clearnets.models.matching import load_pair

    device = runtime.torch_device()
    model = load(load_pair(seed).dense).to(device)  # pyright: ignore[reportArgumentType]
    coders = cross_layer.load(paths.coders(family, seed), hookpoints.names(model), device)
    rows = list(HeldOut.of(open_tokens(paths.data()), "valid", device).intervened())
    return evaluation.loss_spliced(model, coders, rows) - evaluation.loss_with(model, dict, rows)
