"""All results of one experiment as small tidy tables.

Everything here computes on what `clearnets.results` has read. Every table is a pandas frame in a
fixed order of rows and columns, written with six significant digits, so that the same results give
the same bytes.

| table | one row per |
|---|---|
| curves | model, seed, measured step |
| ngrams | reference line of the loss curves |
| pair | seed: the checkpoints that were paired |
| layers | seed, model or family, layer: ablation cost; fvu, l0, dead, loss recovered, baselines |
| splice_all | seed, family: all layers replaced at once |
| latents | sampled latent: status, activity, scores |
| means | seed or all, family, scorer, kind of mean: with its interval |
| rates | family, scorer, bin of firing rate; all seeds |
| contrasts | seed or all, pair of families, scorer, way of matching: difference with its interval |
| strata | pair of families, scorer, bin of firing rate; all seeds |
| coverage | seed, family, layer: how many latents were dead, too rare, ... |
| compute | model or family: parameters, FLOPs, tokens |
| summary | family; all seeds |
| judged | latent, scorer: scores by a language model that has qualified as a judge |
| demonstration | the same by one that has not: no figure and no other table shows them |

Those about concepts are made in `clearnets.concept_tables`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any, cast

import numpy as np
import pandas as pd

from clearnets import artifacts, concept_tables
from clearnets.autointerp import statistics as stats
from clearnets.autointerp.records import EXPLAINED, STATUSES
from clearnets.config import FAMILIES, MLPS, NATIVE_FAMILIES, TWINS, Collate, Config, Family
from clearnets.results import CONTROLS, NO_LAYER, SCORERS, Sources, columns_of, pick
from clearnets.runtime import seed_for

CHANCE = 0.5
# Bins of firing rate in `rates`, per factor of ten.
BINS_PER_DECADE = 2
# A bin of firing rate with fewer latents than this has no mean worth drawing.
MIN_BIN = 5

# Per family: what it reads of its model, what it reconstructs.
ROLES: dict[str, tuple[str, str]] = {
    "native": ("feedforward input", "nothing: it is the feedforward"),
    "transcoder": ("feedforward input", "feedforward output"),
    "skip-transcoder": ("feedforward input", "feedforward output, with a linear skip"),
    "sae": ("feedforward output", "feedforward output"),
    "neurons": ("feedforward input", "nothing: the feedforward's own units"),
    "random-native": ("feedforward input", "nothing: an untrained feedforward"),
    "random-transcoder": ("feedforward input", "feedforward output, untrained"),
    "random-sae": ("feedforward output", "feedforward output, untrained"),
    "token-unigram": ("current token", "nothing"),
}
CURVE_COLUMNS = ("model", "seed", "step", "tokens", "train_loss", "valid_loss")
COMPUTE_COLUMNS = (
    "parameters",
    "parameters_without_embeddings",
    "flops_per_token_forward",
    "flops_per_token_training",
    "training_tokens",
    "training_flops",
    "heldout_loss",
)
CODER_COLUMNS = (
    "fvu",
    "l0",
    "dead",
    "loss_recovered",
    "fvu_token_mean",
    "fvu_pca",
    "fvu_linear",
)
# The families whose clarity is the question; the others are controls.
SUBJECTS: tuple[str, ...] = ("native", "transcoder", "skip-transcoder", "sae")


def tables(sources: Sources, config: Config) -> dict[str, pd.DataFrame]:
    """Every table by name."""
    settings = config.collate
    layers = layer_table(sources, settings)
    latents = latent_table(sources, layers)
    splice = splice_table(sources, settings)
    pair = pair_table(sources)
    means = mean_table(latents, config)
    contrasts, strata = contrast_tables(latents, pair, config)
    coverage = coverage_table(latents)
    compute = compute_table(sources)
    return {
        "curves": _sort(columns_of(sources.curves, CURVE_COLUMNS), ["model", "seed", "step"]),
        "ngrams": pd.DataFrame(list(sources.references.items()), columns=["reference", "loss"]),
        "pair": pair,
        "layers": layers,
        "splice_all": splice,
        "latents": latents.drop(columns="matters"),
        "means": means,
        "rates": rate_table(latents, config),
        "contrasts": contrasts,
        "strata": strata,
        "coverage": coverage,
        "compute": compute,
        "summary": summary_table(sources, config, latents, layers, splice, means, compute, pair),
        **concept_tables.tables(sources, config),
        **judged_tables(sources),
    }


def judged_tables(sources: Sources) -> dict[str, pd.DataFrame]:
    """Scores by a language model: apart from all others, and by whether it has qualified."""
    if sources.judged is None:
        return {}
    table = _sort(sources.judged, ["family", "seed", "layer", "latent"])
    tables = {}
    for name, which in (("judged", False), ("demonstration", True)):
        own = table[table["demonstration"] == which]
        if len(own):
            tables[name] = own.drop(columns="demonstration")
    return tables


def model_of(family: str, models: Sequence[str]) -> str | None:
    """The model of the pair whose latents or activations a family reads; tokens alone read none."""
    if family == "token-unigram":
        return None
    return models[-1] if family in NATIVE_FAMILIES else models[0]


def pair_table(sources: Sources) -> pd.DataFrame:
    """One row per seed: steps and validation losses of the pair, and whether they match."""
    rows = []
    for seed, pair in sources.pairs.items():
        row: dict[str, Any] = {"seed": seed}
        for model in sources.models:
            row[f"{model}_step"] = pair[model]["step"]
            row[f"{model}_valid_loss"] = pair[model]["valid_loss"]
        # A model that is alone has nothing to differ from.
        row["difference"] = pair.get("difference", math.nan)
        rows.append({**row, "matched": pair.get("matched", True)})
    return pd.DataFrame(rows)


def layer_table(sources: Sources, settings: Collate) -> pd.DataFrame:
    """Ablation cost per model and layer; fvu, l0, dead share, loss recovered per family and layer.

    `matters` says whether mean-ablating the layer costs at least `threshold` nats in the model
    that the row is about or reads; loss recovered is left out where it does not.
    """
    keys = ["name", "seed", "layer"]
    models = columns_of(sources.ablation.rename(columns={"model": "name"}), [*keys, "cost"])
    models["matters"] = models["cost"] >= settings.min_ablation_cost
    families = _stacked(sources.coders, sources.native)
    families = columns_of(families.rename(columns={"family": "name"}), [*keys, *CODER_COLUMNS])
    matters = _by_layer(models, "matters")
    families["matters"] = [
        matters[model_of(name, sources.models), seed, layer]
        for name, seed, layer in families[keys].to_numpy()
    ]
    families["loss_recovered"] = families["loss_recovered"].where(families["matters"])
    table = _stacked(models.assign(kind="model"), families.assign(kind="family"))
    table = table.assign(threshold=settings.min_ablation_cost)
    order = ["kind", *keys, "cost", "matters", "threshold", *CODER_COLUMNS]
    return _sort(columns_of(table, order), ["kind", *keys])


def _stacked(*frames: pd.DataFrame) -> pd.DataFrame:
    """All rows and columns; a frame without rows has no types that should count."""
    columns = dict.fromkeys(name for frame in frames for name in frame)
    rows = pd.concat([frame for frame in frames if len(frame)] or frames[:1], ignore_index=True)
    return rows.reindex(columns=list(columns))


def _by_layer(models: pd.DataFrame, column: str) -> dict[tuple[Any, ...], Any]:
    keys = zip(models["name"], models["seed"], models["layer"])
    return dict(zip(keys, models[column]))


def splice_table(sources: Sources, settings: Collate) -> pd.DataFrame:
    """Loss with all layers' coders spliced in at once, beside the clean and the ablated model's.

    Loss recovered is left out where ablating all layers costs less than the threshold.
    """
    columns = ["family", "seed", "loss_clean", "loss_splice", "loss_ablate", "loss_recovered"]
    table = columns_of(sources.splice_all, columns)
    cost = table["loss_ablate"] - table["loss_clean"]
    kept = table["loss_recovered"].where(cost >= settings.min_ablation_cost)
    return _sort(table.assign(loss_recovered=kept), ["family", "seed"])


def latent_table(sources: Sources, layers: pd.DataFrame) -> pd.DataFrame:
    """Sampled latents with their scores, and `matters`: whether the layer they read counts."""
    models = layers[layers.kind == "model"]
    keys = zip(models["name"], models["seed"], models["layer"])
    matters = dict(zip(keys, models["matters"]))
    table = _sort(sources.scores, ["family", "seed", "layer", "latent"])
    for scorer in SCORERS:
        scored = np.isfinite(table[scorer].to_numpy(np.float64))
        # None at all where only a language model judges.
        assert (scored == (scored.any() & (table["status"] == EXPLAINED).to_numpy())).all()
    reads = zip(table["family"], table["seed"], table["layer"])
    flags = [
        layer == NO_LAYER or bool(matters[model_of(family, sources.models), seed, layer])
        for family, seed, layer in reads
    ]
    return table.assign(matters=flags)


@dataclass(frozen=True)
class Sample:
    """Scores of one family's latents by one scorer, with what they are grouped by. Arrays (N,)."""

    value: stats.Floats
    rate: stats.Floats
    windows: stats.Floats
    strata: stats.Ints

    def __len__(self) -> int:
        return len(self.value)


