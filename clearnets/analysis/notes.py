"""Sentences below the summary's tables that explain them, from settings and results."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import pandas as pd

from clearnets.analysis.contrasts import SUBJECTS
from clearnets.analysis.frames import pick, records
from clearnets.analysis.sources import SCORERS
from clearnets.analysis.summary_execution import execution_note
from clearnets.analysis.text import Row, number, percent
from clearnets.autointerp.records import SCORERS as SCORES
from clearnets.config import Config, NonActivating

# What silent windows a score is on, by `score.non_activating`; `trigger` has a sentence of its own.
SILENT: dict[NonActivating, str] = {
    "random": "random silent windows",
    "co-occurrence": "silent windows in which latents are active that often are when it is, filled "
    "up with random ones",
    "decoder-similarity": "silent windows in which latents of similar decoder weights are active, "
    "filled up with random ones",
    "encoder-similarity": "silent windows in which latents of similar encoder weights are active, "
    "filled up with random ones",
    "similar": "the silent windows that are most similar in meaning to its active ones",
}


def notes(frames: Mapping[str, pd.DataFrame], config: Config) -> str:
    """Return the text below the tables of a comparison."""
    settings = config.collate
    level = percent(frames["means"]["confidence"].iloc[0])
    pair, summary = frames["pair"], frames["summary"]
    worst = pair["difference"].abs().max()
    models = records(pick(frames["compute"], kind="model"))
    taken = all(math.isnan(row["training_tokens"]) for row in models)
    if set(pair["model"]) == {"dense"}:
        read = "taken over as it is" if taken else "read at the end of its training"
        verdict = f"There is one model: it is {read}."
    elif all(summary["pair_matched"]):
        verdict = f"Validation losses of the models differ by up to {worst:.3f} nats."
    else:
        verdict = f"**The models are not matched: validation losses differ by {worst:.3f} nats.**"
    seeds = len(set(pair["seed"]))
    said = [
        f"Intervals are {level} bootstrap intervals over latents and describe these trained models "
        f"only ({seeds} training seed{'s' if seeds > 1 else ''}). {_on_levels(seeds)}",
        "Precision and recall are those of the rule on windows of which half are active, recall "
        "over explained latents and precision over those whose rule ever says yes; coverage: "
        "windows that there were over those asked for. "
        f"≈: the difference is shown to be smaller than {settings.equivalence:g}, its 90 % "
        "interval lying within (two one-sided tests at 5 % each). That margin was set after first "
        "results had been seen.",
        *_on_rules(config),
        f"No interval is given for fewer than {settings.min_stratum} latents.",
        *_on_primary(frames),
        "Dead: active at no token; by layer on the held-out text. Depth and splices are in nats of "
        "held-out loss: a feedforward's output is replaced by its mean (ablated), or by a coder's "
        "reconstruction, which costs something between 0 and ablation. Native latents are the "
        "feedforward, so that theirs cost nothing.",
        "fvu and its baselines (the mean by token / PCA of rank k / for transcoders a linear map) "
        "and losses are means over layers; loss recovered (by layer / all layers at once) is the "
        "share of ablation's cost that is not lost, over layers that matter.",
        "Families differ in width where it cannot be equal (neurons, token-unigram), and fvu and "
        "spliced losses exist only for coders.",
        *_on_widths(summary),
        verdict,
    ]
    said.append(_on_shuffled(summary, settings.margin))
    if "embedding" in frames:
        said.append(_on_embeddings(frames["embedding"]))
    if "judged" in frames:
        said.append(_on_judge())
    if len(frames.get("protocols", ())):
        said.append(_on_protocols(frames["protocols"]))
    if "execution" in frames:
        said.append(execution_note(frames["execution"]))
    if len(frames.get("concept_summary", ())):
        said.append(_on_concepts(frames["concept_summary"]))
    return " ".join(said)


def _on_primary(frames: Mapping[str, pd.DataFrame]) -> list[str]:
    """Return how to read the primary contrasts; nothing where there are none."""
    primary = frames["primary"]
    if not len(primary):
        return []
    row = primary.iloc[0]
    return [
        "Primary: native latents against transcoders of the same selection, in layers that matter; "
        "tested are live latents, which are active at all, with those that have no explanation or "
        f"score at chance. P-values are over {row['level']} and corrected by Holm over all "
        f"{row['tests']} rows; of equivalence: that the difference is at least "
        f"{row['equivalence']:g}. Simultaneous intervals hold all true differences of live latents "
        f"together with {percent(row['confidence'])}. All other contrasts are exploratory. By "
        "layer: Cochran's test of one difference in all layers that matter, over latents, and the "
        "slope of the difference over these; in brackets: a layer that does not matter in both "
        "models."
    ]


def _on_rules(config: Config) -> list[str]:
    """Return what the scores of the judge of rules are; nothing where it does not judge."""
    if not config.score.rules:
        return []
    text = "unseen text"
    if config.explain.protocol == "delphi":
        text = "text of which the explainer saw a part"
    return [
        "Scores are balanced accuracies of a short rule, parsed back from the explanation, on "
        f"{text}; chance is 0.5. They measure predictability by such a rule. Pairs of numbers are "
        "rule-detection / rule-fuzzing. Coverage-adjusted: latents that could not be explained or "
        "scored count as chance.",
        _on_negatives(config.score.non_activating),
    ]


def _on_negatives(kind: NonActivating) -> str:
    """Return which non-activating windows the judge of rules is shown."""
    if kind == "trigger":
        return (
            "Half of the negatives of rule-detection are windows that hold the latent's most "
            "telling token while it is silent, the others are random silent ones. Of those of "
            "rule-fuzzing half are windows with that token, a quarter random silent ones, and a "
            "quarter active windows with silent positions marked."
        )
    return (
        f"The negatives of rule-detection are {SILENT[kind]}. Of those of rule-fuzzing half are "
        "such windows and half active windows with silent positions marked."
    )


def _on_levels(seeds: int) -> str:
    """Return what the intervals over layers and seeds describe."""
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
    """Return whether shuffled explanations lie at chance."""
    rows = [(row, key) for row in records(summary) for key in SCORES]
    given = [pair for pair in rows if not math.isnan(pair[0][f"{pair[1]}_shuffled_low"])]
    hold = sum(
        row[f"{key}_shuffled_low"] <= 0.5 <= row[f"{key}_shuffled_high"] for row, key in given
    )
    off = sum(off_chance(row, key) for row, key in given)
    text = (
        "Shuffled: every latent is judged by the explanation of every other scored latent of its "
        f"layer; it lies at chance where its interval lies within {margin} of 0.5, as "
        f"{len(given) - off} of {len(given)} do ({hold} hold 0.5 itself)."
    )
    return text + (" \\* Not at chance." if off else "")


def _on_embeddings(latents: pd.DataFrame) -> str:
    """Return how to read the table of the scorer by embeddings."""
    windows = latents[["positives", "negatives"]].sum(axis=1).max()
    return (
        f"Embeddings: a small model of sentences ranks {number(windows, ',.0f')} windows, the same "
        "for all latents, by their similarity to the explanation; AUROC of active against silent "
        "ones, whose chance is 0.5 and whose scale is its own. Above shuffled: a latent's own "
        "explanation minus the mean over all others of its layer. Rank correlations are over the "
        "latents that both scorers judge."
    )


def _on_widths(summary: pd.DataFrame) -> list[str]:
    """Return a sentence where the compared families differ in width, as coders of others may."""
    widths = {
        row["family"]: row["latents_per_layer"]
        for row in records(summary)
        if row["family"] in SUBJECTS
    }
    if len(set(widths.values())) < 2:
        return []
    listed = ", ".join(f"{family} {number(width, ',.0f')}" for family, width in widths.items())
    return [f"**Latents per layer differ: {listed}.**"]


def _on_judge() -> str:
    """Return how to read the tables of a language model's scores."""
    return (
        "Judged: by a language model that has qualified; its scale is its own. Missing answers are "
        "neither right nor wrong, and differences are between latents that have a score. Shuffled: "
        "with the explanation of another latent of the layer, or of several."
    )


