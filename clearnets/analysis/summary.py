"""The summary of a comparison as Markdown: tables of families, contrasts and models."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from itertools import product
from typing import Any

import pandas as pd

from clearnets.analysis.contrasts import SUBJECTS
from clearnets.analysis.frames import pick, records
from clearnets.analysis.notes import notes, off_chance
from clearnets.analysis.samples import ACCURACY
from clearnets.analysis.sources import MEASURES, SCORERS
from clearnets.analysis.summary_circuits import circuit_tables
from clearnets.analysis.summary_effects import effect_table, instrument_table
from clearnets.analysis.summary_execution import execution_table
from clearnets.analysis.summary_interventions import intervention_tables
from clearnets.analysis.summary_planted import planted_table
from clearnets.analysis.summary_primary import dead_table, depth_table, primary_parts
from clearnets.analysis.summary_probes import probe_table
from clearnets.analysis.summary_stability import stability_table
from clearnets.analysis.text import (
    DASH,
    Row,
    difference,
    ends,
    interval,
    number,
    percent,
    several,
    table,
)
from clearnets.autointerp.records import SCORERS as SCORES
from clearnets.config import Config
from clearnets.families import FAMILIES

CONTROLS = tuple(row.name for row in FAMILIES.values() if row.control_of_all and row.model)
# Kinds of contrasts that are listed: those with shuffled explanations and with tokens lie far off.
KINDS = ("primary", "secondary", "untrained twin", "untrained model", *CONTROLS)
LEVELS = ("layers", "seeds")
# What is written in a column's cells.
Cell = Callable[[Row], str]
Columns = Mapping[str, Cell]
BASELINES = ("token_mean", "pca", "linear")


def markdown(frames: Mapping[str, pd.DataFrame], config: Config) -> str:
    """Return the summary of the tables of a comparison, and how to read it; no empty table."""
    parts = [
        _score_table(frames["summary"]),
        _measure_table(frames["means"]),
        _contrast_table(pick(frames["contrasts"], measure=ACCURACY)),
        _family_table(frames["summary"]),
        _model_table(frames["compute"], frames["ngrams"]),
    ]
    if "embedding" in frames:
        parts.insert(2, _embedding_table(frames))
    parts[:0] = primary_parts(frames)
    parts += [dead_table(frames["layers"]), depth_table(frames["depth"])]
    parts += [make(frames) for name, make in _WHERE_THERE.items() if len(frames.get(name, ()))]
    parts.append(notes(frames, config))
    return "\n\n".join(part for part in parts if part) + "\n"


# By the table without which there is none of it.
_WHERE_THERE: dict[str, Callable[[Mapping[str, pd.DataFrame]], str]] = {
    "judged": lambda frames: _judge_table(frames["judged_means"]),
    "judged_contrasts": lambda frames: _contrast_table(
        frames["judged_contrasts"], "contrast by the judge"
    ),
    "protocols": lambda frames: _protocol_table(frames["protocols"]),
    "execution": lambda frames: execution_table(frames["execution"], frames["execution_latents"]),
    "effect_means": lambda frames: effect_table(frames["effect_means"], frames["effect_weighted"]),
    "interventions": lambda frames: "\n\n".join(intervention_tables(frames["interventions"])),
    "stability": lambda frames: stability_table(frames["stability"], frames["stability_relations"]),
    "instruments": lambda frames: instrument_table(frames["instruments"]),
    "concept_summary": lambda frames: _concept_table(frames["concept_summary"]),
    "probe_summary": lambda frames: probe_table(frames["probe_summary"]),
    "circuit_sizes": lambda frames: "\n\n".join(circuit_tables(frames)),
    "planted": lambda frames: planted_table(frames["planted"], frames["planted_orders"]),
}


def _table(columns: Columns, rows: Sequence[Row]) -> str:
    """Return a Markdown table of one line per row, each cell written by its column's function."""
    return table(list(columns), [[cell(row) for cell in columns.values()] for row in rows])


