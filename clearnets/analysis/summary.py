"""The summary tables as Markdown, for the README and the eye. Pure: frames in, text out."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, cast

import pandas as pd

from clearnets.analysis.contrasts import SUBJECTS
from clearnets.analysis.frames import pick, records
from clearnets.analysis.notes import notes, off_chance
from clearnets.analysis.samples import ACCURACY
from clearnets.analysis.sources import MEASURES, SCORERS
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

KINDS = ("primary", "secondary", "untrained twin", "untrained model", "neurons")
LEVELS = ("layers", "seeds")
BASELINES = ("token_mean", "pca", "linear")


def markdown(frames: Mapping[str, pd.DataFrame], config: Config) -> str:
    """Families, contrasts, models, and how to read them, of the tables by name."""
    parts = [
        _score_table(frames["summary"]),
        _measure_table(frames["means"]),
        _contrast_table(pick(frames["contrasts"], measure=ACCURACY)),
        _family_table(frames["summary"]),
        _model_table(frames["compute"], frames["ngrams"]),
    ]
    parts.insert(2, _embedding_table(frames))
    if "judged" in frames:
        parts.append(_judge_table(frames["judged_means"]))
    if "judged_contrasts" in frames:
        parts.append(_contrast_table(frames["judged_contrasts"], "contrast by the judge"))
    if len(frames["protocols"]):
        parts.append(_protocol_table(frames["protocols"]))
    if len(frames["concept_summary"]):
        parts.append(_concept_table(frames["concept_summary"]))
    parts.append(notes(frames, config))
    return "\n\n".join(parts) + "\n"


def _family_table(summary: pd.DataFrame) -> str:
    """What each family is: reads and reconstructs, sizes, cost, faithfulness."""
    head = [
        "family",
        "model",
        "reads",
        "reconstructs",
        "latents per layer",
        "l0",
        "tokens, model + coders",
        "parameters",
        "FLOPs per token",
        "fvu",
        "its baselines",
        "loss recovered",
        "all layers at once",
    ]
    rows = []
    for row in records(summary):
        tokens = [number(row[f"{part}_tokens"], ",.0f") for part in ("model", "coder")]
        rows.append(
            [
                _named(row["family"]),
                row["model"] if isinstance(row["model"], str) else DASH,
                row["reads"],
                row["reconstructs"],
                number(row["latents_per_layer"], ",.0f"),
                number(row["l0"], ".1f"),
                " + ".join(tokens) if tokens[1] != DASH else tokens[0],
                number(row["parameters"], ",.0f"),
                number(row["flops_per_token_forward"], ",.0f"),
                number(row["fvu"], ".3f"),
                several([row[f"fvu_{name}"] for name in BASELINES], ".3f"),
                number(row["loss_recovered"], ".3f"),
                number(row["loss_recovered_all_layers"], ".3f"),
            ]
        )
    return table(head, rows)


def _score_table(summary: pd.DataFrame) -> str:
    """How much of each family could be explained, and how well."""
    head = [
        "family",
        "explained",
        "n",
        "dead",
        "too rare",
        "too frequent",
        "unscorable",
        "rule-detection",
        "rule-fuzzing",
        "layers that matter",
        "coverage-adjusted",
        "shuffled",
    ]
    rows = []
    for row in records(summary):
        shuffled = [
            number(row[f"{key}_shuffled"], ".2f") + ("\\*" if off_chance(row, key) else "")
            for key in SCORES
        ]
        rows.append(
            [
                _named(row["family"]),
                percent(row["explained"]),
                number(row["detection_n"], ",.0f"),
                *(
                    percent(row[status])
                    for status in ("dead", "too_rare", "too_frequent", "unscorable")
                ),
                interval(row, "detection"),
                interval(row, "fuzzing"),
                several([row[f"{key}_matter"] for key in SCORES], ".2f"),
                several([row[f"{key}_all"] for key in SCORES], ".2f"),
                " / ".join(shuffled),
            ]
        )
    return table(head, rows)


def _embedding_table(frames: Mapping[str, pd.DataFrame]) -> str:
    """The scorer by embeddings, and whether it agrees with the judge of rules."""
    head = [
        "embeddings: family",
        "n",
        "AUROC",
        "layers that matter",
        "coverage-adjusted",
        "shuffled",
        "above shuffled",
        "rank correlation with rule-detection",
        "with rule-fuzzing",
    ]
    means = pick(frames["embedding_means"], seed="all")
    above = pick(frames["embedding_contrasts"], seed="all", kind="own shuffled", layers="all")
    agreement = frames["embedding_agreement"]
    rows = []
    for family in means["family"].unique():
        own = pick(means, family=family)

        def mean(explanation: str, latents: str, layers: str, own: pd.DataFrame = own) -> Row:
            (row,) = records(pick(own, explanation=explanation, latents=latents, layers=layers))
            return row

        first, shuffled = mean("own", "explained", "all"), mean("shuffled", "explained", "all")
        (more,) = records(pick(above, a=family))
        both = {row["scorer"]: row for row in records(pick(agreement, family=family))}
        rows.append(
            [
                _named(family),
                number(first["n"], ",.0f"),
                interval(first, "mean"),
                number(mean("own", "explained", "matter")["mean"], ".2f"),
                number(mean("own", "all", "all")["mean"], ".2f"),
                interval(shuffled, "mean"),
                difference(more),
                *(interval(both[f"rule-{key}"], "correlation") if both else DASH for key in SCORES),
            ]
        )
    return table(head, rows)


def _named(family: str) -> str:
    return f"**{family}**" if family in SUBJECTS else family


def _measure_table(means: pd.DataFrame) -> str:
    """Precision and recall behind the balanced accuracies, and for how many windows they stand."""
    shown = pick(means, seed="all", latents="explained", layers="all", explanation="own")
    head = ["family", *(f"{scorer}: {m}" for scorer in SCORERS for m in MEASURES)]
    rows = []
    for family in shown["family"].unique():
        own = pick(shown, family=family)
        cells = [
            records(pick(own, scorer=scorer, measure=measure))[0]
            for scorer in SCORERS
            for measure in MEASURES
        ]
        rows.append([_named(family), *map(_measure, cells)])
    return table(head, rows)


def _measure(row: Row) -> str:
    if row["measure"] != "coverage":
        return interval(
            {"mean": row["mean"], "mean_low": row["low"], "mean_high": row["high"]}, "mean"
        )
    return DASH if math.isnan(row["mean"]) else percent(row["mean"])


def _judge_table(means: pd.DataFrame) -> str:
    """Scores by a language model that has qualified: a row per family, scorer and measure."""
    head = ["judged: family", "scorer", "measure", "n", "mean", "shuffled", "missing answers"]
    rows = []
    for row in records(pick(means, explanation="own")):
        key = {name: row[name] for name in ("family", "scorer", "measure")}
        shuffled = records(pick(means, explanation="shuffled", **key))
        rows.append(
            [
                _named(row["family"]),
                row["scorer"],
                row["measure"],
                number(row["n"], ",.0f"),
                interval(row, "mean"),
                interval(shuffled[0], "mean") if shuffled else DASH,
                f"{100 * row['missing']:.1f} %",
            ]
        )
    return table(head, rows)


def _contrast_table(contrasts: pd.DataFrame, name: str = "contrast") -> str:
    """Primary, secondary and twin contrasts in each scorer, three ways each; adjusted for coverage
    where they are."""
    shown = pick(contrasts, layers="all", latents="explained", seed="all")
    each = pick(contrasts, layers="all", latents="explained", matching="none")
    covered = pick(contrasts, layers="all", latents="all", seed="all", matching="none")
    head = [
        name,
        "scorer",
        "unmatched",
        *(f"over {level}" for level in LEVELS if f"low_{level}" in contrasts),
        "matched by firing rate",
        "matched by activity",
        *(["coverage-adjusted"] if len(covered) else []),
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
        cells += [difference(row) for row in records(pick(covered, **key))]
        named = scorer if measure in (ACCURACY, "accuracy") else f"{scorer}, {measure}"
        rows.append([f"{a} − {b}", named, *cells])
    return table(head, rows)


def _model_table(compute: pd.DataFrame, ngrams: pd.DataFrame) -> str:
    head = ["model", "parameters", "FLOPs per token, forward", "training tokens", "held-out loss"]
    rows = []
    models = pick(compute, kind="model")
    for model in models["name"].unique():
        of: Any = pick(models, name=model).mean(numeric_only=True)
        rows.append(
            [
                model,
                number(of["parameters"], ",.0f"),
                number(of["flops_per_token_forward"], ",.0f"),
                number(of["training_tokens"], ",.0f"),
                number(of["heldout_loss"], ".3f"),
            ]
        )
    names = {"generator_bound": "the generator's own choices (an upper bound of the entropy)"}
    for row in records(ngrams):
        name = str(names.get(row["reference"], row["reference"]))
        rows.append([name, DASH, DASH, DASH, number(row["loss"], ".3f")])
    return table(head, rows)


def _protocol_table(protocols: pd.DataFrame) -> str:
    """What scoring on seen windows is worth. Pairs are rule-detection / rule-fuzzing."""
    head = [
        "protocols: family",
        "n",
        "seen",
        "delphi",
        "disjoint",
        "held-out",
        "worth of the overlap",
        "of the text",
        "of both",
    ]
    rows = []
    whole = cast(pd.DataFrame, protocols[protocols["rate_low"].isna()])
    for family in whole["family"].unique():
        scorers = records(pick(whole, family=family))
        worth = [
            " / ".join(
                difference(
                    {
                        "difference": row[part],
                        "low": row[f"{part}_low"],
                        "high": row[f"{part}_high"],
                    }
                )
                for row in scorers
            )
            for part in ("overlap", "text", "both")
        ]
        means = [
            several([row[name] for row in scorers], ".2f")
            for name in ("delphi", "disjoint", "held_out")
        ]
        first = scorers[0]
        n, seen = number(first["n"], ",.0f"), percent(first["seen"])
        rows.append([_named(family), n, seen, *means, *worth])
    return table(head, rows)


def _concept_table(concepts: pd.DataFrame) -> str:
    """Known concepts that single latents recover. Pairs are lexical / contextual concepts."""
    head = [
        "concepts: family",
        "mean F1",
        "above its null",
        "recovered",
        "recovered by any latent",
        "better than tokens",
        "split",
        "absorbed",
        "redundancy",
        "named by the explanation",
        "by another's",
        "predicted as well",
    ]
    rows = []
    concepts = pick(concepts, seed="all")
    shown = cast(pd.DataFrame, concepts[concepts["kind"] != "all"])
    for family in shown["family"].unique():
        kinds = records(pick(shown, family=family))
        assert [row["kind"] for row in kinds] == ["lexical", "contextual"]

        def both(column: str, form: str, kinds: list[Row] = kinds) -> str:
            return several([row[column] for row in kinds], form)

        above = [
            DASH
            if math.isnan(row["f1_above_null"])
            else difference(
                {
                    "difference": row["f1_above_null"],
                    "low": row["f1_above_null_low"],
                    "high": row["f1_above_null_high"],
                }
            )
            for row in kinds
        ]
        rules = sum(row["rules"] for row in kinds)
        rows.append(
            [
                _named(family),
                both("f1", ".2f"),
                DASH if set(above) == {DASH} else " / ".join(above),
                both("recovered", ".1f"),
                both("recovered_by_all", ".3g"),
                both("above_token_set", ".3g"),
                both("split", ".3g"),
                both("absorbed", ".3g"),
                both("redundancy", ".1f"),
                *(_over_rules(kinds, column) for column in ("named", "named_by_others", "as_well")),
            ]
        )
        rows[-1][-3] += f" (n = {rules})" if rules else ""
    return table(head, rows)


def _over_rules(kinds: Sequence[Row], column: str) -> str:
    """Mean over the explained latents of all kinds."""
    there = [row for row in kinds if row["rules"] and not math.isnan(row[column])]
    total = sum(row["rules"] for row in there)
    return percent(sum(row["rules"] * row[column] for row in there) / total) if total else DASH