def _on_protocols(protocols: pd.DataFrame) -> str:
    """Return how to read the table of protocols."""
    whole = protocols[protocols["rate_low"].isna() & (protocols["scorer"] == SCORERS[0])]
    left, compared = (int(np.sum(whole[name])) for name in ("too_few", "n"))
    return (
        "Protocols: the same latents with the same explanations, scored in three ways. Seen: share "
        "of the active windows under delphi's protocol that the explainer had seen. Disjoint: "
        "drawn in the same way from what it had not seen of the same text, so that the overlap is "
        "worth the difference; held-out: from other text. Latents with too few windows for one of "
        "these draws, unseen ones among them, are left out: of all families together "
        f"{left:,} of the {left + compared:,} that could be explained. "
        f"{percent(protocols['confidence'].iloc[0])} intervals of differences within latents."
    )


def _on_concepts(concepts: pd.DataFrame) -> str:
    """Return how to read the table of concepts."""
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
        "of the draws. The null are random directions of the space that a family reads; for coders "
        "and neurons they are the latents of an untrained coder (`null` in `concept_summary.csv`). "
        "Split, absorbed: concepts that several latents of a layer share, or that a special latent "
        "takes a part of. Redundancy: latents per recovered concept. Named: explained latents "
        f"that recover a concept with an F1 of at least {first['named_from']:g} and whose rule, "
        "executed on the same text, predicts that concept best, too; by another's: a rule of "
        "another latent of the layer. As well: its F1 for the concept is lower by at most "
        f"{first['tolerance']:g}."
    )


def off_chance(row: Row, key: str) -> bool:
    """Return whether shuffled explanations have an interval and it does not lie at chance."""
    return not (math.isnan(row[f"{key}_shuffled_low"]) or row[f"{key}_shuffled_at_chance"])