def _family_table(summary: pd.DataFrame) -> str:
    """Return what each family is: reads and reconstructs, sizes, cost, faithfulness."""
    columns: Columns = {
        "family": _named,
        "model": lambda row: row["model"] if isinstance(row["model"], str) else DASH,
        "reads": lambda row: row["reads"],
        "reconstructs": lambda row: row["reconstructs"],
        "latents per layer": _number("latents_per_layer", ",.0f"),
        "l0": _number("l0", ".1f"),
        "tokens, model + coders": _tokens,
        "parameters": _number("parameters", ",.0f"),
        "FLOPs per token": _number("flops_per_token_forward", ",.0f"),
        "fvu": _number("fvu", ".3f"),
        "its baselines": lambda row: several([row[f"fvu_{name}"] for name in BASELINES], ".3f"),
        "nats above clean": _number("nats_splice", ".3f"),
        "ablated": _number("nats_ablate", ".3f"),
        "nats, all layers at once": _number("nats_splice_all_layers", ".3f"),
        "all ablated": _number("nats_ablate_all_layers", ".3f"),
        "loss recovered": _recovered,
    }
    return _table(columns, records(summary))


def _recovered(row: Row) -> str:
    """Return the share of ablation's cost that coders recover, by layer / all layers at once."""
    return several([row["loss_recovered"], row["loss_recovered_all_layers"]], ".3f")


def _tokens(row: Row) -> str:
    """Return the training tokens of model and coders, of the model alone without coders."""
    model, coder = (number(row[f"{part}_tokens"], ",.0f") for part in ("model", "coder"))
    return model if coder == DASH else f"{model} + {coder}"


def _score_table(summary: pd.DataFrame) -> str:
    """Return how much of each family could be explained, and how well."""
    columns: Columns = {
        "family": _named,
        "explained": _percent("explained"),
        "n": _number("detection_n", ",.0f"),
        "dead": _percent("dead"),
        "too rare": _percent("too_rare"),
        "too frequent": _percent("too_frequent"),
        "unscorable": _percent("unscorable"),
        "rule-detection": lambda row: interval(row, "detection"),
        "rule-fuzzing": lambda row: interval(row, "fuzzing"),
        "layers that matter": lambda row: several([row[f"{key}_matter"] for key in SCORES], ".2f"),
        "all live": lambda row: several([row[f"{key}_live"] for key in SCORES], ".2f"),
        "coverage-adjusted": lambda row: several([row[f"{key}_all"] for key in SCORES], ".2f"),
        "shuffled": lambda row: " / ".join(_shuffled(row, key) for key in SCORES),
    }
    return _table(columns, records(summary))


def _shuffled(row: Row, key: str) -> str:
    """Return the score with shuffled explanations, with a star where it is not at chance."""
    return number(row[f"{key}_shuffled"], ".2f") + ("\\*" if off_chance(row, key) else "")


def _embedding_table(frames: Mapping[str, pd.DataFrame]) -> str:
    """Return the scores by embeddings, and their agreement with the judge of rules."""
    means = pick(frames["embedding_means"], seed="all")
    above = pick(frames["embedding_contrasts"], seed="all", kind="own shuffled", layers="all")
    agreement = frames["embedding_agreement"]
    rows = []
    for family in means["family"].unique():
        own = pick(means, family=family)
        all_layers = pick(own, layers="all")
        (row,) = records(pick(all_layers, explanation="own", latents="explained"))
        (shuffled,) = records(pick(all_layers, explanation="shuffled"))
        (covered,) = records(pick(all_layers, explanation="own", latents="all"))
        (matter,) = records(pick(own, layers="matter", explanation="own", latents="explained"))
        (more,) = records(pick(above, a=family))
        both = {found["scorer"]: found for found in records(pick(agreement, family=family))}
        rows.append(
            [
                _named(row),
                number(row["n"], ",.0f"),
                interval(row, "mean"),
                number(matter["mean"], ".2f"),
                number(covered["mean"], ".2f"),
                interval(shuffled, "mean"),
                difference(more),
                *(interval(both[f"rule-{key}"], "correlation") if both else DASH for key in SCORES),
            ]
        )
    return table(
        [
            *("embeddings: family", "n", "AUROC", "layers that matter", "coverage-adjusted"),
            *("shuffled", "above shuffled"),
            *("rank correlation with rule-detection", "with rule-fuzzing"),
        ],
        rows,
    )


