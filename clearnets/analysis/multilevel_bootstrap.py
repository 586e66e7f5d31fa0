"""Bootstrap intervals over layers and over training seeds, for results that are nested in these.

Results are nested: a training seed gives a model, a model has layers, a layer has latents, of which
some were drawn. What is drawn anew decides what an interval speaks for:

| level | drawn with replacement | speaks for |
|---|---|---|
| latents | latents, within each seed and layer | these trained models alone |
| layers | layers, the same ones in every model and family, each with all its latents | these trained models, had they other layers such as theirs |
| seeds | training seeds, each with all its models, layers and latents | models that are trained like these |

A unit that is drawn brings all that lies below it as it is. Its mean already carries the noise of
what lies below; to draw that again, too, would count the noise twice (Davison and Hinkley 1997,
section 3.8), and the intervals would hold the truth more often than they say, which a test shows.
Layers are crossed with seeds, for every model has the same ones: a layer that is drawn is drawn in
all models. The two sides of a contrast share models and layers, so they are drawn together.

Seeds and layers are few. The bootstrap distribution of the mean of n units is too narrow by
sqrt((n - 1) / n) and does not know how uncertain its own width is, and no percentile of it lies
beyond the most extreme unit. So these intervals are the value and Student's t with n - 1 degrees of
freedom times the corrected standard deviation of the draws, which is the usual t interval where all
units weigh alike.

Shape suffixes: N latents, U units of a level, R resamples, B bins of firing rate.
"""  # noqa: E501  # A table.

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from scipy.special import stdtrit

from clearnets.analysis import statistics as stats
from clearnets.analysis.samples import Sample
from clearnets.config import Config
from clearnets.families import NO_LAYER

UPPER = ("layers", "seeds")


@dataclass(frozen=True)
class Drawn:
    """How often each unit of a level was drawn in each resample."""

    units_U: stats.Ints
    counts_RU: stats.Ints
    level: str

    def sums(self, sample: Sample, values_NB: stats.Floats) -> stats.Floats:
        """Return sums (R, B) of values over the latents of the drawn units."""
        column_N = getattr(sample, self.level)
        sums_UB = np.zeros((len(self.units_U), values_NB.shape[1]))
        fixed = ~np.isin(column_N, self.units_U)
        np.add.at(sums_UB, np.searchsorted(self.units_U, column_N[~fixed]), values_NB[~fixed])
        # Latents that belong to no layer stay as they are.
        return self.counts_RU @ sums_UB + values_NB[fixed].sum(axis=0)


def draw(level: str, *samples: Sample, resamples: int, rng: np.random.Generator) -> Drawn:
    """Draw as many units as there are, with replacement, from those of all samples together."""
    every = np.concatenate([getattr(sample, level) for sample in samples])
    units_U = np.unique(every[every != NO_LAYER])
    size = len(units_U)
    # Latents of tokens have no layer.
    none = np.zeros((resamples, 0), np.int64)
    counts_RU = rng.multinomial(size, np.full(size, 1 / size), size=resamples) if size else none
    return Drawn(units_U, counts_RU, level)


def interval(
    value: float, draws_R: stats.Floats, units: int, *, confidence: float
) -> stats.Estimate:
    """Return `value` with Student's interval of `units` units; without one below two units.

    Resamples without any latent, which are nan, do not count.
    """
    draws_R = draws_R[np.isfinite(draws_R)]
    if units < 2 or not len(draws_R) or np.isnan(value):
        return stats.Estimate(value, np.nan, np.nan)
    error = draws_R.std() * np.sqrt(units / (units - 1))
    reach, tested = (
        float(stdtrit(units - 1, (1 + level) / 2) * error)
        for level in (confidence, stats.EQUIVALENCE)
    )
    ends = (value - tested, value + tested)
    return stats.Estimate(value, value - reach, value + reach, ends)


def mean_over(drawn: Drawn, sample: Sample) -> stats.Floats:
    """Return means (R,) over the latents of the drawn units; nan where these hold none."""
    both_N2 = np.stack([sample.value, np.ones(len(sample))], axis=1)
    total_R, count_R = drawn.sums(sample, both_N2).T
    return _ratio(total_R, count_R)


def difference_over(drawn: Drawn, a: Sample, b: Sample) -> stats.Floats:
    """Return differences (R,) of the two means, on the same drawn units."""
    return mean_over(drawn, a) - mean_over(drawn, b)


def rate_matched_over(drawn: Drawn, a: Sample, b: Sample, *, min_stratum: int) -> stats.Floats:
    """Return differences (R,) within bins of firing rate, as `stats.rate_matched`, on the drawn
    units.

    The bins are those that hold enough latents of both families before anything is drawn.
    """
    bins = [stats.rate_bin(sample.rate, stats.STRATA_PER_DECADE) for sample in (a, b)]
    used_B = [
        index
        for index in np.intersect1d(bins[0], bins[1])
        if min((one == index).sum() for one in bins) >= min_stratum
    ]
    total_RB, count_RB = [], []
    for sample, bin_N in zip((a, b), bins):
        inside_NB = (bin_N[:, None] == np.array(used_B)).astype(np.float64)
        total_RB.append(drawn.sums(sample, sample.value[:, None] * inside_NB))
        count_RB.append(drawn.sums(sample, inside_NB))
    means_RB = [_ratio(total, count) for total, count in zip(total_RB, count_RB)]
    weight_RB = _ratio(count_RB[0] * count_RB[1], count_RB[0] + count_RB[1])
    # A bin that a resample leaves empty has no weight and no mean.
    difference_RB = np.where(weight_RB > 0, means_RB[0] - means_RB[1], 0)
    weight_RB = np.where(weight_RB > 0, weight_RB, 0)
    return _ratio((weight_RB * difference_RB).sum(axis=1), weight_RB.sum(axis=1))


def intervals(
    value: float,
    statistic: Callable[[Drawn], stats.Floats],
    samples: tuple[Sample, ...],
    *,
    resamples: int,
    confidence: float,
    rng: np.random.Generator,
) -> dict[str, stats.Estimate]:
    """Return `value` with its interval over the units of each level above the latents."""
    found = {}
    for level in UPPER:
        drawn = draw(level, *samples, resamples=resamples, rng=rng)
        # Units that hold latents of every sample; of one without layers, those of the others.
        shared = len(drawn.units_U)
        for sample in samples:
            own = np.unique(getattr(sample, level))
            if (own != NO_LAYER).any() or not len(own):
                shared = min(shared, len(own))
        draws_R = statistic(drawn) if shared > 1 else np.zeros(0)
        found[level] = interval(value, draws_R, shared, confidence=confidence)
    return found


def columns(
    found: Mapping[str, stats.Estimate], config: Config, *, enough: bool
) -> dict[str, float]:
    """Return `low_layers`, `high_layers` and, of several training seeds, `low_seeds`, `high_seeds`;
    nan where there are too few latents for an interval."""
    cells = {}
    for level in levels(config):
        ends = (found[level].low, found[level].high) if enough else (np.nan, np.nan)
        cells |= dict(zip((f"low_{level}", f"high_{level}"), ends))
    return cells


def levels(config: Config) -> tuple[str, ...]:
    """Return the levels above the latents: no seeds where there is only one."""
    return UPPER if len(config.seeds) > 1 else UPPER[:1]


def _ratio(above: stats.Floats, below: stats.Floats) -> stats.Floats:
    with np.errstate(invalid="ignore", divide="ignore"):
        return above / below
