"""`clearnets cache`: the active latents of one family on the splits `explain` and `score`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from clearnets import paths
from clearnets.artifacts import Unit, Work, build_all, read_json, write_json
from clearnets.config import CODER_FAMILIES, NATIVE_FAMILIES, Config, Family
from clearnets.latents.store import STATS
from clearnets.runtime import Runtime

if TYPE_CHECKING:
    from clearnets.latents.readers import LatentReader

SPLITS = ("explain", "score")


def units(config: Config, *, family: Family) -> list[Unit]:
    """One unit per seed and split."""
    return [
        Unit(
            stage="cache",
            out=paths.cache(family, seed, split),
            settings={"seed": seed, "family": family, "split": split, **config.dump("cache")},
            inputs=_inputs(config, family, seed),
        )
        for seed in config.seeds
        for split in SPLITS
    ]


def _inputs(config: Config, family: Family, seed: int) -> dict[str, Path]:
    inputs = {"data": paths.data()}
    if family == "token-unigram":
        return inputs
    inputs["match"] = paths.match(seed)
    if family in NATIVE_FAMILIES:
        inputs["sparse"] = paths.train(str(config.sparse), seed)
    else:
        inputs["dense"] = paths.train("dense", seed)
    if family in CODER_FAMILIES:
        inputs["coders"] = paths.coders(family, seed)
    return inputs


def run(config: Config, *, runtime: Runtime, family: Family) -> None:
    """Write the cache of a family for every seed and split, and its totals as metrics."""
    wanted = units(config, family=family)
    readers: dict[int, LatentReader] = {}
    for unit, work in build_all(wanted):
        seed = unit.settings["seed"]
        if seed not in readers:
            from clearnets.latents.readers import open_reader

            readers = {seed: open_reader(family, seed, device=runtime.torch_device())}
        _build(config, unit, work, readers[seed])
    metrics: dict[str, dict[str, Any]] = {}
    for unit in wanted:
        seed, split = unit.settings["seed"], unit.settings["split"]
        totals = _totals(read_json(unit.out / STATS))
        metrics.setdefault(f"seed-{seed}", {})[split] = totals
    write_json(paths.metrics(f"cache-{family}"), metrics)


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