def _named(row: Row) -> str:
    """Return the family's name, in bold if it is compared with controls."""
    family = str(row["family"])
    return f"**{family}**" if family in SUBJECTS else family


def _number(column: str, form: str) -> Cell:
    return lambda row: number(row[column], form)


def _percent(column: str) -> Cell:
    return lambda row: percent(row[column])


def _measure_table(means: pd.DataFrame) -> str:
    """Return precision and recall behind the balanced accuracies, and the share of windows there
    were."""
    shown = pick(means, seed="all", latents="explained", layers="all", explanation="own")
    pairs = list(product(SCORERS, MEASURES))
    rows = []
    for family in shown["family"].unique():
        own = pick(shown, family=family)
        cells = [records(pick(own, scorer=scorer, measure=name))[0] for scorer, name in pairs]
        rows.append([_named(cells[0]), *map(_measure, cells)])
    return table(["family", *(f"{scorer}: {name}" for scorer, name in pairs)], rows)


def _measure(row: Row) -> str:
    if row["measure"] != "coverage":
        return interval(row, "mean")
    return DASH if math.isnan(row["mean"]) else percent(row["mean"])


def _judge_table(means: pd.DataFrame) -> str:
    """Return scores by a language model that has qualified, by family, scorer and measure."""
    keys = ["family", "scorer", "measure"]
    shuffled = {
        tuple(row[key] for key in keys): row for row in records(pick(means, explanation="shuffled"))
    }

    def control(row: Row) -> str:
        found = shuffled.get(tuple(row[key] for key in keys))
        return interval(found, "mean") if found else DASH

    columns: Columns = {
        "judged: family": _named,
        "scorer": lambda row: row["scorer"],
        "measure": lambda row: row["measure"],
        "n": _number("n", ",.0f"),
        "mean": lambda row: interval(row, "mean"),
        "shuffled": control,
        "missing answers": lambda row: f"{100 * row['missing']:.1f} %",
    }
    return _table(columns, records(pick(means, explanation="own")))


def _contrast_table(contrasts: pd.DataFrame, name: str = "contrast") -> str:
    """Return primary, secondary and twin contrasts by scorer, unmatched and matched; adjusted for
    coverage, without and with dead latents, where they are."""
    shown = pick(contrasts, layers="all", latents="explained", seed="all")
    each = pick(contrasts, layers="all", latents="explained", matching="none")
    adjusted = [
        pick(contrasts, layers="all", latents=which, seed="all", matching="none")
        for which in ("live", "all")
    ]
    head = [
        name,
        "scorer",
        "unmatched",
        *(f"over {level}" for level in LEVELS if f"low_{level}" in contrasts),
        "matched by firing rate",
        "matched by activity",
        *(["all live", "coverage-adjusted"] if len(adjusted[-1]) else []),
    ]
    found: dict[tuple[str, ...], dict[str, Row]] = {}
    for row in records(shown):
        if row["kind"] in KINDS:
            key = (row["a"], row["b"], row["scorer"], row["measure"])
            found.setdefault(key, {})[row["matching"]] = row
    rows = []
    for (a, b, scorer, measure), by_matching in found.items():
        key = {"a": a, "b": b, "scorer": scorer, "measure": measure}
        cells = []
        for matching in ("none", "rate", "activity"):
            if matching not in by_matching:
                # Precision and the like are not matched in this way.
                cells.append(DASH)
                continue
            row = by_matching[matching]
            left = max(row["unmatched_a"], row["unmatched_b"])
            equal = " ≈" if row["equivalent"] else ""
            cells.append(difference(row) + equal + (f" ({percent(left)} left out)" if left else ""))
            if matching == "none":
                cells += [ends(row, level) for level in LEVELS if f"low_{level}" in row]
        seeds = pick(each, **key)["difference"][1:]
        if len(seeds):
            cells[0] += f"; by seed {seeds.min():+.3f} to {seeds.max():+.3f}".replace("-", "−")
        cells += [difference(row) for one in adjusted for row in records(pick(one, **key))]
        named = scorer if measure in (ACCURACY, "accuracy") else f"{scorer}, {measure}"
        rows.append([f"{a} − {b}", named, *cells])
    return table(head, rows)


