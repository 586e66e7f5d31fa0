"""Formats of the records that `explain` and `score` write about each latent.

A record of `explanations.jsonl`: latent, status, rate (share of counted tokens of `explain` at
which the latent is active), windows (share of its windows in which it is), trigger (the word at
which it is active most often, by which non-activating windows may be chosen) and explanation (a
sentence). Trigger and explanation are null unless the status is `explained`; a latent with the
status `unparsable` has a trigger only.

A record of `scores.jsonl`: latent, status, rate and windows as above, and for each of SCORERS the
counts tp, fp, tn, fn, or null where the latent is not explained, or is active or non-activating in
too few windows of `score` (status `unscorable`). In addition, over all other scored latents of the
same family, seed and layer: `*_shuffled`, its mean balanced accuracy with their explanations, and
`*_elsewhere`, that of its own explanation for them; null where there is no other. All are null
where the judge of rules is not among the scorers.

A record of `similarity.jsonl`, of the embedding scorer: latent, status, rate and windows as above
(`unscorable`: active or non-activating in too few of the windows that are embedded), positives and
negatives (the number of active and of non-activating ones among these; null unless explained),
auroc, and `shuffled` and `elsewhere` as in `scores.jsonl`. `roc.json` holds the number of latents
of the layer with a score, and their mean ROC curve, `own` and `shuffled` (null where there is
none): the share of active windows among those most similar to the explanation, where these hold
0, 1/ROC_STEPS, ... 1 of the non-activating ones.

A record of `judged.jsonl`, by a language model as judge: latent, status, rate and windows as above,
`demonstration` (true: this judge has not qualified, and its scores stay out of the paper), and for
each of its scorers an object or null: tp, fp, tn, fn, missing_positives, missing_negatives and
auroc (null without probabilities), or for `intruder` right, wrong, missing, for `simulation`
correlation, answered, missing, and for `surprisal` auroc, gain_positives, gain_negatives, answered,
missing. Missing answers are neither right nor wrong. For each scorer there are also `*_shuffled`, a
list of such objects for explanations of other latents, whose number is `explanation_of` (none for
`intruder`, which reads no explanation); and where the latent was judged again, else null,
`*_redrawn`, on other windows, and for detection and fuzzing `*_reordered`, on the same windows in
another order, with `both`, how many were answered twice, and `same`, how many of these alike.

`probabilities.json` holds, by scorer, how many positives and negatives of the layer were given a
probability in each of PROBABILITY_BINS equal bins from 0 to 1.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from clearnets.pipeline.artifacts import Unit

EXPLANATIONS = "explanations.jsonl"
SCORED = "scores.jsonl"
JUDGED = "judged.jsonl"
PROBABILITIES = "probabilities.json"
PROBABILITY_BINS = 50
# In the folder of a unit that was made with a language model: a sample of its exchanges.
TRANSCRIPT_SAMPLE = "transcript-sample.jsonl"
SIMILAR = "similarity.jsonl"
EFFECTS = "effects.jsonl"
ROC = "roc.json"
ROC_STEPS = 50

EXPLAINED = "explained"
# Never active on `explain`; active, or non-activating, in fewer than `explain.min_windows` windows,
# or active in fewer than there are quantiles, of which the protocol `delphi` draws none.
DEAD = "dead"
UNEXPLAINABLE = (DEAD, "too_rare", "too_frequent")
UNSCORABLE = "unscorable"
# No answer of the language model held an explanation.
UNPARSABLE = "unparsable"
STATUSES = (EXPLAINED, *UNEXPLAINABLE, UNSCORABLE, UNPARSABLE)

SCORERS = ("detection", "fuzzing")
# The split that explanations are scored on, by protocol: text that the explainer never saw, or the
# text that it saw.
SPLITS = {"held-out": "score", "delphi": "explain"}


def layer_names(unit: Unit) -> tuple[str, str, int]:
    """Return a unit's family, hookpoint and training seed, which name its random numbers."""
    return unit.settings["family"], unit.settings["hookpoint"], unit.settings["seed"]
