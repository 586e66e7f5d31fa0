"""What `explain` and `score` write about each latent, and for which hookpoints.

A record of `explanations.jsonl`: latent, status, rate (share of counted tokens of `explain` at
which the latent is active), windows (share of its windows in which it is), trigger (the word at
which it is active most often) and explanation (a sentence); the last two are null unless the
status is `explained`. With a language model, too, the trigger picks silent windows; a latent of the
status `unparsable` has one.

A record of `scores.jsonl`: latent, status, rate and windows as above, and for each of SCORERS the
counts tp, fp, tn, fn, or null: no score where the latent is not explained, or active or silent in
too few windows of `score` (status `unscorable`). Beside them, over all other scored latents of the
same family, seed and layer: `*_shuffled`, its mean balanced accuracy with their explanations, and
`*_elsewhere`, that of its own explanation for them; null where there is no other. All are null
where the judge of rules is not among the scorers.

A record of `similarity.jsonl`, of the scorer by embeddings: latent, status, rate and windows as
above (`unscorable`: active or silent in too few of the windows that are embedded), positives and
negatives (those windows in which the latent is active, and silent; null unless it is explained),
auroc, and `shuffled` and `elsewhere`, which are to it as in `scores.jsonl`. Beside it `roc.json`:
how many latents of the layer have a score, and their mean ROC curve, `own` and `shuffled` (null
where there is none): the share of active windows among those most similar to the explanation, where
these hold 0, 1/ROC_STEPS, ... 1 of the silent ones.

A record of `judged.jsonl`, which a language model as judge adds: latent, status, rate and windows
as above, `demonstration` (true: this judge has not qualified, and its scores stay out of the
paper), and for each of its scorers an object or null: tp, fp, tn, fn, missing_positives,
missing_negatives and auroc (null without probabilities), or for `intruder` right, wrong, missing,
for `simulation` correlation, answered, missing, and for `surprisal` auroc, gain_positives,
gain_negatives, answered, missing. Missing answers are neither right nor wrong. Beside each scorer:
`*_shuffled`, a list of such objects for explanations of other latents, whose number is
`explanation_of` (none for `intruder`, which reads no explanation); and where the latent was asked
again, else null, `*_redrawn`, about other windows, and of detection and fuzzing `*_reordered`,
about the same windows in another order: `both` of them were answered twice, `same` alike.

`probabilities.json` holds, by scorer, how many positives and negatives of the layer were given a
probability in each of PROBABILITY_BINS equal bins from 0 to 1.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from clearnets.config import Family, Model

if TYPE_CHECKING:
    from clearnets.pipeline.artifacts import Unit

EXPLANATIONS = "explanations.jsonl"
SCORED = "scores.jsonl"
JUDGED = "judged.jsonl"
PROBABILITIES = "probabilities.json"
PROBABILITY_BINS = 50
# In the folder of a unit for which a language model was asked: some exchanges for readers.
TRANSCRIPT_SAMPLE = "transcript-sample.jsonl"
SIMILAR = "similarity.jsonl"
ROC = "roc.json"
ROC_STEPS = 50

EXPLAINED = "explained"
# Never active on `explain`; active, or silent, in fewer than `explain.min_windows` windows of it,
# or active in fewer than there are quantiles, of which the protocol `delphi` draws none.
UNEXPLAINABLE = ("dead", "too_rare", "too_frequent")
UNSCORABLE = "unscorable"
# No answer of the language model held an explanation.
UNPARSABLE = "unparsable"
STATUSES = (EXPLAINED, *UNEXPLAINABLE, UNSCORABLE, UNPARSABLE)

SCORERS = ("detection", "fuzzing")
# The split that explanations are scored on, by protocol: text that the explainer never saw, or the
# text that it saw.
SPLITS = {"held-out": "score", "delphi": "explain"}


def hookpoints(family: Family, model: Model, layers: tuple[int, ...]) -> list[str]:
    """What is explained of a family: its layers, or the one place of a family without layers."""
    if family == "token-unigram":
        return ["tokens"]
    return [model.hookpoint(layer) for layer in layers]


def layer_names(unit: Unit) -> tuple[str, str, int]:
    """Return a unit's family, hookpoint and training seed, which name its random numbers."""
    return unit.settings["family"], unit.settings["hookpoint"], unit.settings["seed"]