def _chosen(latents: pd.DataFrame, layers: str, which: str) -> pd.DataFrame:
    """`which`: explained latents only, or all drawn. `layers`: those that matter, or all."""
    if layers == "matter":
        latents = pick(latents, matters=True)
    return pick(latents, status=EXPLAINED) if which == "explained" else latents


def _sample(latents: pd.DataFrame, scorer: str, layers: str, which: str) -> Sample:
    """The latents' own scores; one without a score counts as chance."""
    latents = _chosen(latents, layers, which)
    value = latents[scorer].to_numpy(np.float64)
    return _grouped(latents, np.where(np.isnan(value), CHANCE, value))


def _grouped(latents: pd.DataFrame, value: stats.Floats) -> Sample:
    return Sample(
        value,
        latents["rate"].to_numpy(np.float64),
        latents["windows"].to_numpy(np.float64),
        stats.strata_ids(latents["seed"].to_numpy(), latents["layer"].to_numpy()),
    )


def _shuffled(latents: pd.DataFrame, scorer: str, layers: str, *, minus: bool) -> Sample:
    """Scores with the other latents' explanations, or a latent's own score minus that.

    The control's mean is over pairs of latents of a layer, so what varies with a latent is both
    how the others' explanations do on it and how its own does on the others (`stats.paired`). A
    latent that is the only scored one of its layer has no other's explanation.
    """
    latents = _chosen(latents, layers, "explained")
    latents = latents.dropna(subset=[f"{scorer}-shuffled"])
    own = latents[scorer].to_numpy(np.float64)
    sample = _grouped(latents, own)
    rows, columns = (latents[f"{scorer}-{name}"].to_numpy(np.float64) for name in CONTROLS)
    shuffled = stats.paired(rows, columns, sample.strata)
    return replace(sample, value=own - shuffled if minus else shuffled)


