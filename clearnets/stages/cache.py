"""`clearnets cache`: the active latents of one family on the splits `explain` and `score`.

Where the corpus has concept labels, also on `concept_fit` and `concept_test`; and there with the
native latents those of random directions in the space that they read, their null.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from clearnets.families import DIRECTIONS, FAMILIES
from clearnets.pipeline import paths, processes
from clearnets.pipeline.artifacts import Unit, Work, build_groups, read_json, write_json
from clearnets.pipeline.runtime import Runtime
from clearnets.pipeline.stage import LATENTS, Stage

if TYPE_CHECKING:
    from clearnets.config import Config, Family
    from clearnets.data.tokens import TokenStore
    from clearnets.latents.readers import LatentReader

    Building = tuple[Unit, Work]

SPLITS = ("explain", "score")


STAGE = Stage(
    name="cache",
    does="Cache the activations of a family's latents in delphi's layout.",
    example="clearnets cache --aux native",
    over=LATENTS,
    params=("seeds", "threads", "model.k", "cache"),
    reads=("artifacts/data", "artifacts/match", "{source}"),
    writes=("artifacts/cache/{item}",),
    metrics=True,
    on_device=True,
    together=lambda _, family: FAMILIES[family].model_state,
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
            inputs = paths.read_by(FAMILIES[family], seed)
            made.append(Unit("cache", paths.cache(family, seed, split), settings, inputs))
            if (null := FAMILIES[family].null) in DIRECTIONS and split in config.concept_splits:
                folder = paths.directions(family, seed, split)
                made.append(Unit("cache", folder, {**settings, "family": null}, inputs))
    return made


def run(config: Config, *, runtime: Runtime, families: Sequence[Family]) -> None:
    """Write the cache of families for every seed and split, and their totals as metrics.

    The families read one model, as trained or untrained. It is run once for all of them; seeds and
    splits are shared out among the devices or cores that are there.
    """
    wanted = {family: units(config, family=family) for family in families}
    for stale in build_groups([[unit for made in wanted.values() for unit in made]]):
        _cache(config, runtime, stale)
    from clearnets.latents.store import STATS

    for family, made in wanted.items():
        metrics: dict[str, dict[str, Any]] = {}
        for unit in made:
            seed = unit.settings["seed"]
            totals = _totals(read_json(unit.out / STATS))
            metrics.setdefault(f"seed-{seed}", {})[unit.out.name] = totals
        write_json(paths.metrics(f"cache-{family}"), metrics)


def _cache(config: Config, runtime: Runtime, stale: list[Building]) -> None:
    """Fill the work folders of units, those of a seed and split in one pass."""
    workers = runtime.side_by_side()
    jobs: list[tuple[Any, ...]] = []
    for seed in config.seeds:
        by_split: dict[str, list[Building]] = {}
        for unit, work in stale:
            if unit.settings["seed"] == seed:
                by_split.setdefault(unit.settings["split"], []).append((unit, work))
        for share in range(min(len(workers), len(by_split))):
            own = workers[len(jobs) % len(workers)]
            jobs.append((config, own, list(by_split.values())[share :: len(workers)]))
    for _ in processes.each(
        _cache_splits, jobs, workers=len(workers), preload="clearnets.latents.cache"
    ):
        pass


def _cache_splits(config: Config, runtime: Runtime, splits: list[list[Building]]) -> None:
    """Fill the work folders of units of one seed, which are given by split."""
    from clearnets.data.tokens import open_tokens
    from clearnets.latents.cache import Target, cache_split

    store, settings = open_tokens(paths.data()), config.cache
    readers = _open(config, store, [unit for split in splits for unit, _ in split], runtime)
    for buildings in splits:
        split, seed = (buildings[0][0].settings[key] for key in ("split", "seed"))
        targets = {}
        for unit, work in buildings:
            reader = readers[kind := unit.settings["family"]]
            targets[kind] = Target(reader, work, _config(config, store, unit, reader))
        cache_split(
            list(targets.values()),
            store,
            split,
            batch_size=settings.batch_size,
            latent_splits=settings.latent_splits,
            label=f"cache {', '.join(targets)} seed {seed} {split}",
        )


def _open(
    config: Config, store: TokenStore, made: list[Unit], runtime: Runtime
) -> dict[str, LatentReader]:
    """Return by family the readers of units of one seed; they share their model."""
    import numpy as np

    from clearnets.latents.readers import open_directions, open_model, open_reader

    seed = made[0].settings["seed"]
    kinds = dict.fromkeys(unit.settings["family"] for unit in made)
    nulls = DIRECTIONS.keys() & kinds
    # The null of native latents reads their model.
    reads = [name for name, spec in FAMILIES.items() if name in kinds or spec.null in nulls]
    opened = open_model(reads[0], seed, runtime.torch_device())
    readers = {
        kind: open_reader(kind, seed, opened=opened, k=config.model.k)
        for kind in kinds
        if kind in FAMILIES
    }
    for null in nulls:
        rows_RS = np.asarray(store.split("train")[: config.cache.batch_size])
        readers[null] = open_directions(null, seed, rows_RS, store.counted(rows_RS), opened)
    return readers


def _config(config: Config, store: TokenStore, unit: Unit, reader: LatentReader) -> dict[str, Any]:
    """Return what delphi reads of a cache, and what a reader would want to know of it."""
    split = unit.settings["split"]
    return {
        # delphi loads its tokenizer from `model_name`.
        "model_name": (paths.data() / "tokenizer").as_posix(),
        "checkpoint": None if reader.source is None else reader.source.as_posix(),
        "family": unit.settings["family"],
        "dataset_repo": (paths.data() / "tokens").as_posix(),
        "dataset_split": split,
        "dataset_name": "",
        "dataset_column": "text",
        "batch_size": config.cache.batch_size,
        "cache_ctx_len": store.ctx_len,
        "n_tokens": int(store.split(split).size),
        "n_splits": config.cache.latent_splits,
    }


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
