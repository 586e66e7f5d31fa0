"""`clearnets cache`: the active latents of one family on the splits `explain` and `score`.

Where the corpus has concept labels, also on `concept_fit` and `concept_test`; and there with the
native latents those of random directions in the space that they read, their null.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from clearnets.families import DIRECTIONS, FAMILIES
from clearnets.pipeline import paths
from clearnets.pipeline.artifacts import Unit, Work, build_all, read_json, write_json
from clearnets.pipeline.runtime import Runtime
from clearnets.pipeline.stage import LATENTS, Stage

if TYPE_CHECKING:
    from clearnets.config import Config, Family
    from clearnets.latents.readers import LatentReader

SPLITS = ("explain", "score")


STAGE = Stage(
    name="cache",
    does="Cache the activations of a family's latents in delphi's layout.",
    example="clearnets cache --aux native",
    over=LATENTS,
    params=("seeds", "threads", "cache"),
    reads=("artifacts/data", "artifacts/match", "{source}"),
    writes=("artifacts/cache/{item}",),
    small=("artifacts/metrics/cache-{item}.json",),
    on_device=True,
)


def units(config: Config, *, family: Family) -> list[Unit]:
    """One unit per seed and split, and one more per concept split for the native latents' null."""
    made = []
    for seed in config.seeds:
        for split in (*SPLITS, *config.concept_splits):
            settings = {
                "seed": seed,
                "family": family,
                "split": split,
                **config.dump(*STAGE.settings),
            }
            inputs = _inputs(config, family, seed)
            made.append(Unit("cache", paths.cache(family, seed, split), settings, inputs))
            if FAMILIES[family].null == DIRECTIONS and split in config.concept_splits:
                null = {**settings, "family": DIRECTIONS}
                made.append(Unit("cache", paths.directions(seed, split), null, inputs))
    return made


def _inputs(config: Config, family: Family, seed: int) -> dict[str, Path]:
    spec, inputs = FAMILIES[family], {"data": paths.data()}
    if spec.model is None:
        return inputs
    mlp = str(config.sparse) if spec.model == "sparse" else "dense"
    inputs |= {"match": paths.match(seed), spec.model: paths.train(mlp, seed)}
    if spec.is_coder:
        inputs["coders"] = paths.coders(family, seed)
    return inputs


def run(config: Config, *, runtime: Runtime, family: Family) -> None:
    """Write the cache of a family for every seed and split, and its totals as metrics."""
    wanted = units(config, family=family)
    readers: dict[tuple[int, str], LatentReader] = {}
    for unit, work in build_all(wanted):
        seed, kind = unit.settings["seed"], unit.settings["family"]
        if (seed, kind) not in readers:
            readers[seed, kind] = _open(config, kind, seed, runtime)
        _build(config, unit, work, readers[seed, kind])
    from clearnets.latents.store import STATS

    metrics: dict[str, dict[str, Any]] = {}
    for unit in wanted:
        seed = unit.settings["seed"]
        totals = _totals(read_json(unit.out / STATS))
        metrics.setdefault(f"seed-{seed}", {})[unit.out.name] = totals
    write_json(paths.metrics(f"cache-{family}"), metrics)


def _open(config: Config, kind: Any, seed: int, runtime: Runtime) -> LatentReader:
    from clearnets.data.tokens import open_tokens
    from clearnets.latents.readers import open_directions, open_reader

    if kind != DIRECTIONS:
        return open_reader(kind, seed, device=runtime.torch_device())
    import numpy as np

    store = open_tokens(paths.data())
    rows_RS = np.asarray(store.split("train")[: config.cache.batch_size])
    return open_directions(seed, rows_RS, store.counted(rows_RS), runtime.torch_device())


def _build(config: Config, unit: Unit, work: Work, reader: LatentReader) -> None:
    from clearnets.data.tokens import open_tokens
    from clearnets.latents.cache import cache_split

    store = open_tokens(paths.data())
    split = unit.settings["split"]
    settings = config.cache
    cache_split(
        reader,
        store,
        split,
        work,
        batch_size=settings.batch_size,
        latent_splits=settings.latent_splits,
        config={
            # delphi loads its tokenizer from `model_name`.
            "model_name": (paths.data() / "tokenizer").as_posix(),
            "checkpoint": None if reader.source is None else reader.source.as_posix(),
            "family": unit.settings["family"],
            "dataset_repo": (paths.data() / "tokens").as_posix(),
            "dataset_split": split,
            "dataset_name": "",
            "dataset_column": "text",
            "batch_size": settings.batch_size,
            "cache_ctx_len": store.ctx_len,
            "n_tokens": int(store.split(split).size),
            "n_splits": settings.latent_splits,
        },
        label=f"cache {unit.settings['family']} seed {unit.settings['seed']} {split}",
    )


def _totals(stats: dict[str, Any]) -> dict[str, Any]:
    """Counted tokens, and per layer the mean number of active latents per counted token and the
    share of the latents that are ever active."""
    layers = stats["hookpoints"]
    return {
        "tokens": stats["tokens"],
        "l0": {point: _share(layer["entries"], stats["tokens"]) for point, layer in layers.items()},
        "ever_active": {
            point: _share(layer["active_latents"], layer["num_latents"])
            for point, layer in layers.items()
        },
    }


def _share(part: int, whole: int) -> float:
    return round(part / max(whole, 1), 6)
