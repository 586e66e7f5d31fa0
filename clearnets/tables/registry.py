"""Every table of an experiment, from what the stages left on disk.

Everything computes on what `clearnets.tables.sources` has read. Every table is a pandas frame in a
fixed order of rows and columns, written with six significant digits, so that the same results give
the same bytes.

| table | one row per |
|---|---|
| curves | model, seed, measured step |
| ngrams | reference line of the loss curves |
| pair | seed: the checkpoints that were paired |
| compute | model or family: parameters, FLOPs, tokens |
| layers | seed, model or family, layer: ablation cost; fvu, l0, dead, loss recovered, baselines |
| splice_all | seed, family: all layers replaced at once |
| latents | sampled latent: status, activity, scores |
| coverage | seed, family, layer: how many latents were dead, too rare, ... |
| means | seed or all, family, scorer, kind of mean: with its interval |
| layer_means | family, scorer, layer; all seeds |
| rates | family, scorer, bin of firing rate; all seeds |
| contrasts | seed or all, pair of families, scorer, way of matching: difference with its interval |
| strata | pair of families, scorer, bin of firing rate; all seeds |
| summary | family; all seeds |
| embedding ... | see `clearnets.tables.embedding` |
| judged ... | see `clearnets.tables.judged`: scores by a language model that has qualified |
| demonstration ... | the same by one that has not: no figure and no other table shows them |
| judge | test of the language model that judges, where one does: how well it did |
| protocols | family, scorer, bin of firing rate: what scoring on seen windows is worth |
| ratings ... | see `clearnets.tables.ratings`: answers of people, where there are any |
| concepts ... | see `clearnets.tables.concepts` |
| generalization_... | see `clearnets.tables.observed` |
| generalization_leads | task, group of runs, metric: whether it moves before the test loss |
| generalization_ranking | task, metric: how well it orders runs by their gap |
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from clearnets import artifacts
from clearnets.config import Config
from clearnets.generalization import tables as generalization
from clearnets.tables import (
    concepts,
    contrasts,
    embedding,
    families,
    judged,
    latents,
    layers,
    models,
    observed,
    protocols,
    ratings,
    scores,
)
from clearnets.tables.frames import to_csv
from clearnets.tables.sources import Sources

# Each has `tables(sources, config, made)`, its own tables by name; `made` are those of the modules
# before it.
COMPARISON = (
    *(models, layers, latents, scores, contrasts, embedding, families),
    *(protocols, concepts, judged, ratings),
)
OBSERVATORY = (observed, generalization)


def make(sources: Sources | None, config: Config) -> dict[str, pd.DataFrame]:
    """Every table by name; without sources those of the observatory alone."""
    made: dict[str, pd.DataFrame] = {}
    if sources is not None:
        for module in COMPARISON:
            made |= module.tables(sources, config, made)
        made["latents"] = made["latents"].drop(columns="matters")
    for module in OBSERVATORY:
        made |= module.tables(sources, config, made)
    runs, measures = (made[f"generalization_{name}"] for name in ("runs", "measures"))
    return made | {
        "generalization_runs": generalization.labelled(runs, measures),
        "generalization_measures": observed.wide(measures),
    }


def write(frames: Mapping[str, pd.DataFrame], folder: Path) -> None:
    """Each table as `<name>.csv` in `folder`."""
    for name, frame in frames.items():
        artifacts.write_text(folder / f"{name}.csv", to_csv(frame))
