"""The page's data, from the artifacts: text, drawn latents, their nearest latents in other
families.

The page is columns: one list per property, with an entry for each latent, so that ten thousand
latents are a few megabytes. Windows and tokens are written once and named by number.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
from scipy.sparse import hstack

from clearnets.browser import nearest
from clearnets.browser.activity import Example, held_out, see
from clearnets.browser.findings import REASONS, Known, Transcripts, of_layer, recovered, scorers
from clearnets.config import Config, Family
from clearnets.data.tokens import TokenStore, open_tokens
from clearnets.families import FAMILIES
from clearnets.latents.examples import Grid, windows_of
from clearnets.latents.lens import Lenses, extremes
from clearnets.latents.store import load_layer
from clearnets.pipeline import paths
from clearnets.pipeline.artifacts import read_json
from clearnets.pipeline.runtime import progress, seed_for

# Where examples are from, and where the windows of a blind rating are, which no explainer has seen.
SPLIT, HELD_OUT = "explain", "score"
# Activations are kept as levels of the latent's largest one.
LEVELS = 255
# What a scorer gives an explanation without information, where that is one number.
CHANCE = {
    **dict.fromkeys(("rule-detection", "rule-fuzzing", "embedding"), 0.5),
    **dict.fromkeys(("judge-detection", "judge-fuzzing", "judge-surprisal"), 0.5),
}


def inputs(config: Config) -> dict[str, Path]:
    """Return the units that the page is made from, by name."""
    named = {"data": paths.data()}
    for seed in config.seeds:
        named[f"match/seed-{seed}"] = paths.match(seed)
        named |= {f"train/{mlp}/seed-{seed}": paths.train(mlp, seed) for mlp in config.models}
        named |= {
            f"coders/{family}/seed-{seed}": paths.coders(family, seed)
            for family in config.coder_families
        }
        for family in config.families:
            for split in (SPLIT, HELD_OUT):
                named[f"cache/{family}/seed-{seed}/{split}"] = paths.cache(family, seed, split)
            named[f"concepts/{family}/seed-{seed}"] = paths.concepts(family, seed)
            for point in config.hookpoints_by_layer(family).values():
                unit = f"{family}/seed-{seed}/{point}"
                named[f"explain/{unit}"] = paths.explain(family, seed, point)
                named[f"score/{unit}"] = paths.score(family, seed, point)
                named[f"similarity/{unit}"] = paths.similarity(family, seed, point)
    return named


@dataclass(frozen=True)
class Text:
    """One split: its tokens and windows."""

    tokens_RS: np.ndarray
    windows: Grid

    @classmethod
    def of(cls, store: TokenStore, split: str, size: int) -> Text:
        tokens_RS = np.asarray(store.split(split))
        return cls(tokens_RS, windows_of(store.counted(tokens_RS), size=size))


@dataclass
class _Numbers:
    """Numbers of things, in the order in which they are first named."""

    known: dict[Any, int] = field(default_factory=dict)

    def __call__(self, thing: Any) -> int:
        return self.known.setdefault(thing, len(self.known))


@dataclass(frozen=True)
class _Place:
    """One hookpoint of one family and seed."""

    family: Family
    seed: int
    layer: int
    point: str
    num_latents: int
    known: dict[int, Known]


class Gatherer:
    """Collects the page's columns, place by place."""

    def __init__(self, config: Config) -> None:
        self.config, self.settings = config, config.browse
        store = open_tokens(paths.data())
        size = config.explain.window
        self._texts = {split: Text.of(store, split, size) for split in (SPLIT, HELD_OUT)}
        self._strings = store.strings()
        # What stands for tokens without text: nothing, or a mark between documents.
        self._special = {store.pad: "", store.bos: "", store.eos: " ¶"}
        self._windows = {split: _Numbers() for split in self._texts}
        self._tokens, self._concepts = _Numbers(), _Numbers()
        self._scorers = scorers(config)
        self.rows: list[dict[str, Any]] = []
        self.coverage: list[dict[str, Any]] = []

    def place(self, place: _Place, lenses: Lenses) -> Any:
        """Add the latents of one place; return their columns for `clearnets.browser.nearest`."""
        names = (place.family, place.seed, place.point)
        caches = {
            split: load_layer(paths.cache(place.family, place.seed, split), place.point)
            for split in self._texts
        }
        logit_LV = lenses.logits(place.family, place.layer, place.point)
        transcripts = Transcripts(*names)
        for latent, known in place.known.items():
            rng = np.random.default_rng(seed_for(self.settings.seed, "browse", *names, latent))
            seen = see(caches[SPLIT], latent, self._texts[SPLIT].windows, self.settings, rng)
            active, non_activating = held_out(
                caches[HELD_OUT],
                latent,
                self._texts[HELD_OUT].windows,
                self.settings.held_out,
                rng,
            )
            logit_V = None if logit_LV is None else logit_LV[latent]
            shown, exchanges = transcripts.of(known.explanation, self.settings.exchanges)
            concept = known.concept
            self.rows.append(
                {
                    "family": list(self.config.families).index(place.family),
                    "seed": place.seed,
                    "layer": place.layer,
                    "latent": latent,
                    "status": known.status,
                    "explanation": known.explanation,
                    "trigger": known.trigger,
                    "scores": [_rounded(known.scores.get(name)) for name in self._scorers],
                    "concept": self._concepts(concept[0]) if concept else None,
                    "f1": _rounded(concept[1]) if concept else None,
                    "mcc": _rounded(concept[2]) if concept else None,
                    "count": seen.count,
                    "rate": float(f"{seen.rate:.4g}"),
                    "windows": float(f"{seen.windows:.4g}"),
                    "largest": float(f"{seen.largest:.4g}"),
                    "histogram": seen.histogram,
                    "examples": self._examples(SPLIT, seen.examples, seen.largest),
                    "active": self._examples(
                        HELD_OUT, active, max((e.act_L.max() for e in active), default=0)
                    ),
                    "silent": [self._windows[HELD_OUT](window) for window in non_activating],
                    "tokens": self._promoted(logit_V),
                    "exchanges": exchanges,
                    "shown": [[e.task, e.model, e.messages, e.reply] for e in shown],
                }
            )
        self._cover(place)
        return nearest.columns(
            caches[SPLIT], list(place.known), self._texts[SPLIT].windows.counted_RS
        )

    def _cover(self, place: _Place) -> None:
        counts: dict[str, int] = {}
        for known in place.known.values():
            counts[known.status] = counts.get(known.status, 0) + 1
        self.coverage.append(
            {
                "family": place.family,
                "seed": place.seed,
                "layer": place.layer,
                "latents": place.num_latents,
                "drawn": counts,
            }
        )

    def _examples(self, split: str, examples: Sequence[Example], largest: float) -> list[list[int]]:
        """Return each example as window, quantile, and then place and level of each activation."""
        found = []
        for example in examples:
            flat = [self._windows[split](example.window), example.quantile]
            for position in np.flatnonzero(example.act_L).tolist():
                level = round(LEVELS * float(example.act_L[position]) / largest)
                flat += [position, max(1, level)]
            found.append(flat)
        return found

    def _promoted(self, logit_V: np.ndarray | None) -> list[list[int]] | None:
        if logit_V is None:
            return None
        ends = extremes(logit_V[: len(self._strings)], self.settings.tokens)
        return [[self._tokens(token) for token in end] for end in ends]

    def text(self, split: str) -> list[list[int]]:
        """Return the tokens of each window that is shown, by number."""
        text = self._texts[split]
        token_NL = text.windows.cut(text.tokens_RS)
        return [
            [self._tokens(int(token)) for token in token_NL[window]]
            for window in self._windows[split].known
        ]

    def page(self) -> dict[str, Any]:
        """Return the page's data, once every place has been added."""
        texts = {split: self.text(split) for split in self._texts}
        return {
            "experiment": self.config.experiment,
            "families": list(self.config.families),
            "specs": {family: family_spec(family) for family in self.config.families},
            "reasons": REASONS,
            "seeds": list(self.config.seeds),
            "layers": len(self.config.model.layers),
            "scorers": self._scorers,
            "chance": [CHANCE.get(name) for name in self._scorers],
            "concepts": list(self._concepts.known),
            "quantiles": self.settings.quantiles,
            "levels": LEVELS,
            "tokens": [self._strings[token] for token in self._tokens.known],
            "special": [self._special.get(token) for token in self._tokens.known],
            "text": texts,
            "coverage": self.coverage,
            "latents": {key: [row[key] for row in self.rows] for key in self.rows[0]}
            if self.rows
            else {},
        }


