"""Scores of one explanation on windows that its explainer has seen, and on others.

One latent, one explanation by `tokens`, and three protocols by which the judge of rules scores it:

- `delphi`: explaining and scoring windows from one text, drawn as delphi draws them
  (`clearnets.autointerp.delphi.sampler`); some of the active ones are the same;
- `disjoint`: scoring windows from the same text, drawn in the same way from those that the
  explainer has not seen;
- `held-out`: scoring windows from text that the explainer never saw.

The explanation, the draw from quantiles and the choice of non-activating windows are the same in
all three. The explainer reads of the latent, its trigger word included, only what it does in the
active windows that are shown to it, and in what share of the text's windows it is active. `delphi`
and `disjoint` have the same non-activating windows, so they differ by the overlap alone; `disjoint`
and `held-out` differ by the text. The explainer has seen none of the non-activating windows that
score it, as in delphi. How they are chosen, `explain.non_activating` says for all three: with the
default, `trigger`, half of them hold the trigger word; delphi's own are random (`random`).

Windows are those of the grid, whatever `explain.center_examples` says: moved ones would overlap,
and `disjoint` would not be disjoint.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
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
from clearnets.autointerp.texts import Texts
from clearnets.config import Explain, Overlap
from clearnets.latents.examples import Activity, Examples, Grid, activity, sample
from clearnets.latents.store import LayerCache, load_layer


@dataclass(frozen=True)
class Side:
    """A split, a layer's activations on it, and how its non-activating windows are chosen."""

    text: Text[Grid]
    cache: LayerCache
    negatives: Negatives

    @classmethod
    def of(
        cls, explained: Explain, inputs: Mapping[str, Path], hookpoint: str, texts: Texts
    ) -> Side:
        """Load a layer's cache, `inputs["cache"]`, and what its negatives are chosen by."""
        kind = explained.non_activating
        return cls(
            texts.of(explained.window),
            load_layer(inputs["cache"], hookpoint),
            Negatives.load(kind, inputs, hookpoint, texts.split),
        )


@dataclass(frozen=True)
class _Test:
    """The windows that one protocol scores on.

    Attributes:
        seen: how many of the active ones the explainer has seen.
    """

    text: Text[Grid]
    examples: Examples
    seen: int


def compare(
    explain: Side, score: Side, latent: int, settings: Overlap, explained: Explain, seed: int
) -> list[dict[str, Any]]:
    """Return a record per protocol: the scores of one explanation of a latent.

    Each holds latent, status, rate and windows (as in `explanations.jsonl`), protocol, positives
    (active windows that it is scored on), seen (those of them that the explainer has seen) and
    tp, fp, tn, fn of each scorer. A latent with fewer than `explain.min_windows` active or
    non-activating windows for any of the draws, or with fewer active ones than there are
    quantiles, of which delphi draws none, has one record, without a protocol, whose status says
    why: `unscorable` where it could have been explained.
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
    chosen = _choose(explain, score, found, elsewhere, settings, explained.min_windows)
    if chosen is None:
        return [record | {"status": UNSCORABLE}]
    trigger = explainer.trigger(explain.text, found.within(chosen["train"]))
    draws = _Draws(explain, found, latent, trigger, settings.n_non_activating, seed)
    there = replace(draws, side=score, found=elsewhere)
    train, tests = _tests(draws, there, chosen)
    rule = explainer.explain(
        explain.text,
        train,
        trigger=trigger,
        share=record["windows"],
        max_words=explained.max_words,
    )
    rule = parse(render(rule))
    records = []
    for protocol, test in tests.items():
        examples = test.examples
        # The same random numbers mark the windows of every protocol.
        marks = mark(test.text, examples, trigger=trigger, rng=np.random.default_rng([seed, 1]))
        fired_1WB = test.text.fires(rule, examples.window_W)[None]
        verdicts = (detection(fired_1WB, examples), fuzzing(fired_1WB, marks))
        cells = {
            f"{scorer}_{cell}": value
            for scorer, counts in zip(SCORERS, verdicts)
            for cell, value in counts.of(0).items()
        }
        seen = {"protocol": protocol, "positives": examples.num_active, "seen": test.seen}
        records.append(record | seen | cells)
    return records


def _choose(
    explain: Side,
    score: Side,
    found: Activity,
    elsewhere: Activity,
    settings: Overlap,
    least: int,
) -> dict[str, np.ndarray] | None:
    """Return the active windows of the explainer (`train`) and of each protocol; None where there
    are fewer than `least` active or non-activating ones for any of them."""
    count, quantiles = settings.n_examples_test, settings.n_quantiles
    pool = found.strongest_first
    train_W = sampler.train(
        pool, settings.n_examples_train, how="quantiles", quantiles=quantiles, ratio_top=0.0
    )
    unseen = pool[~np.isin(pool, train_W)]
    free = len(explain.text.windows) - len(found.active_A) - settings.n_non_activating
    if min(len(unseen), free) < least:
        return None
    if sampling.status(elsewhere, score.text.windows, least) != EXPLAINED:
        return None
    chosen = {
        "train": train_W,
        "delphi": sampler.test(pool, count, quantiles=quantiles),
        "disjoint": sampler.test(unseen, count, quantiles=quantiles),
        "held-out": sampler.test(elsewhere.strongest_first, count, quantiles=quantiles),
    }
    return chosen if all(map(len, chosen.values())) else None


@dataclass(frozen=True)
class _Draws:
    """How samples of a latent's windows on one split are completed by non-activating ones."""

    side: Side
    found: Activity
    latent: int
    trigger: str
    count: int
    seed: int

    def preferred(self, active_W: np.ndarray) -> dict[str, np.ndarray]:
        """Return the non-activating windows to prefer, given the active ones."""
        side = self.side
        return side.negatives.chosen(
            side.text,
            side.cache,
            self.latent,
            self.found,
            trigger=self.trigger,
            active_W=active_W,
            count=2 * self.count,
        )

    def sample(
        self,
        active_W: np.ndarray,
        part: int,
        preferred: dict[str, np.ndarray],
        avoid: np.ndarray | tuple[()] = (),
    ) -> Examples:
        """Return a sample with these active windows, drawn with the random numbers of `part`."""
        return sample(
            self.found,
            self.side.text.windows,
            active_W=active_W,
            silent=self.count,
            **preferred,
            avoid=np.array(avoid, dtype=np.int64),
            rng=np.random.default_rng([self.seed, part]),
        )


def _tests(
    here: _Draws, there: _Draws, chosen: dict[str, np.ndarray]
) -> tuple[Examples, dict[str, _Test]]:
    """Return the explainer's windows, and those of each protocol."""
    train_W, both_W, other_W = chosen["train"], chosen["delphi"], chosen["held-out"]
    train = here.sample(train_W, 2, here.preferred(train_W))
    avoid = train.window_W[train.num_active :]
    # Chosen once: both protocols on this text have the same non-activating windows.
    preferred = here.preferred(both_W)
    both = here.sample(both_W, 3, preferred, avoid)
    unseen = here.sample(chosen["disjoint"], 3, preferred, avoid)
    other = there.sample(other_W, 3, there.preferred(other_W))
    return train, {
        "delphi": _Test(here.side.text, both, int(np.isin(both_W, train_W).sum())),
        "disjoint": _Test(here.side.text, unseen, 0),
        "held-out": _Test(there.side.text, other, 0),
    }
