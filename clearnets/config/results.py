"""Parameters of concept recovery and of the tables."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from clearnets.config.fields import (
    Count,
    Fraction,
    Frozen,
    NonNegativeFloat,
    Positive,
    PositiveFloat,
)
from clearnets.config.names import FamilyOrAll


class Concepts(Frozen):
    """Recovery of the corpus's concepts by single latents, all of them."""

    candidates: Positive
    """Latents that a family may choose from where families are compared: this many are drawn
    uniformly from all its latents, dead ones among them."""
    resamples: Positive
    """Draws of so many candidates."""
    seed: Count
    """Seed of the draws."""
    recovered: Fraction
    """A concept is recovered by a latent with at least this F1 on `concept_test`."""
    lexical: Fraction
    """A concept is lexical where a set of token ids, chosen on `concept_fit`, predicts it with at
    least this F1 on `concept_test`; the others are contextual."""
    split_gain: Fraction
    """A concept is split where a second latent of the layer, beside the first, raises F1 on
    `concept_fit` by at least this."""
    purity: Fraction
    """A latent is of a concept where at least this share of its firings on `concept_fit` are."""
    absorbed: Fraction
    """A concept is absorbed where its main latents miss at least this share of its positions on
    `concept_test` at which another latent of the concept fires."""
    named_from: Fraction
    """Explanations are asked to name a latent's concept where its F1 is at least this."""
    tolerance: Fraction
    """A rule predicts a concept as well as a latent where its F1 is lower by at most this."""


class Stability(Frozen):
    """Counterparts of latents in other runs: in coders of another seed on the same model, and in
    runs of all other training seeds."""

    reseeded: tuple[FamilyOrAll, ...]
    """Coders that are trained once more, of those that are compared; `[all]` means all that are
    trained layer by layer."""
    rows: Positive
    """Rows of `explain`, evenly spaced, on which activations are compared; all where there are
    fewer."""
    min_tokens: Positive
    """A latent is live where it is active at no fewer tokens of them; others are not counted."""
    shared: Fraction
    """A latent is shared where it and its counterpart correlate by at least this."""


class Planted(Frozen):
    """A dictionary that is known, on which measures of latents are tested."""

    seeds: Annotated[tuple[Count, ...], Field(min_length=2)]
    """Each is a world of its own."""
    features: Annotated[int, Field(ge=8, multiple_of=4)]
    """Directions of the dictionary, and latents of those that are measured."""
    dimensions: Positive
    """Of the activations."""
    active: PositiveFloat
    """Features that fire at a token, on average."""
    exponent: NonNegativeFloat
    """Of the power law of firing rates by rank."""
    noise: NonNegativeFloat
    """Standard deviation in each dimension; a feature has a strength of about one."""
    tokens: Positive
    """For choosing latents and thresholds, and as many again for measuring."""
    angle: Annotated[float, Field(gt=0, lt=90)]
    """By which the directions of the rotated dictionary are turned, in degrees."""
    steps: Count
    """Of training each kind of coder, 1,024 tokens each; 0 trains none."""


class Collate(Frozen):
    """Tables and their statistics."""

    resamples: Positive
    """Bootstrap resamples."""
    confidence: Annotated[float, Field(gt=0, lt=1)]
    """Level of the intervals."""
    min_ablation_cost: PositiveFloat
    """Layers whose mean-ablation costs less than this many nats are left out of the second
    kind of summary."""
    min_stratum: Positive
    """Latents that a stratum of firing rate must hold of both families to be compared."""
    margin: PositiveFloat
    """Balanced accuracies that differ by less than this count as equal: a control lies at chance
    where its interval lies within this of 0.5."""
    equivalence: PositiveFloat
    """Two families are equally clear where their difference is shown to be smaller than this, in
    balanced accuracy or another measure of scores: by two one-sided tests at 5 % each, its 90 %
    interval lies within. 0.02 is one more correct window among the 50 active ones of a latent and
    one among its 50 non-activating ones, and less than a tenth of the way from chance to the 0.74
    that SAEs of Gemma-2-9B reach (detection, Paulo et al. 2024). It was set after first results had
    been seen, so what lies near it shows little."""
    seed: Count
    """Seed of the bootstrap and of the matching."""
