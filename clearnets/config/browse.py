"""Parameters of the feature browser."""

from __future__ import annotations

from clearnets.config.fields import Count, Frozen, Positive


class Browse(Frozen):
    """What the browser's page shows of each latent."""

    top: Positive
    """Windows of `explain` in which the latent is the most strongly active."""
    quantiles: Positive
    """Equal parts of its other active windows, by their strongest activation."""
    per_quantile: Positive
    """Windows drawn from each."""
    held_out: Positive
    """Active windows of `score` that a blind rating shows, and as many non-activating ones."""
    tokens: Positive
    """Tokens that the latent promotes the most in the model's output, and suppresses the most."""
    bins: Positive
    """Bins of the histogram of activations."""
    exchanges: Positive
    """Exchanges with a language model that are shown of each of its tasks, where there are any."""
    seed: Count
    """Seed of all draws."""