def _model_table(compute: pd.DataFrame, ngrams: pd.DataFrame) -> str:
    """Return what the models cost, and the losses of models, n-gram models and the generator."""
    columns = {
        "parameters": ",.0f",
        "flops_per_token_forward": ",.0f",
        "training_tokens": ",.0f",
        "heldout_loss": ".3f",
    }
    models: Any = pick(compute, kind="model").groupby("name", sort=False)[list(columns)].mean()
    rows = [
        [str(model), *(number(row[name], form) for name, form in columns.items())]
        for model, row in models.iterrows()
    ]
    names = {"generator_bound": "the generator's own choices (an upper bound of the entropy)"}
    rows += [
        [str(names.get(reference, reference)), DASH, DASH, DASH, number(loss, ".3f")]
        for reference, loss in ngrams.itertuples(index=False)
    ]
    head = ["model", "parameters", "FLOPs per token, forward", "training tokens", "held-out loss"]
    return table(head, rows)


def _protocol_table(protocols: pd.DataFrame) -> str:
    """Return how much scores rise on seen windows. Pairs are rule-detection / rule-fuzzing."""
    rows = []
    whole: Any = protocols[protocols["rate_low"].isna()]
    for _, own in whole.groupby("family", sort=False):
        scorers = records(own)
        rows.append(
            [
                _named(scorers[0]),
                number(scorers[0]["n"], ",.0f"),
                percent(scorers[0]["seen"]),
                *(
                    several([row[name] for row in scorers], ".2f")
                    for name in ("delphi", "disjoint", "held_out")
                ),
                *(
                    " / ".join(difference(row, part) for row in scorers)
                    for part in ("overlap", "text", "both")
                ),
            ]
        )
    return table(
        [
            *("protocols: family", "n", "seen", "delphi", "disjoint", "held-out"),
            *("worth of the overlap", "of the text", "of both"),
        ],
        rows,
    )


# Columns of the table of concepts that give a number per kind of concept.
CONCEPT_NUMBERS = {
    "recovered": ("recovered", ".1f"),
    "recovered by any latent": ("recovered_by_all", ".3g"),
    "better than tokens": ("above_token_set", ".3g"),
    "split": ("split", ".3g"),
    "absorbed": ("absorbed", ".3g"),
    "redundancy": ("redundancy", ".1f"),
}


def _concept_table(concepts: pd.DataFrame) -> str:
    """Return known concepts that single latents recover. Pairs are lexical / contextual
    concepts."""
    rows = []
    single: Any = concepts[(concepts["seed"] == "all") & (concepts["kind"] != "all")]
    for _, own in single.groupby("family", sort=False):
        kinds = records(own)
        assert [row["kind"] for row in kinds] == ["lexical", "contextual"]
        above = [difference(row, "f1_above_null") for row in kinds]
        rules = sum(row["rules"] for row in kinds)
        rows.append(
            [
                _named(kinds[0]),
                several([row["f1"] for row in kinds], ".2f"),
                DASH if set(above) == {DASH} else " / ".join(above),
                *(
                    several([row[column] for row in kinds], form)
                    for column, form in CONCEPT_NUMBERS.values()
                ),
                _over_rules(kinds, "named") + (f" (n = {rules})" if rules else ""),
                _over_rules(kinds, "named_by_others"),
                _over_rules(kinds, "as_well"),
            ]
        )
    return table(
        [
            *("concepts: family", "mean F1", "above its null", *CONCEPT_NUMBERS),
            *("named by the explanation", "by another's", "predicted as well"),
        ],
        rows,
    )


def _over_rules(kinds: Sequence[Row], column: str) -> str:
    """Return the mean over the explained latents of all kinds of concepts."""
    there = [row for row in kinds if row["rules"] and not math.isnan(row[column])]
    total = sum(row["rules"] for row in there)
    return percent(sum(row["rules"] * row[column] for row in there) / total) if total else DASH
