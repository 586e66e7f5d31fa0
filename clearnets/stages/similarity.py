"""`clearnets similarity`: the scorer by embeddings, for all families in one process.

A sample of the windows of `score`, the same for all, is embedded once. A layer is a unit: its
explanations are embedded together, so that their vectors do not depend on what else is scored.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from clearnets.autointerp.records import (
    EXPLAINED,
    EXPLANATIONS,
    ROC,
    ROC_STEPS,
    SIMILAR,
    UNSCORABLE,
)
from clearnets.pipeline import paths
from clearnets.pipeline.artifacts import (
    Unit,
    build_all,
    read_jsonl,
    settings_of,
    to_line,
    write_json,
    write_text,
)
from clearnets.pipeline.runtime import Runtime, progress, seed_for
from clearnets.pipeline.stage import Source, Stage

if TYPE_CHECKING:
    import numpy as np

    from clearnets.autointerp.encoder import Encoder
    from clearnets.config import Config, Similarity
    from clearnets.latents.examples import Grid
    from clearnets.latents.store import LayerCache

SPLIT = "score"


STAGE = Stage(
    name="similarity",
    does="Score explanations by the similarity of their embeddings to those of active windows.",
    example="clearnets similarity",
    params=("seeds", "families", "embed.model", "embed.sha256", "similarity"),
    reads=("artifacts/data", "artifacts/cache", "artifacts/explain"),
    small=("artifacts/similarity",),
    metrics=True,
    on_device=True,
)


def units(config: Config) -> list[Unit]:
    """One unit per family, seed and hookpoint."""
    return [
        Unit(
            stage="similarity",
            out=paths.similarity(family, seed, point),
            settings={
                "seed": seed,
                "family": family,
                "hookpoint": point,
                **config.dump("embed.model", "embed.sha256", "similarity"),
            },
            inputs={
                "data": paths.data(),
                "cache": paths.cache(family, seed, SPLIT),
                "explain": paths.explain(family, seed, point),
            },
        )
        for family in config.families
        for seed in config.seeds
        for point in config.hookpoints(family)
    ]


def sources(config: Config) -> Iterator[Source]:
    """Yield the model that embeds text; its hash is among the parameters already."""
    yield Source(("embed",), "model", dict)


def run(config: Config, *, runtime: Runtime) -> None:
    """Score the explanations of all families; metrics by family and seed."""
    from clearnets.latents.store import load_layer

    todo = units(config)
    sample: _Sample | None = None
    with progress("similarity", len(todo), "layers") as bar:
        for unit, work in build_all(todo):
            # The windows of an explanation are those that it was made with.
            size = settings_of(unit.inputs["explain"])["explain"]["window"]
            sample = sample or _Sample.of(config, runtime, size)
            cache = load_layer(unit.inputs["cache"], unit.settings["hookpoint"])
            records = read_jsonl(unit.inputs["explain"] / EXPLANATIONS)
            scored, roc = score_latents(sample, cache, records, config.similarity)
            write_json(work.out / ROC, roc)
            write_text(work.out / SIMILAR, "".join(f"{to_line(record)}\n" for record in scored))
            bar.advance()
    write_json(paths.metrics("similarity"), _metrics(config))


@dataclass(frozen=True)
class _Sample:
    """The windows that every latent is judged on.

    Attributes:
        windows: all of the split.
        chosen_W: numbers of those in the sample, ascending.
        vector_WD: their embeddings.
    """

    encoder: Encoder
    windows: Grid
    chosen_W: np.ndarray
    vector_WD: np.ndarray

    @classmethod
    def of(cls, config: Config, runtime: Runtime, size: int) -> _Sample:
        import numpy as np

        from clearnets.autointerp.encoder import Encoder
        from clearnets.data.tokens import open_tokens
        from clearnets.latents.examples import windows_of
        from clearnets.latents.window_embeddings import texts_of

        store = open_tokens(paths.data())
        tokens_RS = store.split(SPLIT)
        windows = windows_of(store.counted(tokens_RS), size=size)
        rng = np.random.default_rng(seed_for(config.similarity.seed, "similarity"))
        chosen_W = np.sort(rng.permutation(len(windows))[: config.similarity.windows])
        texts = texts_of(windows, tokens_RS, store.strings())
        encoder = Encoder(config.embed, runtime.torch_device())
        return cls(encoder, windows, chosen_W, encoder.encode([texts[w] for w in chosen_W]))


def score_latents(
    sample: _Sample,
    cache: LayerCache,
    records: Sequence[Mapping[str, Any]],
    settings: Similarity,
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """A record of the score for each record of explanations, and the layer's mean ROC curves."""
    import numpy as np

    from clearnets.autointerp.embedding_scorer import judge_all, mean_curves
    from clearnets.latents.examples import activity

    scored: list[dict[str, Any]] = []
    judged: list[dict[str, Any]] = []
    texts: list[str] = []
    active: list[np.ndarray] = []
    for record in records:
        line = {key: record[key] for key in ("latent", "status", "rate", "windows")}
        line |= dict.fromkeys(("positives", "negatives", "auroc", "shuffled", "elsewhere"))
        scored.append(line)
        if record["status"] != EXPLAINED:
            continue
        found = activity(cache, record["latent"], sample.windows)
        active_W = np.isin(sample.chosen_W, found.active_A, assume_unique=True)
        line["positives"] = int(active_W.sum())
        line["negatives"] = len(active_W) - line["positives"]
        if min(line["positives"], line["negatives"]) < settings.min_windows:
            line["status"] = UNSCORABLE
            continue
        judged.append(line)
        texts.append(f"{settings.instruction}{record['explanation']}")
        active.append(active_W)
    roc: dict[str, Any] = {"latents": len(judged), "own": None, "shuffled": None}
    if judged:
        # Each distinct text once.
        distinct, number_T = np.unique(texts, return_inverse=True)
        vector_TD = sample.encoder.encode(distinct.tolist())[number_T]
        compared = vector_TD, sample.vector_WD, np.stack(active)
        for line, verdict in zip(judged, judge_all(*compared)):
            line |= {key: _rounded(value) for key, value in vars(verdict).items()}
        curves = mean_curves(*compared, np.linspace(0, 1, ROC_STEPS + 1))
        for name, curve in zip(("own", "shuffled"), curves):
            roc[name] = None if curve is None else curve.round(6).tolist()
    return scored, roc


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 6)


def _metrics(config: Config) -> dict[str, Any]:
    """Per family and seed, over all layers: latents with a score, and the means."""
    found: dict[str, dict[str, list[dict[str, Any]]]] = {}
    for unit in units(config):
        seeds = found.setdefault(unit.settings["family"], {})
        records = seeds.setdefault(f"seed-{unit.settings['seed']}", [])
        records += [r for r in read_jsonl(unit.out / SIMILAR) if r["auroc"] is not None]
    return {
        family: {
            seed: {
                "scored": len(records),
                **{key: _mean([r[key] for r in records]) for key in ("auroc", "shuffled")},
            }
            for seed, records in seeds.items()
        }
        for family, seeds in found.items()
    }


def _mean(values: Sequence[float | None]) -> float | None:
    there = [value for value in values if value is not None]
    return round(sum(there) / len(there), 6) if there else None
