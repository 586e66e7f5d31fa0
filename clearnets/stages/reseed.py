"""`clearnets reseed`: train coders once more, with another seed, on the same model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import cycle
from pathlib import Path
from typing import TYPE_CHECKING

from clearnets.families import FAMILIES
from clearnets.pipeline import paths, processes
from clearnets.pipeline.artifacts import Unit, build_groups
from clearnets.pipeline.runtime import Runtime
from clearnets.pipeline.stage import RESEEDED, Stage

if TYPE_CHECKING:
    from clearnets.config import Config

STAGE = Stage(
    name="reseed",
    does="Train coders once more, with another seed, on the same model.",
    example="clearnets reseed --aux transcoder",
    over=RESEEDED,
    params=(
        *("seeds", "threads", "model.expansion", "model.k"),
        *("coders.tokens", "coders.batch_size", "coders.grad_acc_steps"),
        *("coders.micro_acc_steps", "coders.multi_topk", "coders.precision", "coders.optimizer"),
        *("coders.learning_rate", "coders.warmup_steps", "coders.bias_step"),
        "coders.silent_steps",
    ),
    reads=("artifacts/data", "artifacts/match", "{source}"),
    writes=("artifacts/reseed/{item}",),
    on_device=True,
    together=lambda _, family: FAMILIES[family].model_state,
)


def units(config: Config, *, family: str) -> list[Unit]:
    """One unit per seed."""
    settings = {"family": family, **config.dump(*STAGE.settings)}
    settings["coders.learning_rate"] = config.coders.rate(family)
    model = str(FAMILIES[family].model)
    return [
        Unit(
            stage="reseed",
            out=paths.reseed(family, seed),
            settings={"seed": seed, **settings},
            inputs={
                "data": paths.data(),
                "match": paths.match(seed),
                model: paths.train(model, seed),
            },
        )
        for seed in config.seeds
    ]


def run(config: Config, *, runtime: Runtime, families: Sequence[str]) -> None:
    """Write the coders of families of one model for every seed, in sparsify's format.

    Layers are shared out among the devices or cores that are there; no result depends on how many.
    """
    wanted = [units(config, family=family) for family in families]
    for stale in build_groups(zip(*wanted, strict=True)):
        seed, jobs, workers = stale[0][0].settings["seed"], [], runtime.side_by_side()
        for trained in (True, False):
            works = {
                unit.settings["family"]: (work.out, work.state)
                for unit, work in stale
                if FAMILIES[unit.settings["family"]].trained == trained
            }
            shares = [config.model.layers[n :: len(workers)] for n in range(len(workers))]
            jobs += [
                (config, seed, works, share, worker)
                for share, worker in zip(shares, cycle(workers))
                if works and share
            ]
        for _ in processes.each(
            _build, jobs, workers=len(workers), preload="clearnets.coders.training"
        ):
            pass


def _build(
    config: Config,
    seed: int,
    works: Mapping[str, tuple[Path, Path]],
    layers: Sequence[int],
    runtime: Runtime,
) -> None:
    """Train the coders of some layers."""
    from clearnets.coders.library import save_coder
    from clearnets.coders.reseeding import refit

    name = f"layers-{'-'.join(map(str, layers))}.pt"
    states = {family: state / name for family, (_, state) in works.items()}
    label = f"reseed {', '.join(works)} seed {seed} layers {', '.join(map(str, layers))}"
    chains = refit(config, seed, states, layers, runtime, label=label)
    for family, chain in chains.items():
        for point, coder in chain.coders.items():
            save_coder(coder, works[family][0] / point)