def _by_seed(latents: pd.DataFrame, config: Config) -> dict[str, pd.DataFrame]:
    """All latents, and where there are several training seeds those of each."""
    groups = {"all": latents}
    if len(config.seeds) > 1:
        groups |= {str(seed): pick(latents, seed=seed) for seed in config.seeds}
    return groups


def _interval(estimate: stats.Estimate, settings: Collate, *counts: int) -> stats.Estimate:
    """Without an interval where it would come from fewer latents than `min_stratum`."""
    if min(counts) >= settings.min_stratum:
        return estimate
    return stats.Estimate(estimate.value, math.nan, math.nan)


def _bootstrap(settings: Collate, *names: str) -> dict[str, Any]:
    rng = np.random.default_rng(seed_for(settings.seed, "bootstrap", *names))
    return {"resamples": settings.resamples, "confidence": settings.confidence, "rng": rng}


def mean_table(latents: pd.DataFrame, config: Config) -> pd.DataFrame:
    """Mean scores per family with bootstrap intervals over latents within (seed, layer).

    `latents` explained: those that were explained and scored; all: every latent drawn, with those
    that could not be explained or scored at chance. `explanation` shuffled: each latent is judged
    by the explanation of every other one of its layer, which must lie at chance: `at_chance` says
    that the interval lies within `margin` of it. Its mean is not 0.5 to the last digit, because the
    latents of a layer depend on each other: some share words, and all compete. `layers` matter:
    only layers whose mean-ablation costs enough in the model that the family reads. `seed` all, and
    each training seed where there are several. No interval is given from fewer than `min_stratum`
    latents.
    """
    kinds = (("explained", "own"), ("explained", "shuffled"), ("all", "own"))
    cases = product(_by_seed(latents, config).items(), _ordered(config.families), SCORERS)
    rows = [
        _mean_row(pick(group, family=family), (family, seed, scorer, *kind, layers), config.collate)
        for (seed, group), family, scorer in cases
        for layers in ("all", "matter")
        for kind in kinds
    ]
    return pd.DataFrame(rows)


