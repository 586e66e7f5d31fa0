"""`clearnets probes`: how well linear probes on few latents of a family find known concepts.

probes.csv      a concept and a probe: where it reads, its F1 on both splits and its AUROC on
                `concept_test`; beside it what sets of tokens and of n-grams know of the concept.
                `probe`: how many latents it reads, or `dense`: all dimensions of the activations
                that the family reads. `source`: `own`, or the null of native latents

Concepts are those of `clearnets concepts` and those of `data.storybook.context`. Without rows where
the corpus has none.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from clearnets.families import DIRECTIONS, FAMILIES
from clearnets.pipeline import paths
from clearnets.pipeline.artifacts import Unit, build_groups, write_table
from clearnets.pipeline.runtime import Runtime, progress
from clearnets.pipeline.stage import LATENTS, Stage

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np

    from clearnets.config import Config
    from clearnets.data.tokens import TokenStore
    from clearnets.families import FamilySpec
    from clearnets.latents.probed_corpus import Known, Split
    from clearnets.latents.probes import Features

FIT, TEST = "concept_fit", "concept_test"
SIZES = (1, 2, 5, 16)
DENSE = "dense"
COLUMNS = (
    *("source", "concept", "kind", "positives_fit", "positives_test"),
    *("token_set_f1", "ngram_f1", "probe", "hookpoint", "latents", "f1_fit", "f1", "auroc"),
)

STAGE = Stage(
    name="probes",
    does="Look for known concepts with linear probes on few latents, and on dense activations.",
    example="clearnets probes --aux native",
    over=LATENTS,
    params=("seeds", "threads", "data.corpus", "cache.batch_size", "concepts.lexical"),
    reads=("artifacts/data", "artifacts/match", "artifacts/cache/{item}"),
    writes=("artifacts/probes/{item}",),
    on_device=True,
    together=lambda _, family: FAMILIES[family].model_state,
)


def units(config: Config, *, family: str) -> list[Unit]:
    """One unit per seed."""
    return [
        Unit(
            stage="probes",
            out=paths.probes(family, seed),
            settings={"seed": seed, "family": family, **config.dump(*STAGE.settings)},
            inputs=_inputs(config, family, seed),
        )
        for seed in config.seeds
    ]


def _inputs(config: Config, family: str, seed: int) -> dict[str, Path]:
    inputs = {"data": paths.data()}
    if config.concept_splits:
        inputs |= paths.read_by(FAMILIES[family], seed)
    for split in config.concept_splits:
        inputs[split] = paths.cache(family, seed, split)
        if (null := FAMILIES[family].null) in DIRECTIONS:
            inputs[f"{split} {null}"] = paths.directions(family, seed, split)
    return inputs


def run(config: Config, *, runtime: Runtime, families: Sequence[str]) -> None:
    """Write the table of families that read one model, which is run once for each seed."""
    from clearnets.latents.probed_corpus import TABLE

    wanted = [units(config, family=family) for family in families]
    for stale in build_groups(zip(*wanted, strict=True)):
        corpus = _Corpus.of(config) if config.concept_splits else None
        ceilings: dict[str, list[dict[str, Any]]] = {}
        for unit, work in stale:
            rows: list[dict[str, Any]] = []
            if corpus is not None:
                rows += list(_sparse(config, unit, corpus))
                rows += _ceiling(config, runtime, unit, corpus, ceilings)
            write_table(work.out / TABLE, COLUMNS, rows)


@dataclass(frozen=True)
class _Corpus:
    """Both splits, and what is known of their concepts."""

    store: TokenStore
    splits: Mapping[str, Split]
    known: Sequence[Known]
    truths: Mapping[str, np.ndarray]

    @classmethod
    def of(cls, config: Config) -> _Corpus:
        from clearnets.data.tokens import open_tokens
        from clearnets.latents.probed_corpus import concept_names, known, open_split

        store, seed = open_tokens(paths.data()), config.data.corpus.seed
        splits = {name: open_split(store, name, seed=seed) for name in (FIT, TEST)}
        names = concept_names(store)
        found = known(names, splits[FIT], splits[TEST], lexical=config.concepts.lexical)
        truths = {name: split.truth_CT for name, split in splits.items()}
        return cls(store, splits, found, truths)

    def rows(
        self, layers: Sequence[Features], points: Sequence[str], size: int | None
    ) -> Iterator[dict[str, Any]]:
        """Yield a row for each concept that both splits hold."""
        from clearnets.latents import probed_corpus
        from clearnets.latents.probes import probe

        for number, one in enumerate(self.known):
            if one.kind == probed_corpus.ABSENT:
                continue
            found = probe(layers, number, self.truths[TEST][number], size)
            latents = "" if size is None else " ".join(map(str, found.chosen_K.tolist()))
            row = {"probe": size or DENSE, "hookpoint": points[found.layer], "latents": latents}
            row |= {"f1_fit": found.f1_fit, "f1": found.f1, "auroc": found.auroc}
            yield {**probed_corpus.columns(one), **row}


def _sparse(config: Config, unit: Unit, corpus: _Corpus) -> Iterator[dict[str, Any]]:
    """Yield the rows of probes on few latents, of the family and of its null."""
    import numpy as np

    from clearnets.latents.probed_corpus import OWN
    from clearnets.latents.probes import Features
    from clearnets.latents.stability import Activity, number_tokens
    from clearnets.latents.store import load_layer

    family = unit.settings["family"]
    points, null = config.hookpoints(family), FAMILIES[family].null
    sources = {OWN: "", **({null: f" {null}"} if null in DIRECTIONS else {})}
    numbers = {
        name: number_tokens(split.counted_RS, np.arange(len(split.tokens_RS)))
        for name, split in corpus.splits.items()
    }
    label = f"probes {family} seed {unit.settings['seed']}"
    with progress(label, len(sources) * len(SIZES), "sizes of probes") as bar:
        for source, suffix in sources.items():
            layers = []
            for point in points:
                fit, test = (
                    Activity.of(load_layer(unit.inputs[f"{name}{suffix}"], point), numbers[name])
                    for name in (FIT, TEST)
                )
                layers.append(Features(fit.acts_TL, test.acts_TL, corpus.truths[FIT]))
            for size in SIZES:
                for row in corpus.rows(layers, points, size):
                    yield {"source": source, **row}
                bar.advance()


def _ceiling(
    config: Config,
    runtime: Runtime,
    unit: Unit,
    corpus: _Corpus,
    known: dict[str, list[dict[str, Any]]],
) -> list[dict[str, Any]]:
    """Return the rows of probes on the activations that a family reads; those that another family
    reads too are in `known`."""
    from clearnets.latents.probed_corpus import OWN
    from clearnets.latents.probes import Features
    from clearnets.latents.readers import open_model

    family = unit.settings["family"]
    spec, points = FAMILIES[family], config.hookpoints(family)
    if spec.model is None:
        return []
    side = _side(spec)
    if side not in known:
        opened = open_model(family, unit.settings["seed"], runtime.torch_device())
        fit, test = (
            _activations(opened.model, points, side, split, config.cache.batch_size)
            for split in corpus.splits.values()
        )
        truth_CT = corpus.truths[FIT]
        layers = [Features(one, other, truth_CT) for one, other in zip(fit, test)]
        known[side] = [{"source": OWN, **row} for row in corpus.rows(layers, points, None)]
    return known[side]


def _side(spec: FamilySpec) -> str:
    return "output" if spec.is_coder and not spec.transcode else "input"


def _activations(
    model: Any, points: Sequence[str], side: str, split: Split, batch_size: int
) -> list[np.ndarray]:
    """Return by layer what modules read or write at counted tokens, (T, D) float32."""
    import numpy as np
    import torch

    from clearnets.latents.hooks import capture

    parts: list[list[np.ndarray]] = [[] for _ in points]
    for start in range(0, len(split.tokens_RS), batch_size):
        rows = slice(start, start + batch_size)
        tokens_BS = torch.from_numpy(split.tokens_RS[rows].astype(np.int64))
        with torch.no_grad(), capture(model, points, inputs=True) as seen:
            model.base_model(input_ids=tokens_BS.to(model.device), use_cache=False)
        for found, point in zip(parts, points):
            tensor = seen[point][0 if side == "input" else 1]
            found.append(tensor.float().numpy(force=True)[split.counted_RS[rows]])
    return [np.concatenate(found) for found in parts]