def family_spec(family: str) -> dict[str, str]:
    """Return what the page shows of a row of the table of families."""
    spec = FAMILIES[family]
    return {"about": spec.about, "color": spec.color, "fill": spec.fill}


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 4)


def gather(config: Config) -> dict[str, Any]:
    """Return the page's data, as JSON values.

    Raises:
        UserError: a result is missing or damaged; it names the stage to run.
    """
    gatherer = Gatherer(config)
    found = list(_places(config))
    matrices: dict[tuple[int, str], list[Any]] = {}
    with progress("browse", len(found), "layers") as bar:
        lenses = {seed: Lenses(seed) for seed in config.seeds}
        for place in found:
            columns = gatherer.place(place, lenses[place.seed])
            matrices.setdefault((place.seed, place.family), []).append(columns)
            bar.advance()
    _add_nearest(gatherer.rows, {key: hstack(parts, "csr") for key, parts in matrices.items()})
    return gatherer.page()


def _places(config: Config) -> Iterator[_Place]:
    for seed in config.seeds:
        for family in config.families:
            unit = paths.cache(family, seed, SPLIT)
            concepts = recovered(config, family, seed)
            for layer, point in config.hookpoints_by_layer(family).items():
                size = read_json(unit / point / "config.json")["num_latents"]
                known = of_layer(config, family, seed, point, concepts)
                yield _Place(family, seed, layer, point, size, known)


def _add_nearest(rows: list[dict[str, Any]], matrices: dict[tuple[int, str], Any]) -> None:
    """Add to each latent the nearest latent (its row) of each other family and the cosine in
    thousandths; nothing where no token is shared."""
    start = {}
    begin = 0
    for key, matrix in matrices.items():
        start[key] = begin
        begin += matrix.shape[1]
    assert begin == len(rows)
    for row in rows:
        row["near"] = []
    for (own, own_PN), (other, other_PN) in combinations(matrices.items(), 2):
        if own[0] != other[0] or not (own_PN.shape[1] and other_PN.shape[1]):
            continue
        seen_from_own, seen_from_other = nearest.nearest(own_PN, other_PN)
        for here, there, found in (
            (start[own], start[other], seen_from_own),
            (start[other], start[own], seen_from_other),
        ):
            for place, (best, cosine) in enumerate(zip(found.best_N, found.cosine_N)):
                if cosine > 0:
                    pair = [there + int(best), round(1000 * float(cosine))]
                    rows[here + place]["near"].append(pair)
    for row in rows:
        row["near"].sort()