def _mean_row(
    own: pd.DataFrame, names: tuple[str, str, str, str, str, str], settings: Collate
) -> dict[str, Any]:
    family, seed, scorer, which, explanation, layers = names
    if explanation == "own":
        sample = _sample(own, scorer, layers, which)
    else:
        sample = _shuffled(own, scorer, layers, minus=False)
    random = _bootstrap(settings, family, seed, scorer, layers, which, explanation)
    estimate = stats.mean_estimate(sample.value, sample.strata, **random)
    estimate = _interval(estimate, settings, len(sample))
    return {
        "family": family,
        "seed": seed,
        "scorer": scorer,
        "explanation": explanation,
        "latents": which,
        "layers": layers,
        "n": len(sample),
        "mean": estimate.value,
        "low": estimate.low,
        "high": estimate.high,
        "at_chance": estimate.within(CHANCE, settings.margin),
        "confidence": settings.confidence,
    }


def rate_table(latents: pd.DataFrame, config: Config) -> pd.DataFrame:
    """Mean score of explained latents by bin of firing rate, with their own explanation and with
    a shuffled one."""
    settings, rows = config.collate, []
    for family in _ordered(config.families):
        own = pick(latents, family=family)
        for scorer in SCORERS:
            judged = own.dropna(subset=[f"{scorer}-shuffled"])
            samples = {
                "own": _sample(own, scorer, "all", "explained"),
                "shuffled": _sample(judged, f"{scorer}-shuffled", "all", "explained"),
            }
            for explanation, sample in samples.items():
                bins = stats.rate_bin(sample.rate, BINS_PER_DECADE)
                for index in np.unique(bins):
                    inside = bins == index
                    count = int(inside.sum())
                    if count < MIN_BIN:
                        continue
                    estimate = stats.mean_estimate(
                        sample.value[inside],
                        np.zeros(count, np.int64),
                        **_bootstrap(settings, family, scorer, explanation, "rate", str(index)),
                    )
                    low, high = stats.bin_edges(int(index), BINS_PER_DECADE)
                    rows.append(
                        {
                            "family": family,
                            "scorer": scorer,
                            "explanation": explanation,
                            "rate_low": low,
                            "rate_high": high,
                            "n": count,
                            "mean": estimate.value,
                            "low": estimate.low,
                            "high": estimate.high,
                        }
                    )
    columns = ["family", "scorer", "explanation", "rate_low", "rate_high"]
    return columns_of(pd.DataFrame(rows), [*columns, "n", "mean", "low", "high"])


def comparisons(families: Iterable[str]) -> list[tuple[str, str, str]]:
    """(kind, a, b) of every contrast a - b that these families allow, the primary one first."""
    present = set(families)
    subjects = [family for family in SUBJECTS if family in present]
    pairs = [("primary", "native", "transcoder")]
    pairs += [("secondary", "native", other) for other in ("sae", "skip-transcoder")]
    twins = cast(Mapping[str, str], TWINS)
    pairs += [("untrained twin", family, twins[family]) for family in subjects]
    for control in ("neurons", "token-unigram"):
        pairs += [(control, family, control) for family in subjects]
    return [(kind, a, b) for kind, a, b in pairs if {a, b} <= present]


