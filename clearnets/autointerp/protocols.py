"""What an explanation seems worth where it is scored on windows that its explainer has seen.

One latent, one explanation by `tokens`, three ways to score it by the judge of rules:

- `delphi`: explaining and scoring windows from one text, drawn as delphi draws them
  (`clearnets.autointerp.delphi.sampler`); a part of the active ones is the same;
- `disjoint`: scoring windows from the same text, drawn in the same way from those that the
  explainer has not seen;
- `held-out`: the same from text that the explainer never saw.

The explanation, the draw from quantiles and the choice of silent windows are the same in all three.
All that the explainer reads of the latent, its trigger word included, is what it does in the active
windows that are shown to it. `delphi` and `disjoint` have the very same silent windows, so that
they differ by the overlap alone; `disjoint` and `held-out` differ by the text. The explainer has
seen none of the silent windows: in delphi it sees none of those that score it, either. Which silent
windows they are, `explain.non_activating` says for all three: the default's `trigger` makes half of
them hold the trigger word, where delphi's own are random (`random`).

Windows are those of the grid, whatever `explain.center_examples` says: moved ones would overlap,
and `disjoint` would not be disjoint.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from clearnets.autointerp import sampling
from clearnets.autointerp.delphi import sampler
from clearnets.autointerp.records import EXPLAINED, SCORERS, UNSCORABLE
from clearnets.autointerp.rules import explainer
from clearnets.autointerp.rules.judge import detection, fuzzing, mark
from clearnets.autointerp.rules.language import parse, render
from clearnets.autointerp.rules.matcher import Text
from clearnets.autointerp.sampling import Negatives
from clearnets.config import Explain, Overlap
from clearnets.latents.examples import Activity, Examples, Grid, activity, sample
from clearnets.latents.store import LayerCache


@dataclass(frozen=True)
class Side:
    """A split, the activations of a layer on it, and how silent windows are chosen."""

    text: Text[Grid]
    cache: LayerCache
    negatives: Negatives


@dataclass(frozen=True)
class _Drawn:
    """The windows of one protocol, and how many of the active ones the explainer has seen."""

    text: Text[Grid]
    examples: Examples
    seen: int


def compare(
    explain: Side, score: Side, latent: int, settings: Overlap, explained: Explain, seed: int
) -> list[dict[str, Any]]:
    """A record per protocol: how the same explanation of a latent does.

    Each holds latent, status, rate and windows (as in `explanations.jsonl`), protocol, positives
    (active windows that it is scored on), seen (those of them that the explainer has seen) and
    tp, fp, tn, fn of each scorer. A latent with fewer than `explain.min_windows` active or silent
    windows for any of the draws, or with fewer active ones than there are quantiles, of which
    delphi draws none, has one record, without a protocol, that says why: `unscorable` where it
    could have been explained.
    """
    windows = explain.text.windows
    found = activity(explain.cache, latent, windows)
    record: dict[str, Any] = {
        "latent": latent,
        "status": sampling.status(found, windows, explained.min_windows),
        "rate": found.count / windows.tokens,
        "windows": len(found.active_A) / len(windows),
    }
    if record["status"] != EXPLAINED:
        return [record]
    elsewhere = activity(score.cache, latent, score.text.windows)
    drawn = _draw(explain, score, latent, found, elsewhere, settings, explained, seed)
    if drawn is None:
        return [record | {"status": UNSCORABLE}]
    trigger, train, by_protocol = drawn
    rule = explainer.explain(explain.text, train, trigger=trigger, max_words=explained.max_words)
    rule = parse(render(rule))
    records = []
    for protocol, one in by_protocol.items():
        examples = one.examples
        # The same random numbers mark the windows of every protocol.
        marks = mark(one.text, examples, trigger=trigger, rng=np.random.default_rng([seed, 1]))
        fired_1WB = one.text.fires(rule, examples.window_W)[None]
        verdicts = (detection(fired_1WB, examples), fuzzing(fired_1WB, marks))
        cells = {
            f"{scorer}_{cell}": value
            for scorer, counts in zip(SCORERS, verdicts)
            for cell, value in counts.of(0).items()
        }
        seen = {"protocol": protocol, "positives": examples.num_active, "seen": one.seen}
        records.append(record | seen | cells)
    return records


def _draw(
    here: Side,
    there: Side,
    latent: int,
    found: Activity,
    elsewhere: Activity,
    settings: Overlap,
    explained: Explain,
    seed: int,
) -> tuple[str, Examples, dict[str, _Drawn]] | None:
    """The trigger word, the explainer's windows, and those of each protocol; None where there are
    too few."""
    count, quantiles = settings.n_examples_test, settings.n_quantiles
    silent = settings.n_non_activating
    pool = found.strongest_first
    train_W = sampler.train(
        pool, settings.n_examples_train, how="quantiles", quantiles=quantiles, ratio_top=0.0
    )
    unseen = pool[~np.isin(pool, train_W)]
    least = explained.min_windows
    silent_here = len(here.text.windows) - len(found.active_A) - silent
    if min(len(unseen), silent_here) < least:
        return None
    if sampling.status(elsewhere, there.text.windows, least) != EXPLAINED:
        return None
    both_W = sampler.test(pool, count, quantiles=quantiles)
    other_W = sampler.test(elsewhere.strongest_first, count, quantiles=quantiles)
    unseen_W = sampler.test(unseen, count, quantiles=quantiles)
    if not all(len(drawn_W) for drawn_W in (train_W, both_W, other_W, unseen_W)):
        return None
    trigger = explainer.trigger(here.text, found.within(train_W))

    def wanted(side: Side, of: Activity, active_W: np.ndarray) -> dict[str, np.ndarray]:
        return side.negatives.chosen(
            side.text, side.cache, latent, of, trigger=trigger, active_W=active_W, count=2 * silent
        )

    def examples(
        side: Side,
        of: Activity,
        active_W: np.ndarray,
        part: int,
        preferred: dict[str, np.ndarray],
        avoid: np.ndarray,
    ) -> Examples:
        return sample(
            of,
            side.text.windows,
            active_W=active_W,
            silent=silent,
            **preferred,
            avoid=avoid,
            rng=np.random.default_rng([seed, part]),
        )

    none = np.zeros(0, dtype=np.int64)
    train = examples(here, found, train_W, 2, wanted(here, found, train_W), none)
    avoid = train.window_W[train.num_active :]
    # Those similar to active windows are chosen once: both protocols have the same silent windows.
    test = wanted(here, found, both_W)
    return (
        trigger,
        train,
        {
            "delphi": _Drawn(
                here.text,
                examples(here, found, both_W, 3, test, avoid),
                int(np.isin(both_W, train_W).sum()),
            ),
            "disjoint": _Drawn(here.text, examples(here, found, unseen_W, 3, test, avoid), 0),
            "held-out": _Drawn(
                there.text,
                examples(there, elsewhere, other_W, 3, wanted(there, elsewhere, other_W), none),
                0,
            ),
        },
    )
