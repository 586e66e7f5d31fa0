"""Parameters of the coders and of the cache of activations."""

from __future__ import annotations

from typing import Literal

from clearnets.config.fields import (
    Count,
    External,
    Frozen,
    NonNegativeFloat,
    Positive,
    PositiveFloat,
    Precision,
)
from clearnets.config.names import Family


class Existing(External):
    """Coders that others trained: a folder per hookpoint in sparsify's format."""


class Coders(Frozen):
    """Training of SAEs and transcoders with sparsify. Their width and k are the model's."""

    existing: dict[Family, Existing]
    """By family, coders that take the place of trained ones, with a width and k of their own."""
    tokens: Positive
    """Training tokens, from the train split."""
    batch_size: Positive
    """Rows per forward pass, as in sparsify: a step has grad_acc_steps times as many."""
    grad_acc_steps: Positive
    """Batches per step; the loss is the mean of their fvu."""
    micro_acc_steps: Positive
    """Pieces that a batch's activations are cut into, to save memory. The fvu stays that of the
    batch, so that only rounding changes."""
    multi_topk: bool
    """Add an eighth of the fvu with 4 k latents to the loss. Here it reaches the encoder, which
    sparsify's own does not (1.3.3). Coders of all layers that are trained together do without."""
    precision: Precision
    """Of the coders' products. Weights, their updates, fvu and the model they read are float32."""
    optimizer: Literal["signum", "adam"]
    """As in sparsify, whose muon is left out: it does not resume to the same bits."""
    learning_rate: PositiveFloat | dict[Family, PositiveFloat]
    """Peak rate, of all coders or by trained family; it decays linearly to zero, as in sparsify."""
    warmup_steps: Count
    """Steps over which the learning rate rises from zero."""
    bias_step: NonNegativeFloat
    """What revives silent latents: after each step this is added to their encoder bias, times the
    rate over its peak, times the spread of what the encoder reads. 0 adds nothing."""
    silent_steps: Positive
    """Steps without an activation from which a latent is silent."""
    end_to_end_fvu: NonNegativeFloat
    """Of coders trained end to end, the weight of the layers' mean fvu beside the divergence in
    nats. The fvu is from the clean model's outputs. Without it (0) coders found other directions of
    an fvu about 1, and spliced losses were higher after equally many tokens."""

    def rate(self, family: str) -> float:
        """Return a family's peak learning rate; 0 where a mapping names none (untrained ones)."""
        rate = self.learning_rate
        if not isinstance(rate, dict):
            return rate
        return {str(name): value for name, value in rate.items()}.get(family, 0.0)


class Cache(Frozen):
    """Caching of latent activations."""

    batch_size: Positive
    """Rows per forward pass; one shard of the cache on disk while it is being made."""
    latent_splits: Positive
    """Files per hookpoint, each for a range of latents (delphi's n_splits)."""
