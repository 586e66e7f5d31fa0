"""The page's data, from the artifacts: text, drawn latents, their nearest latents in other
families, circuits.

The page is columns: one list per property, with an entry for each latent, so that ten thousand
latents are a few megabytes. Windows and tokens are written once and named by number.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
from scipy.sparse import hstack

from clearnets.autointerp.explained_layer import ExplainedLayer
from clearnets.autointerp.sampling import Negatives, needed
from clearnets.autointerp.texts import open_texts
from clearnets.browser import findings, graphs, nearest
from clearnets.browser.activity import Example, held_out, see
from clearnets.browser.findings import (
    REASONS,
    Beside,
    Effect,
    Known,
    Simulated,
    Transcripts,
    of_layer,
    scorers,
)
from clearnets.config import Config, Family
from clearnets.data.tokens import open_tokens
from clearnets.families import FAMILIES
from clearnets.latents.lens import Lenses, extremes
from clearnets.latents.store import LayerCache, load_layer
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
    named = findings.inputs(config, SPLIT, HELD_OUT)
    for seed in config.seeds:
        named[f"match/seed-{seed}"] = paths.match(seed)
        named |= {f"train/{mlp}/seed-{seed}": paths.train(mlp, seed) for mlp in config.models}
        named |= {
            f"coders/{family}/seed-{seed}": paths.coders(family, seed)
            for family in config.coder_families
        }
    kind = config.explain.non_activating
    similar = {"embed": paths.embed()} if kind == "similar" else {}
    return named | similar | graphs.inputs(config)


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
        self._texts = {split: open_texts(split) for split in (SPLIT, HELD_OUT)}
        self._cut = {split: texts.of(config.explain.window) for split, texts in self._texts.items()}
        self._strings = store.strings()
        # What stands for tokens without text: nothing, or a mark between documents.
        self._special = {store.pad: "", store.bos: "", store.eos: " ¶"}
        self._windows = {split: _Numbers() for split in self._texts}
        self._tokens, self._concepts = _Numbers(), _Numbers()
        self._scorers = scorers(config)
        self.rows: list[dict[str, Any]] = []
        self.coverage: list[dict[str, Any]] = []
        self._graphs = graphs.read(config)
        self._in_circuits = graphs.places(self._graphs)
        self._said: dict[graphs.Place, str | None] = {}

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
            shown, exchanges = transcripts.of(known.explanation, self.settings.exchanges)
            self.rows.append(
                {
                    "family": list(self.config.families).index(place.family),
                    "seed": place.seed,
                    "layer": place.layer,
                    "latent": latent,
                    **self._found(known),
                    **self._activity(names, latent, known.rule(self.config), caches),
                    "tokens": self._promoted(None if logit_LV is None else logit_LV[latent]),
                    "exchanges": exchanges,
                    "shown": [[e.task, e.model, e.messages, e.reply] for e in shown],
                }
            )
        self._cover(place)
        self._explain_others(place, caches[SPLIT])
        return nearest.columns(
            caches[SPLIT], list(place.known), self._cut[SPLIT].windows.counted_RS
        )

    def _found(self, known: Known) -> dict[str, Any]:
        """Return the columns of what the stages found out about a latent."""
        concept = known.concept
        return {
            "status": known.status,
            "explanation": known.explanation,
            "trigger": known.trigger,
            "scores": [_rounded(known.scores.get(name)) for name in self._scorers],
            "effect": _effect(known.effect),
            "simulated": _simulated(known.simulated),
            "concept": self._concepts(concept[0]) if concept else None,
            "f1": _rounded(concept[1]) if concept else None,
            "mcc": _rounded(concept[2]) if concept else None,
        }

    def _activity(
        self,
        names: tuple[str, int, str],
        latent: int,
        rule: str | None,
        caches: Mapping[str, LayerCache],
    ) -> dict[str, Any]:
        """Return the columns of where a latent is active, and its explanation fires."""
        rng = np.random.default_rng(seed_for(self.settings.seed, "browse", *names, latent))
        seen = see(caches[SPLIT], latent, self._cut[SPLIT], self.settings, rng, rule=rule)
        windows, count = self._cut[HELD_OUT].windows, self.settings.held_out
        active, non_activating = held_out(caches[HELD_OUT], latent, windows, count, rng)
        return {
            "count": seen.count,
            "rate": float(f"{seen.rate:.4g}"),
            "windows": float(f"{seen.windows:.4g}"),
            "largest": float(f"{seen.largest:.4g}"),
            "histogram": seen.histogram,
            "examples": self._examples(SPLIT, seen.examples, seen.largest),
            "fires": [
                None if e.fires_L is None else np.flatnonzero(e.fires_L).tolist()
                for e in seen.examples
            ],
            "active": self._examples(
                HELD_OUT, active, max((e.act_L.max() for e in active), default=0)
            ),
            "silent": [self._windows[HELD_OUT](window) for window in non_activating],
        }

    def _explain_others(self, place: _Place, cache: LayerCache) -> None:
        """Find sentences, by the rules, for latents of circuits that were not drawn."""
        where = (place.family, place.seed, place.layer)
        wanted = [
            found
            for found in self._in_circuits
            if found[:3] == where and found.latent not in place.known
        ]
        if not wanted:
            return
        names, settings = (place.family, place.point, place.seed), self.config.explain
        coders = paths.coders(place.family, place.seed)
        kind = settings.non_activating
        read = needed(kind, place.family, embed=paths.embed(), coders=coders)
        negatives = Negatives.load(kind, read, place.point, SPLIT)
        layer = ExplainedLayer(names, settings, self._cut[SPLIT], cache, negatives, [])
        self._said |= {found: layer.explain(found.latent)["explanation"] for found in wanted}

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
        token_NL = self._cut[split].windows.cut(self._texts[split].tokens_RS)
        return [
            [self._tokens(int(token)) for token in token_NL[window]]
            for window in self._windows[split].known
        ]

    def _numbers(self) -> dict[graphs.Place, int]:
        """Return the row of each drawn latent."""
        families = self.config.families
        return {
            graphs.Place(families[row["family"]], row["seed"], row["layer"], row["latent"]): number
            for number, row in enumerate(self.rows)
        }

    def page(self) -> dict[str, Any]:
        """Return the page's data, once every place has been added."""
        texts = {split: self.text(split) for split in self._texts}
        return {
            "experiment": self.config.experiment,
            "families": list(self.config.families),
            "specs": {family: family_spec(family) for family in self.config.families},
            "reasons": REASONS,
            "seeds": list(self.config.seeds),
            "layers": list(self.config.model.layers),
            "scorers": self._scorers,
            "chance": [CHANCE.get(name) for name in self._scorers],
            "concepts": list(self._concepts.known),
            "quantiles": self.settings.quantiles,
            "levels": LEVELS,
            "tokens": [self._strings[token] for token in self._tokens.known],
            "special": [self._special.get(token) for token in self._tokens.known],
            "text": texts,
            "coverage": self.coverage,
            "circuits": graphs.page(
                self._graphs, list(self.config.families), self._numbers(), self._said
            ),
            "latents": {key: [row[key] for row in self.rows] for key in self.rows[0]}
            if self.rows
            else {},
        }


def family_spec(family: str) -> dict[str, str]:
    """Return what the page shows of a row of the table of families."""
    spec = FAMILIES[family]
    return {"about": spec.about, "color": spec.color, "fill": spec.fill}


def _effect(effect: Effect | None) -> list[Any] | None:
    return effect and [effect.sentence, _rounded(effect.auroc), float(f"{effect.divergence:.3g}")]


def _simulated(simulated: Simulated | None) -> list[float | None] | None:
    if simulated is None:
        return None
    levels = [float(f"{level:.3g}") for level in (simulated.on, simulated.off)]
    return [*levels, _rounded(simulated.r2)]


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
            beside = Beside.read(config, family, seed)
            for layer, point in config.hookpoints_by_layer(family).items():
                size = read_json(unit / point / "config.json")["num_latents"]
                known = of_layer(config, family, seed, point, beside)
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
