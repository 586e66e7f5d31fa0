"""Activity of one latent: examples by strength, histogram, non-activating windows.

Shape suffixes: A active windows, L positions of a window, E active positions.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from clearnets.autointerp.rules.language import parse
from clearnets.autointerp.rules.matcher import Text
from clearnets.config import Browse
from clearnets.latents.examples import Activity, Grid, activations, activity
from clearnets.latents.store import LayerCache

# The part of the examples that hold the strongest activations; quantiles count from 1.
TOP = 0


@dataclass(frozen=True)
class Example:
    """A window in which a latent is active.

    Attributes:
        window: its number in the split.
        quantile: TOP, or which part of the other active windows it is from, 1 the strongest.
        act_L: the activations, zero where the latent is not active.
        fires_L: where its explanation fires; None where that is not known.
    """

    window: int
    quantile: int
    act_L: np.ndarray
    fires_L: np.ndarray | None = None


@dataclass(frozen=True)
class Activations:
    """Activity of one latent on one split.

    Attributes:
        count: counted positions at which it is active.
        rate: the share of all counted positions that they are.
        windows: the share of windows in which it is active.
        largest: its largest activation, 0 where it is never active.
        histogram: activations by strength, in equal bins from 0 to the largest.
        examples: windows in which it is active, the strongest first.
    """

    count: int
    rate: float
    windows: float
    largest: float
    histogram: list[int]
    examples: list[Example]


def see(
    cache: LayerCache,
    latent: int,
    text: Text[Grid],
    settings: Browse,
    rng: np.random.Generator,
    *,
    rule: str | None,
) -> Activations:
    """Return the activity of `latent` on a split, with examples of all its strengths.

    Args:
        rule: a sentence of the language of rules, of which the examples say where it fires.
    """
    windows = text.windows
    found = activity(cache, latent, windows)
    act_E = _counted(cache, latent, windows)
    largest = float(act_E.max(initial=0))
    histogram, _ = np.histogram(act_E, settings.bins, (0, largest or 1))
    examples = _examples(cache, latent, windows, _by_strength(found, settings, rng))
    if rule is not None and examples:
        examples = where_fires(examples, text, rule)
    return Activations(
        count=found.count,
        rate=found.count / max(windows.tokens, 1),
        windows=len(found.active_A) / max(len(windows), 1),
        largest=largest,
        histogram=histogram.tolist(),
        examples=examples,
    )


def held_out(
    cache: LayerCache, latent: int, windows: Grid, count: int, rng: np.random.Generator
) -> tuple[list[Example], list[int]]:
    """Draw up to `count` active windows of a split, uniformly, and as many non-activating ones."""
    found = activity(cache, latent, windows)
    active = rng.permutation(found.active_A)[:count]
    non_activating = rng.permutation(found.silent(windows))[:count]
    drawn = ((int(window), TOP) for window in active)
    return _examples(cache, latent, windows, drawn), non_activating.tolist()


def where_fires(examples: Sequence[Example], text: Text[Grid], explanation: str) -> list[Example]:
    """Return examples with the positions at which a sentence of the language of rules fires."""
    window_W = np.array([example.window for example in examples], dtype=np.int64)
    bits_WB = text.fires(parse(explanation), window_W)
    fires_WL = np.unpackbits(bits_WB.view(np.uint8), axis=-1, count=text.windows.size)
    return [replace(one, fires_L=fires_L > 0) for one, fires_L in zip(examples, fires_WL)]


def _counted(cache: LayerCache, latent: int, windows: Grid) -> np.ndarray:
    span = cache.entries(latent)
    counted_E = windows.counted_RS[cache.row[span], cache.position[span]]
    act_E = cache.act[span][counted_E]
    return act_E[act_E > 0]


def _by_strength(
    found: Activity, settings: Browse, rng: np.random.Generator
) -> Iterator[tuple[int, int]]:
    """Yield windows with their quantiles: the strongest, and some of each part of the others."""
    top, others = np.split(found.strongest_first, [settings.top])
    yield from ((int(window), TOP) for window in top)
    place_A = np.arange(len(others))
    for number, part_A in enumerate(np.array_split(place_A, settings.quantiles), 1):
        for place in np.sort(rng.permutation(part_A)[: settings.per_quantile]):
            yield int(others[place]), number


def _examples(
    cache: LayerCache, latent: int, windows: Grid, drawn: Iterator[tuple[int, int]]
) -> list[Example]:
    chosen = list(drawn)
    window_W = np.array([window for window, _ in chosen], dtype=np.int64)
    if not len(window_W):
        return []
    act_WL = activations(cache, latent, windows, window_W)
    return [Example(*names, act_L) for names, act_L in zip(chosen, act_WL)]
