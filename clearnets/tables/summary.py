"""The summary tables as Markdown, for the README and the eye. Pure: frames in, text out."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, cast

import pandas as pd

from clearnets.config import Collate
from clearnets.tables.frames import pick, records
from clearnets.tables.samples import ACCURACY

SUBJECTS = ("native", "transcoder", "skip-transcoder", "sae")
KINDS = ("primary", "secondary", "untrained twin", "untrained model", "neurons")
SCORES = ("detection", "fuzzing")
SCORERS = tuple(f"rule-{score}" for score in SCORES)
MEASURES = ("precision", "recall", "coverage")
LEVELS = ("layers", "seeds")
BASELINES = ("token_mean", "pca", "linear")
DASH = "–"
Row = dict[str, Any]


def markdown(frames: Mapping[str, pd.DataFrame], settings: Collate) -> str:
    """Families, contrasts, models, and how to read them, of the tables by name."""
    parts = [
        _score_table(frames["summary"]),
        _measure_table(frames["means"]),
        _contrast_table(frames["contrasts"]),
        _family_table(frames["summary"]),
        _model_table(frames["compute"], frames["ngrams"]),
    ]
    parts.insert(2, _embedding_table(frames))
    if len(frames["protocols"]):
        parts.append(_protocol_table(frames["protocols"]))
    if len(frames["concept_summary"]):
        parts.append(_concept_table(frames["concept_summary"]))
    parts.append(_notes(frames, settings))
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
                _name(row["family"]),
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
            number(row[f"{key}_shuffled"], ".2f") + ("\\*" if _off(row, key) else "")
            for key in SCORES
        ]
        rows.append(
            [
                _name(row["family"]),
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
                _name(family),
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


def _name(family: str) -> str:
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
        rows.append([_name(family), *map(_measure, cells)])
    return table(head, rows)


def _measure(row: Row) -> str:
    if row["measure"] != "coverage":
        return interval(
            {"mean": row["mean"], "mean_low": row["low"], "mean_high": row["high"]}, "mean"
        )
    return DASH if math.isnan(row["mean"]) else percent(row["mean"])


def _contrast_table(contrasts: pd.DataFrame) -> str:
    """Primary, secondary and twin contrasts in rule-detection and rule-fuzzing, three ways each."""
    contrasts = pick(contrasts, measure=ACCURACY)
    shown = pick(contrasts, layers="all", latents="explained", seed="all")
    each = pick(contrasts, layers="all", latents="explained", matching="none")
    head = [
        "contrast",
        "scorer",
        "unmatched",
        *(f"over {level}" for level in LEVELS if f"low_{level}" in contrasts),
        "matched by firing rate",
        "matched by activity",
        "coverage-adjusted",
    ]
    covered = pick(contrasts, layers="all", latents="all", seed="all", matching="none")
    found: dict[tuple[str, ...], dict[str, Row]] = {}
    for row in records(shown):
        if row["kind"] in KINDS:
            found.setdefault((row["a"], row["b"], row["scorer"]), {})[row["matching"]] = row
    rows = []
    for (a, b, scorer), by_matching in found.items():
        cells = []
        for matching in ("none", "rate", "activity"):
            row = by_matching[matching]
            left = max(row["unmatched_a"], row["unmatched_b"])
            equal = " ≈" if row["equivalent"] else ""
            cells.append(difference(row) + equal + (f" ({percent(left)} left out)" if left else ""))
            if matching == "none":
                cells += [ends(row, level) for level in LEVELS if f"low_{level}" in row]
        seeds = pick(each, a=a, b=b, scorer=scorer)["difference"][1:]
        if len(seeds):
            cells[0] += f"; by seed {seeds.min():+.3f} to {seeds.max():+.3f}".replace("-", "−")
        (everyone,) = records(pick(covered, a=a, b=b, scorer=scorer))
        rows.append([f"{a} − {b}", scorer, *cells, difference(everyone)])
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
        rows.append([_name(family), n, seen, *means, *worth])
    return table(head, rows)


def _on_protocols(protocols: pd.DataFrame) -> str:
    """How to read the table of protocols."""
    whole = protocols[protocols["rate_low"].isna() & (protocols["scorer"] == SCORERS[0])]
    left, compared = int(whole["too_few"].sum()), int(whole["n"].sum())
    return (
        "Protocols: the same latents with the same explanations, scored in three ways. Seen: share "
        "of the active windows under delphi's protocol that the explainer had seen. Disjoint: "
        "drawn in the same way from what it had not seen of the same text, so that the overlap is "
        "worth the difference; held-out: from other text. Latents with too few windows for one of "
        "these draws, unseen ones among them, are left out: of all families together "
        f"{left:,} of the {left + compared:,} that could be explained. "
        f"{percent(protocols['confidence'].iloc[0])} intervals of differences within latents."
    )


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
                _name(family),
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


def _on_concepts(concepts: pd.DataFrame) -> str:
    """How to read the table of concepts."""
    lexical, contextual = (
        max(row["concepts"] for row in records(pick(concepts, kind=kind)))
        for kind in ("lexical", "contextual")
    )
    first = concepts.iloc[0]
    return (
        f"Concepts: {lexical} lexical / {contextual} contextual ones, known from the generator; a "
        "lexical one is predicted by a set of tokens. Latents and thresholds are chosen on one "
        f"text and measured on another. Mean F1, its distance to the null and the concepts "
        f"recovered are those of the best of {first['candidates']:,} latents, drawn "
        f"{first['draws']:,} times; ranges are those of the central {percent(first['confidence'])} "
        "of the draws. The null are random directions of the space that a family reads. Split, "
        "absorbed: concepts that several latents of a layer share, or that a special latent "
        "takes a part of. Redundancy: latents per recovered concept. Named: explained latents "
        f"that recover a concept with an F1 of at least {first['named_from']:g} and whose rule, "
        "executed on the same text, predicts that concept best, too; by another's: a rule of "
        "another latent of the layer. As well: its F1 for the concept is lower by at most "
        f"{first['tolerance']:g}."
    )


def _notes(frames: Mapping[str, pd.DataFrame], settings: Collate) -> str:
    level = percent(frames["means"]["confidence"].iloc[0])
    pair, summary = frames["pair"], frames["summary"]
    worst = max(abs(difference) for difference in pair["difference"])
    models = records(pick(frames["compute"], kind="model"))
    taken = all(math.isnan(row["training_tokens"]) for row in models)
    if math.isnan(worst):
        read = "taken over as it is" if taken else "read at the end of its training"
        verdict = f"There is no sparse model: the dense one is {read}."
    elif all(summary["pair_matched"]):
        verdict = f"The pair's validation losses differ by {worst:.3f} nats."
    else:
        verdict = f"**The pair is not matched: its validation losses differ by {worst:.3f} nats.**"
    seeds = len(pair)
    notes = [
        f"Intervals are {level} bootstrap intervals over latents and describe these trained models "
        f"only ({seeds} training seed{'s' if seeds > 1 else ''}). {_on_levels(seeds)}",
        "Precision and recall are those of the rule on windows of which half are active, recall "
        "over explained latents and precision over those whose rule ever says yes; coverage: "
        "windows that there were over those asked for. "
        f"≈: the difference is shown to be smaller than {settings.equivalence:g}, its 90 % "
        "interval lying within (two one-sided tests at 5 % each).",
        "Scores are balanced accuracies of a short rule, parsed back from the explanation, on "
        "unseen text; chance is 0.5. They measure predictability by such a rule. Pairs of numbers "
        "are rule-detection / rule-fuzzing. Coverage-adjusted: latents that could not be explained "
        "or scored count as chance. No interval is given for fewer than "
        f"{settings.min_stratum} latents.",
        "Half of the negatives of rule-detection are windows that hold the latent's most telling "
        "token while it is silent. Of those of rule-fuzzing half are such windows, a quarter "
        "random silent ones, and a quarter active windows with silent positions marked.",
        "fvu and its baselines (the mean by token / PCA of rank k / for transcoders a linear map) "
        "and loss recovered are means over layers, loss recovered over layers that matter.",
        "Families differ in width where it cannot be equal (neurons, token-unigram), and fvu and "
        "loss recovered exist only for coders.",
        *_other_widths(summary),
        verdict,
    ]
    notes.append(_on_shuffled(summary, settings.margin))
    notes.append(_on_embeddings(frames["embedding"]))
    if len(frames["protocols"]):
        notes.append(_on_protocols(frames["protocols"]))
    if len(frames["concept_summary"]):
        notes.append(_on_concepts(frames["concept_summary"]))
    return " ".join(notes)


def _on_levels(seeds: int) -> str:
    """What the intervals over layers and seeds speak for."""
    text = (
        "Over layers: the layers are drawn, the same ones for both families, as if these models "
        "had other layers such as theirs."
    )
    if seeds == 1:
        return f"{text} With one seed nothing here speaks for architectures."
    return (
        f"{text} Over seeds: the {seeds} training seeds are drawn; these intervals speak for "
        "models that are trained like these."
    )


def _on_shuffled(summary: pd.DataFrame, margin: float) -> str:
    """Whether shuffled explanations lie at chance."""
    rows = [(row, key) for row in records(summary) for key in SCORES]
    given = [pair for pair in rows if not math.isnan(pair[0][f"{pair[1]}_shuffled_low"])]
    hold = sum(
        row[f"{key}_shuffled_low"] <= 0.5 <= row[f"{key}_shuffled_high"] for row, key in given
    )
    off = sum(_off(row, key) for row, key in given)
    text = (
        "Shuffled: every latent is judged by the explanation of every other scored latent of its "
        f"layer; it lies at chance where its interval lies within {margin} of 0.5, as "
        f"{len(given) - off} of {len(given)} do ({hold} hold 0.5 itself)."
    )
    return text + (" \\* Not at chance." if off else "")


def _on_embeddings(latents: pd.DataFrame) -> str:
    """How to read the table of the scorer by embeddings."""
    windows = latents[["positives", "negatives"]].sum(axis=1).max()
    return (
        f"Embeddings: a small model of sentences ranks {number(windows, ',.0f')} windows, the same "
        "for all latents, by their similarity to the explanation; AUROC of active against silent "
        "ones, whose chance is 0.5 and whose scale is its own. Above shuffled: a latent's own "
        "explanation minus the mean over all others of its layer. Rank correlations are over the "
        "latents that both scorers judge."
    )


def _other_widths(summary: pd.DataFrame) -> list[str]:
    """A sentence where the subjects differ in width, as coders of others may."""
    widths = {
        row["family"]: row["latents_per_layer"]
        for row in records(summary)
        if row["family"] in SUBJECTS
    }
    if len(set(widths.values())) < 2:
        return []
    listed = ", ".join(f"{family} {number(width, ',.0f')}" for family, width in widths.items())
    return [f"**Latents per layer differ: {listed}.**"]


def _off(row: Row, key: str) -> bool:
    """Whether shuffled explanations have an interval and it does not lie at chance."""
    return not (math.isnan(row[f"{key}_shuffled_low"]) or row[f"{key}_shuffled_at_chance"])


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table, its first column to the left and all others to the right."""
    lines = [list(head), ["---"] + ["---:"] * (len(head) - 1), *map(list, rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def number(value: float, form: str) -> str:
    """A number, or a dash where there is none."""
    return DASH if value is None or math.isnan(value) else format(value, form).replace("-", "−")


def several(values: Sequence[float], form: str) -> str:
    """Numbers with slashes between them, or one dash where there is none at all."""
    texts = [number(value, form) for value in values]
    return DASH if set(texts) == {DASH} else " / ".join(texts)


def percent(value: float) -> str:
    """A share as a whole percentage."""
    return f"{100 * value:.0f} %"


def interval(row: Row, key: str) -> str:
    """`0.81 [0.80, 0.82]` of the columns key, key_low, key_high, or low and high."""
    low, high = (f"{key}_{end}" if f"{key}_{end}" in row else end for end in ("low", "high"))
    if math.isnan(row[low]):
        return number(row[key], ".2f")
    return f"{row[key]:.2f} [{row[low]:.2f}, {row[high]:.2f}]".replace("-", "−")


def ends(row: Row, level: str) -> str:
    """`[−0.003, +0.045]` of the interval over a level, and whether that shows equivalence."""
    low, high = row[f"low_{level}"], row[f"high_{level}"]
    if math.isnan(low):
        return DASH
    equal = " ≈" if row[f"equivalent_{level}"] else ""
    return f"[{low:+.3f}, {high:+.3f}]".replace("-", "−") + equal


def difference(row: Row) -> str:
    """`+0.021 [−0.003, +0.045]` of a row of the contrasts."""
    if math.isnan(row["low"]):
        return number(row["difference"], "+.3f")
    value, low, high = (f"{row[key]:+.3f}" for key in ("difference", "low", "high"))
    return f"{value} [{low}, {high}]".replace("-", "−")