def contrast_tables(
    latents: pd.DataFrame, pair: pd.DataFrame, config: Config
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Differences between families, unmatched and matched for activity, and the rate strata.

    `matching` none, rate or activity is described in `clearnets.autointerp.statistics`; `own
    shuffled` contrasts are paired by latent. `unmatched_a` and `unmatched_b` are the shares of the
    latents that found no counterpart. `pair_matched` is false where a pair's losses differ by more
    than the tolerance. Seeds and intervals as in `mean_table`.
    """
    rows: list[dict[str, Any]] = []
    strata: list[dict[str, Any]] = []
    matched = dict(zip(pair["seed"].astype(str), pair["matched"]))
    for seed, group in _by_seed(latents, config).items():
        by_family = {family: pick(group, family=family) for family in _ordered(config.families)}
        flag = all(matched.values()) if seed == "all" else matched[seed]
        for key, contrast in _contrasts(by_family, seed, config, strata):
            counts = (contrast.used_a, contrast.used_b)
            difference = _interval(contrast.difference, config.collate, *counts)
            rows.append(
                {
                    **key,
                    "difference": difference.value,
                    "low": difference.low,
                    "high": difference.high,
                    "n_a": contrast.used_a,
                    "n_b": contrast.used_b,
                    "unmatched_a": contrast.unmatched_a,
                    "unmatched_b": contrast.unmatched_b,
                    "pair_matched": flag,
                    "confidence": config.collate.confidence,
                }
            )
    columns = ["a", "b", "scorer", "low", "high", "n_a", "n_b", "mean_a", "mean_b", "used"]
    table = columns_of(pd.DataFrame(strata), columns)
    return pd.DataFrame(rows), table.rename(columns={"low": "rate_low", "high": "rate_high"})


def _contrasts(
    by_family: Mapping[str, pd.DataFrame], seed: str, config: Config, strata: list[dict[str, Any]]
) -> Iterator[tuple[dict[str, str], stats.Contrast]]:
    """Every contrast with its names; the strata of all seeds together are added to `strata`."""
    settings = config.collate

    def names(kind: str, a: str, b: str, *rest: str) -> dict[str, str]:
        keys = ("kind", "a", "b", "scorer", "layers", "latents", "matching", "seed")
        return dict(zip(keys, (kind, a, b, *rest, seed)))

    for (kind, a, b), scorer, layers in product(
        comparisons(config.families), SCORERS, ("all", "matter")
    ):
        for which in ("explained", "all"):
            x = _sample(by_family[a], scorer, layers, which)
            y = _sample(by_family[b], scorer, layers, which)
            key = names(kind, a, b, scorer, layers, which, "none")
            random = _bootstrap(settings, *key.values())
            yield key, stats.unmatched(x.value, x.strata, y.value, y.strata, **random)
        x = _sample(by_family[a], scorer, layers, "explained")
        y = _sample(by_family[b], scorer, layers, "explained")
        key = names(kind, a, b, scorer, layers, "explained", "rate")
        contrast, bins = stats.rate_matched(
            x.value,
            x.rate,
            y.value,
            y.rate,
            min_stratum=settings.min_stratum,
            **_bootstrap(settings, *key.values()),
        )
        yield key, contrast
        if layers == "all" and seed == "all":
            strata += [{"a": a, "b": b, "scorer": scorer, **asdict(one)} for one in bins]
        key = names(kind, a, b, scorer, layers, "explained", "activity")
        random = _bootstrap(settings, *key.values())
        yield (
            key,
            stats.activity_matched(
                x.value, x.windows, y.value, y.windows, min_pairs=settings.min_stratum, **random
            ),
        )
    for family, scorer, layers in product(by_family, SCORERS, ("all", "matter")):
        x = _shuffled(by_family[family], scorer, layers, minus=True)
        key = names("own shuffled", family, "shuffled", scorer, layers, "explained", "none")
        estimate = stats.mean_estimate(x.value, x.strata, **_bootstrap(settings, *key.values()))
        yield key, stats.Contrast(estimate, len(x), len(x), 0.0, 0.0)


def coverage_table(latents: pd.DataFrame) -> pd.DataFrame:
    """Latents drawn per family, seed and layer, and how many came to which end."""
    keys = ["family", "seed", "layer"]
    counts = columns_of(latents, keys).assign(drawn=1)
    for status in STATUSES:
        counts[status] = (latents["status"] == status).astype(int)
    table: Any = counts.groupby(keys, as_index=False).sum()
    assert (table[list(STATUSES)].sum(axis=1) == table["drawn"]).all()
    return _sort(table, keys)


def compute_table(sources: Sources) -> pd.DataFrame:
    """Parameters, FLOPs per token and training tokens of both models and of every coder family.

    A coder family's numbers are those of all its layers together, on top of the model it reads.
    Training tokens and FLOPs are missing where a model or coders were taken over.
    """
    rows = []
    for seed, summary in sources.compute.items():
        for kind, entries in (("model", summary["models"]), ("coder", summary["coders"])):
            for name, numbers in entries.items():
                rows.append({"kind": kind, "name": name, "seed": seed, **numbers})
    columns = ["kind", "name", "seed", *COMPUTE_COLUMNS]
    table = columns_of(pd.DataFrame(rows), columns)
    for column in COMPUTE_COLUMNS:
        # Numbers, too, where every one of them is unknown.
        table[column] = pd.to_numeric(table[column])
    return _sort(table, ["kind", "name", "seed"])


def summary_table(
    sources: Sources,
    config: Config,
    latents: pd.DataFrame,
    layers: pd.DataFrame,
    splice: pd.DataFrame,
    means: pd.DataFrame,
    compute: pd.DataFrame,
    pair: pd.DataFrame,
) -> pd.DataFrame:
    """One row per family: what it is, how much of it could be explained, and how well.

    Numbers are means over layers and seeds. Parameters and FLOPs are those of the model and all
    its coders together. Coverage columns are shares of the latents drawn.
    `detection` and `fuzzing` are the rule scores of explained latents, `_all` the coverage-adjusted
    ones, `_matter` those of layers that matter.
    """
    rows = []
    for family in _ordered(config.families):
        model = model_of(family, sources.models)
        reads, reconstructs = ROLES[family]
        if source := config.coders.existing.get(cast(Family, family)):
            reconstructs += f", by the coders of {_short(source.name)}"
        own = pick(latents, family=family)
        coder = pick(layers, kind="family", name=family)
        trained = family != "random-native"
        costs = [pick(compute, kind="model", name=model), pick(compute, kind="coder", name=family)]
        row: dict[str, Any] = {
            "family": family,
            "model": model,
            "reads": reads,
            "reconstructs": reconstructs,
            "latents_per_layer": sources.latents_per_layer[family],
            "l0": np.mean([sources.l0[family, seed] for seed in config.seeds]),
            "model_tokens": costs[0]["training_tokens"].mean() if trained else 0,
            "coder_tokens": costs[1]["training_tokens"].mean(),
            "heldout_loss": costs[0]["heldout_loss"].mean() if trained else np.nan,
            **{column: coder[column].mean() for column in CODER_COLUMNS if "fvu" in column},
            "loss_recovered": coder["loss_recovered"].mean(),
            "loss_recovered_all_layers": pick(splice, family=family)["loss_recovered"].mean(),
            "drawn": len(own),
        }
        for column in ("parameters", "flops_per_token_forward"):
            parts = [part[column].mean() for part in costs if len(part)]
            row[column] = sum(parts) if parts else np.nan
        row |= {status: (own["status"] == status).mean() for status in STATUSES}
        for scorer in SCORERS:
            name = scorer.removeprefix("rule-")
            for suffix, explanation, which, scope in (
                ("", "own", "explained", "all"),
                ("_all", "own", "all", "all"),
                ("_matter", "own", "explained", "matter"),
                ("_shuffled", "shuffled", "explained", "all"),
            ):
                one = pick(
                    means,
                    family=family,
                    scorer=scorer,
                    explanation=explanation,
                    latents=which,
                    layers=scope,
                    seed="all",
                ).iloc[0]
                row |= {
                    f"{name}{suffix}": one["mean"],
                    f"{name}{suffix}_low": one["low"],
                    f"{name}{suffix}_high": one["high"],
                }
                row[f"{name}{suffix}_n"] = one["n"]
                if suffix == "_shuffled":
                    row[f"{name}_shuffled_at_chance"] = one["at_chance"]
        row["pair_difference"] = max(pair["difference"], key=abs)
        row["pair_matched"] = bool(pair["matched"].all())
        rows.append(row)
    return pd.DataFrame(rows)


def _short(name: str) -> str:
    """A hub id, or the last parts of a path that begins elsewhere."""
    return "/".join([part for part in Path(name).parts if part != ".."][-2:])


def _ordered(families: Iterable[str]) -> list[str]:
    present = set(families)
    return [family for family in FAMILIES if family in present]


def _sort(table: pd.DataFrame, keys: list[str]) -> pd.DataFrame:
    """Rows by `keys`; names in the order of FAMILIES, everything else by value."""
    rank = {name: index for index, name in enumerate((*MLPS, *FAMILIES))}
    order = table.sort_values(
        keys,
        kind="stable",
        key=lambda column: column.map(rank) if column.name in ("family", "name") else column,
    )
    return order.reset_index(drop=True)


def write(frames: Mapping[str, pd.DataFrame], folder: Path) -> None:
    """Each table as `<name>.csv` in `folder`."""
    for name, frame in frames.items():
        artifacts.write_text(folder / f"{name}.csv", to_csv(frame))


def to_csv(frame: pd.DataFrame) -> str:
    """The bytes of a table: six significant digits, an empty cell where there is no value."""
    frame = frame.copy()
    if "layer" in frame:
        frame["layer"] = frame["layer"].replace(NO_LAYER, np.nan)
    for name in frame.select_dtypes("float"):
        values = frame[name].to_numpy(np.float64)
        if (np.isnan(values) | (values == np.floor(values))).all():
            frame[name] = frame[name].astype("Int64")
    return frame.to_csv(index=False, float_format="%.6g", lineterminator="\n")
