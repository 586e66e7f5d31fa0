"""All tables of a comparison: made from the stages' results, and written as CSV.

Everything computes on what `clearnets.analysis.sources` has read. Every table is a pandas frame in
a fixed order of rows and columns, written with six significant digits, so that the same results
give the same bytes.

| table | one row per |
|---|---|
| curves | model, seed, measured step |
| ngrams | reference line of the loss curves |
| pair | seed: the checkpoints that were paired |
| compute | model or family: parameters, FLOPs, tokens |
| layers | seed, model or family, layer: ablation cost; fvu, l0, dead, nats, baselines |
| splice_all | seed, family: all layers replaced at once |
| depth | seed, model: costs of ablating layers alone and together |
| latents | sampled latent: status, activity, scores |
| coverage | seed, family, layer: how many latents were dead, too rare, ... |
| means | seed or all, family, scorer, kind of mean: with its interval |
| layer_means | family, scorer, layer; all seeds |
| rates | family, scorer, bin of firing rate; all seeds |
| contrasts | seed or all, pair of families, scorer, way of matching: difference with its interval |
| primary | primary contrast, scorer: tested under one correction |
| layer ... | see `clearnets.analysis.layer_contrasts`: primary contrasts by layer |
| instruments | score, test, pair of families of which one is known to be clearer |
| strata | pair of families, scorer, bin of firing rate; all seeds |
| summary | family; all seeds |
| embedding ... | see `clearnets.analysis.embedding` |
| judged ... | see `clearnets.analysis.llm_judge`: scores by a language model that has qualified |
| demonstration ... | the same by one that has not: no figure and no other table shows them |
| judge | test of the language model that judges, where one does: how well it did |
| protocols | family, scorer, bin of firing rate: what scoring on seen windows is worth |
| execution ... | see `clearnets.analysis.execution`: models that run on explanations |
| effect ... | see `clearnets.analysis.effects`: what latents do to the next token |
| targets, steering, interventions | see `clearnets.analysis.interventions` |
| sampled, sampled_tokens | see `clearnets sample`: explanations to read, with their windows |
| circuit ... | see `clearnets.analysis.circuits`: latents that make a model answer questions |
| stability ... | see `clearnets.analysis.stability`: counterparts of latents in other runs |
| ratings ... | see `clearnets.analysis.ratings`: answers of people, where there are any |
| planted, planted_orders | see `clearnets.analysis.planted`: measures on a known dictionary |
| probes, probe_summary | see `clearnets.analysis.probes` |
| concepts ... | see `clearnets.analysis.concepts` |
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from clearnets.analysis import (
    circuits,
    concepts,
    contrasts,
    effects,
    embedding,
    execution,
    families,
    instruments,
    interventions,
    latents,
    layer_contrasts,
    layers,
    llm_judge,
    means,
    models,
    planted,
    primary,
    probes,
    protocols,
    ratings,
    stability,
)
from clearnets.analysis.frames import columns_of, sort, to_csv
from clearnets.analysis.sources import EMBEDDING, SCORERS, Sources
from clearnets.config import Config
from clearnets.pipeline import artifacts


def make(sources: Sources, config: Config) -> dict[str, pd.DataFrame]:
    """Return every table by name."""
    settings = config.collate
    curves = columns_of(sources.curves, models.CURVE_COLUMNS)
    pair = models.pair_table(sources)
    by_layer = layers.layer_table(sources, settings)
    sampled = latents.latent_table(sources, by_layer)
    differences, strata = contrasts.contrast_tables(sampled, pair, config)
    made = {
        "curves": sort(curves, ["model", "seed", "step"]),
        "ngrams": pd.DataFrame(list(sources.references.items()), columns=["reference", "loss"]),
        "pair": pair,
        "compute": models.compute_table(sources),
        "layers": by_layer,
        "splice_all": layers.splice_table(sources, settings),
        "depth": layers.depth_table(sources, by_layer),
        "latents": sampled,
        "coverage": latents.coverage_table(sampled),
        "means": means.mean_table(sampled, config),
        "layer_means": means.layer_mean_table(sampled, config),
        "rates": means.rate_table(sampled, config),
        "contrasts": differences,
        "strata": strata,
        "families": families.family_table(),
        **llm_judge.tables(sources, sampled, pair, config),
        **sources.sampled,
        **ratings.tables(sources, sampled, config),
    }
    if "overlap" not in config.skip:
        made["protocols"] = protocols.protocol_table(sources.overlap, config)
    if sources.executed:
        made |= execution.tables(sources.executed, config)
    if len(sources.effects):
        made |= effects.tables(sources.effects, sampled, config)
    if len(sources.steered):
        made |= interventions.tables(sources.targets, sources.steered, config)
    if len(sources.circuits.answers):
        made |= circuits.tables(sources.circuits, sampled, config)
    if len(sources.stability):
        measures = stability.measures(sampled, sources.effects, sources.concepts.get("latents"))
        made |= stability.tables(sources.stability, measures, config)
    if "similarity" not in config.skip:
        made |= embedding.tables(sources, sampled, pair, config)
    if "concepts" not in config.skip:
        made |= concepts.tables(sources.concepts, config)
    made |= planted.tables(sources.planted) if len(sources.planted) else {}
    if "probes" not in config.skip:
        made |= probes.tables(sources.probes, config)
    made |= _primary(sampled, made, config)
    by_scorer = [made[name] for name in ("contrasts", "embedding_contrasts") if name in made]
    more = []
    if len(sources.effects):
        more.append(effects.above_others(sources.effects, config))
    if len(sources.steered):
        more.append(interventions.known_groups(sources.targets, sources.steered, config))
    made["instruments"] = instruments.instrument_table(
        by_scorer, made.get("concept_summary"), config, more
    )
    made["summary"] = families.summary_table(sources, config, made)
    return made | {"latents": sampled.drop(columns="matters")}


def _primary(
    sampled: pd.DataFrame, made: Mapping[str, pd.DataFrame], config: Config
) -> dict[str, pd.DataFrame]:
    """Return the tables of the primary contrasts, and by layer of all scorers that there are."""
    by_scorer: dict[str, pd.DataFrame] = dict.fromkeys(SCORERS, sampled)
    if "embedding" in made:
        by_scorer[EMBEDDING] = made["embedding"].assign(matters=sampled["matters"].to_numpy())
    tables = layer_contrasts.layer_contrast_tables(by_scorer, config)
    return {"primary": primary.primary_table(made["contrasts"], config), **tables}


def write(frames: Mapping[str, pd.DataFrame], folder: Path) -> None:
    """Write each table as `<name>.csv` in `folder`."""
    for name, frame in frames.items():
        artifacts.write_text(folder / f"{name}.csv", to_csv(frame))
