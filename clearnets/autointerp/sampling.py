"""Sampling of latents to explain, and of the windows for explaining and for scoring.

Under the protocol `held-out` the windows that score an explanation are from text that its explainer
never saw. Under `delphi` they are from the same text, and both are drawn as delphi draws them
(`clearnets.autointerp.delphi.sampler`): some of the active ones are the same. Non-activating
windows are never the same, as in delphi.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from clearnets import UserError
from clearnets.autointerp.delphi import sampler
from clearnets.autointerp.records import EXPLAINED
from clearnets.autointerp.rules.matcher import Text
from clearnets.config import Explain, NonActivating, Score
from clearnets.families import FAMILIES
from clearnets.latents import neighbours, window_embeddings
from clearnets.latents.examples import Activity, Examples, Grid, activations, choose, sample
from clearnets.latents.examples import centred as move
from clearnets.latents.store import LayerCache


def draw(num_latents: int, count: int, seed: int) -> list[int]:
    """Draw `count` latents, or all, uniformly without replacement; return them ascending."""
    return sorted(np.random.default_rng(seed).permutation(num_latents)[:count].tolist())


def status(found: Activity, windows: Grid, min_windows: int) -> str:
    """Return `explained` where a latent can be explained, or the reason why not."""
    if found.count == 0:
        return "dead"
    if len(found.active_A) < min_windows:
        return "too_rare"
    non_activating = len(windows) - len(found.active_A)
    return "too_frequent" if non_activating < min_windows else EXPLAINED


@dataclass(frozen=True)
class Negatives:
    """How non-activating windows of one layer and split are chosen.

    Attributes:
        kind: `explain.non_activating` or `score.non_activating`.
        weight_LD: of the layer's coder, where neighbours are near by their weights.
        vector_ND: embeddings of all windows, where windows are near in meaning.
    """

    kind: NonActivating
    weight_LD: np.ndarray | None = None
    vector_ND: np.ndarray | None = None

    @classmethod
    def load(
        cls, kind: NonActivating, inputs: Mapping[str, Path], hookpoint: str, split: str
    ) -> Negatives:
        """Read what the kind needs from a unit's inputs."""
        if kind == "similar":
            return cls(kind, vector_ND=window_embeddings.read(inputs["embed"], split))
        if kind in ("encoder-similarity", "decoder-similarity"):
            side = "encoder" if kind == "encoder-similarity" else "decoder"
            return cls(kind, weight_LD=neighbours.weights(inputs["coders"] / hookpoint, side))
        return cls(kind)

    def chosen(
        self,
        text: Text[Grid],
        cache: LayerCache,
        latent: int,
        found: Activity,
        *,
        trigger: str,
        active_W: np.ndarray,
        count: int,
    ) -> dict[str, np.ndarray]:
        """Return the windows that `clearnets.latents.examples.sample` prefers, as its arguments."""
        if self.kind == "trigger":
            return {"holds": text.holding(text.lexicon.id(trigger))}
        if self.kind == "random":
            return {}
        windows = text.windows
        if self.kind == "similar":
            assert self.vector_ND is not None
            other_W = found.silent(windows)
            return {"first": window_embeddings.nearest(self.vector_ND, active_W, other_W, count)}
        if self.kind == "co-occurrence":
            near_L = neighbours.jaccard(cache, latent, windows)
        else:
            assert self.weight_LD is not None
            near_L = neighbours.cosine(self.weight_LD, latent)
        near = neighbours.nearest(near_L, latent)
        return {"first": neighbours.windows_near(cache, near, found, windows, count)}


def centred(
    text: Text, cache: LayerCache, latent: int, examples: Examples
) -> tuple[Text, Examples]:
    """Return a sample with its active windows moved (`clearnets.latents.examples.centred`) so that
    the latent's strongest activation in each, the first of equal ones, stands in the middle.

    A moved window may show activations of neighbouring windows, even stronger ones. Non-activating
    windows are not moved. The text that is returned holds the windows of the sample only.
    """
    windows = text.windows.these(examples.window_W)
    act_WL = activations(cache, latent, windows, np.arange(len(windows)))
    active = slice(examples.num_active)
    moved = move(
        windows.these(np.arange(examples.num_active)),
        windows.start_N[active] + act_WL[active].argmax(axis=1),
    )
    start_W = np.concatenate([moved.start_N, windows.start_N[examples.num_active :]])
    windows = replace(windows, start_N=start_W)
    window_W = np.arange(len(windows))
    active_WL = activations(cache, latent, windows, window_W) > 0
    return Text(text.rows, windows), replace(examples, window_W=window_W, active_WL=active_WL)


def needed(kind: NonActivating, family: str, *, embed: Path, coders: Path) -> dict[str, Path]:
    """Return the inputs that a kind of non-activating windows needs in addition to the cache.

    Raises:
        UserError: the family has no coder whose weights could be compared.
    """
    if kind == "similar":
        return {"embed": embed}
    if kind not in ("encoder-similarity", "decoder-similarity"):
        return {}
    if not FAMILIES[family].is_coder:
        raise UserError(
            f"non_activating {kind} compares the weights of coders, which {family} does not have; "
            "choose co-occurrence"
        )
    return {"coders": coders}


def to_explain(
    text: Text[Grid],
    cache: LayerCache,
    latent: int,
    found: Activity,
    settings: Explain,
    *,
    trigger: str,
    negatives: Negatives,
    rng: np.random.Generator,
) -> Examples:
    """Return the windows that a latent's explainer sees."""
    how: dict[str, Any] = {
        "how": settings.train_type,
        "quantiles": settings.n_quantiles,
        "ratio_top": settings.ratio_top,
    }
    if settings.protocol == "delphi":
        active_W = sampler.train(found.strongest_first, settings.n_examples_train, **how)
    else:
        active_W = choose(found, settings.n_examples_train, **how, rng=rng)
    count = settings.n_non_activating
    wanted = negatives.chosen(
        text, cache, latent, found, trigger=trigger, active_W=active_W, count=count
    )
    return sample(found, text.windows, active_W=active_W, silent=count, **wanted, rng=rng)


def to_score(
    text: Text[Grid],
    cache: LayerCache,
    latent: int,
    found: Activity,
    settings: Score,
    *,
    trigger: str,
    negatives: Negatives,
    seen: Examples | None = None,
    rng: np.random.Generator,
) -> Examples:
    """Return the windows that a latent's explanation is scored on.

    Args:
        seen: under the protocol `delphi`, what the explainer saw of the same text.
    """
    count, others = settings.n_examples_test, settings.n_non_activating
    quantiles = settings.n_quantiles
    if seen is None:
        active_W = choose(found, count, quantiles=quantiles, rng=rng)
        avoid = {}
    else:
        active_W = sampler.test(found.strongest_first, count, quantiles=quantiles)
        avoid = {"avoid": seen.window_W[seen.num_active :]}
    wanted = negatives.chosen(
        text, cache, latent, found, trigger=trigger, active_W=active_W, count=2 * others
    )
    return sample(found, text.windows, active_W=active_W, silent=others, **wanted, **avoid, rng=rng)
