"""Explanations to read: latents drawn from the good, the middling and the poor.

The scored latents of each family of a primary contrast are parted by their first score into thirds,
over all layers and seeds, and of each third one is drawn. Its windows, of text that no explainer
saw, are the one with the strongest activation, and one drawn from its other active windows.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from clearnets.analysis.contrasts import comparisons
from clearnets.autointerp.texts import Texts, open_texts
from clearnets.browser.activity import Example, where_fires
from clearnets.browser.findings import Beside, Known, of_layer, scorers
from clearnets.config import Config
from clearnets.families import FAMILIES
from clearnets.latents.examples import activations, activity
from clearnets.latents.store import load_layer
from clearnets.pipeline import paths
from clearnets.pipeline.runtime import seed_for

SPLIT = "score"
PARTS = ("good", "middling", "poor")
COLUMNS = (
    *("part", "family", "seed", "layer", "latent", "scorer", "score"),
    *("explanation", "effect"),
)
TOKEN_COLUMNS = ("family", "part", "window", "place", "text", "share", "fires")


@dataclass(frozen=True)
class Drawn:
    """A latent that was drawn, with what is known of it.

    Attributes:
        part: of the family's latents by score.
        point: its hookpoint.
    """

    part: str
    family: str
    seed: int
    layer: int
    point: str
    latent: int
    known: Known = field(repr=False)

    def row(self, scorer: str) -> dict[str, Any]:
        """Return its row of the table of latents."""
        effect = self.known.effect
        return {
            **{key: getattr(self, key) for key in COLUMNS[:5]},
            "scorer": scorer,
            "score": self.known.scores[scorer],
            "explanation": self.known.explanation,
            "effect": effect and effect.sentence,
        }

    def tokens(self, config: Config, texts: Texts) -> Iterator[dict[str, Any]]:
        """Yield the rows of its windows: each counted token; its activation as a share of the
        latent's largest; whether the explanation fires there, where it can be executed."""
        text = texts.of(config.explain.window)
        cache = load_layer(paths.cache(self.family, self.seed, SPLIT), self.point)
        found = activity(cache, self.latent, text.windows)
        names = (self.family, self.seed, self.point, self.latent)
        rng = np.random.default_rng(seed_for(config.browse.seed, "sampled", *names))
        strongest, *others = found.strongest_first.tolist()
        window_W = np.array([strongest, *rng.permutation(others)[:1]], dtype=np.int64)
        act_WL = activations(cache, self.latent, text.windows, window_W)
        examples = [Example(int(window), 0, act_L) for window, act_L in zip(window_W, act_WL)]
        if rule := self.known.rule(config):
            examples = where_fires(examples, text, rule)
        token_WL, counted_WL = (
            text.windows.these(window_W).cut(values_RS)
            for values_RS in (texts.tokens_RS, text.windows.counted_RS)
        )
        for number, example in enumerate(examples):
            for place in np.flatnonzero(counted_WL[number]).tolist():
                yield {
                    "family": self.family,
                    "part": self.part,
                    "window": number + 1,
                    "place": place,
                    "text": texts.strings[token_WL[number, place]],
                    "share": float(f"{example.act_L[place] / found.peak_A.max():.3g}"),
                    "fires": None if example.fires_L is None else int(example.fires_L[place]),
                }


def tables(config: Config) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Return the rows of the table of latents, and of that of their windows' tokens.

    Raises:
        UserError: a result is missing or damaged; it names the stage to run.
    """
    scorer = scorers(config)[0]
    drawn = [
        one
        for pair in comparisons(config.families)
        if pair[0] == "primary"
        for family in pair[1:]
        for one in _draw(config, family, scorer)
    ]
    drawn.sort(key=lambda one: (PARTS.index(one.part), list(FAMILIES).index(one.family)))
    texts = open_texts(SPLIT)
    rows = [one.row(scorer) for one in drawn]
    return rows, [token for one in drawn for token in one.tokens(config, texts)]


def _draw(config: Config, family: str, scorer: str) -> list[Drawn]:
    """Return a latent of each third of a family's latents by score."""
    there = [
        (seed, layer, point, latent, known)
        for seed in config.seeds
        for layer, point in config.hookpoints_by_layer(family).items()
        for latent, known in of_layer(
            config, family, seed, point, Beside.read(config, family, seed)
        ).items()
        if scorer in known.scores
    ]
    there.sort(key=lambda one: -one[-1].scores[scorer])
    rng = np.random.default_rng(seed_for(config.browse.seed, "sampled", family))
    thirds = zip(PARTS, np.array_split(np.arange(len(there)), len(PARTS)))
    return [Drawn(part, family, *there[rng.choice(t)]) for part, t in thirds if len(t)]
