"""`clearnets stability`: which latents of a family have a counterpart in another run.

Another run is the same coders trained with another seed on the same model (`reseeded`), and the
whole pipeline with another training seed (`seed-1`, of which each pair is compared once). As a
null, each layer is also matched with the other run's layer half the depth away.

latents.csv     a latent of a layer, for each other run: at how many tokens it is active, its
                counterpart, both latents' correlation, that with the counterpart in the null's
                layer, and the cosine of their decoder directions where the model is the same
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from clearnets.families import FAMILIES
from clearnets.pipeline import paths
from clearnets.pipeline.artifacts import Unit, build_all, write_table
from clearnets.pipeline.runtime import Runtime, progress
from clearnets.pipeline.stage import STABLE, Stage

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np

    from clearnets.config import Config
    from clearnets.latents.stability import Activity

SPLIT = "explain"
RESEEDED = "reseeded"
LATENTS = "latents.csv"
COLUMNS = (
    *("other", "layer", "latent", "tokens"),
    *("partner", "correlation", "null_correlation", "decoder_cosine"),
)

STAGE = Stage(
    name="stability",
    does="Find the counterparts of latents in runs with other seeds.",
    example="clearnets stability --aux transcoder",
    over=STABLE,
    params=("seeds", "threads", "stability.rows"),
    reads=("artifacts/data", "artifacts/match", "artifacts/cache/{item}", "{source}"),
    writes=("artifacts/stability/{item}",),
    on_device=True,
)


def units(config: Config, *, family: str) -> list[Unit]:
    """One unit per seed, for what is compared with it."""
    return [
        Unit(
            stage="stability",
            out=paths.stability(family, seed),
            settings={"seed": seed, "family": family, **config.dump(*STAGE.settings)},
            inputs=_inputs(config, family, seed),
        )
        for seed in config.seeds
    ]


def _inputs(config: Config, family: str, seed: int) -> dict[str, Path]:
    inputs = {"data": paths.data(), "cache": paths.cache(family, seed, SPLIT)}
    if family in config.reseeded_families:
        inputs |= paths.read_by(FAMILIES[family], seed)
        inputs[RESEEDED] = paths.reseed(family, seed)
    later = config.seeds[config.seeds.index(seed) + 1 :]
    return inputs | {f"seed-{other}": paths.cache(family, other, SPLIT) for other in later}


def run(config: Config, *, runtime: Runtime, family: str) -> None:
    """Write the counterparts of the latents of a family for every seed."""
    import numpy as np

    from clearnets.coders.batches import evenly_spaced
    from clearnets.data.tokens import open_tokens
    from clearnets.latents.stability import number_tokens

    points = config.hookpoints(family)
    numbers = config.hookpoints_by_layer(family)
    for unit, work in build_all(units(config, family=family)):
        store = open_tokens(unit.inputs["data"])
        tokens_RS = np.asarray(store.split(SPLIT))
        rows = evenly_spaced(len(tokens_RS), config.stability.rows)
        number_RS = number_tokens(store.counted(tokens_RS), rows)
        table: list[dict[str, Any]] = []
        own = _cached(unit.inputs["cache"], points, number_RS)
        others = [name for name in unit.inputs if name.startswith("seed-") or name == RESEEDED]
        label = f"stability {family} seed {unit.settings['seed']}"
        with progress(label, len(points) * len(others), "layers") as bar:
            for name in others:
                found = (
                    _reseeded(config, runtime, unit, tokens_RS, number_RS)
                    if name == RESEEDED
                    else _cached(unit.inputs[name], points, number_RS)
                )
                for number, rows_of_layer in zip(numbers, _compare(unit, name, own, found)):
                    table += [{"layer": number, **row} for row in rows_of_layer]
                    bar.advance()
        write_table(work.out / LATENTS, COLUMNS, table)


def _cached(folder: Path, points: list[str], number_RS: np.ndarray) -> dict[str, Activity]:
    """Return the activity in all layers of a cache."""
    from clearnets.latents.stability import Activity
    from clearnets.latents.store import load_layer

    return {point: Activity.of(load_layer(folder, point), number_RS) for point in points}


def _reseeded(
    config: Config, runtime: Runtime, unit: Unit, tokens_RS: np.ndarray, number_RS: np.ndarray
) -> dict[str, Activity]:
    """Return the activity in all layers of the coders with another seed."""
    import numpy as np

    from clearnets.latents.readers import CoderReader, load_encoder, open_model
    from clearnets.latents.reading import read_layers
    from clearnets.latents.stability import Activity

    family = unit.settings["family"]
    opened = open_model(family, unit.settings["seed"], runtime.torch_device())
    folder, points = unit.inputs[RESEEDED], config.hookpoints(family)
    encoders = {point: load_encoder(folder / point, opened.device) for point in points}
    rows = np.flatnonzero((number_RS >= 0).any(axis=1))
    reader = CoderReader(opened.model, encoders)
    found = read_layers(reader, tokens_RS, rows, batch_size=config.cache.batch_size)
    return {point: Activity.of(layer, number_RS) for point, layer in found.items()}


def _compare(
    unit: Unit, other: str, own: Mapping[str, Activity], found: Mapping[str, Activity]
) -> Iterator[list[dict[str, Any]]]:
    """Yield the rows of each layer, without its number."""
    from clearnets.latents.neighbours import weights
    from clearnets.latents.stability import correlations, cosines, match

    points = list(own)
    for number, point in enumerate(points):
        matched = match(correlations(own[point], found[point]))
        columns: dict[str, Any] = {
            "latent": range(len(matched.partner_A)),
            "tokens": own[point].active_L.tolist(),
            "partner": matched.partner_A.tolist(),
            "correlation": matched.correlation_A.tolist(),
        }
        if len(points) > 1:
            elsewhere = points[(number + len(points) // 2) % len(points)]
            null = match(correlations(own[point], found[elsewhere]))
            columns["null_correlation"] = null.correlation_A.tolist()
        if other == RESEEDED and FAMILIES[unit.settings["family"]].trained:
            one, two = (
                weights(unit.inputs[key] / point, "decoder") for key in ("coders", RESEEDED)
            )
            columns["decoder_cosine"] = cosines(one, two, matched.partner_A).tolist()
        yield [{"other": other, **dict(zip(columns, values))} for values in zip(*columns.values())]
