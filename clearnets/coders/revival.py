"""Revive silent latents of a coder in training: their encoder bias rises step by step.

A latent that is never chosen gets no gradient. A rising bias has it chosen sooner or later, then
the loss takes over; dead latents become few, at no cost in time. After training nothing of it is
left but the bias.

Shapes: N tokens, D width of what the encoder reads, L latents, K chosen ones per token.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

if TYPE_CHECKING:
    from sparsify import SparseCoder


@dataclass
class Silence:
    """For how long the latents of a coder have been silent."""

    spread: Tensor
    """The unit of the bias: standard deviation of what the encoder read in the first batch."""
    steps_L: Tensor
    """Steps since each latent was active."""

    @classmethod
    def new(cls, coder: SparseCoder, x_ND: Tensor) -> Silence:
        """Begin, with what the coder reads in its first batch."""
        steps_L = torch.zeros(coder.num_latents, dtype=torch.int32, device=coder.device)
        return cls((x_ND - x_ND.mean(0)).pow(2).mean().sqrt(), steps_L)

    def hear(self, acts_NK: Tensor, indices_NK: Tensor) -> None:
        """Count the latents of a batch as active in this step."""
        self.steps_L[indices_NK[acts_NK > 0]] = -1

    @torch.no_grad()
    def end_step(
        self, coder: SparseCoder, optimizer: Any, *, bias_step: float, silent_steps: int
    ) -> None:
        """Raise the biases of silent latents by `bias_step` times the spread.

        Schedule-free optimizers keep a second copy, from which the average is derived: it moves
        alike.
        """
        self.steps_L += 1
        raised_L = (self.steps_L >= silent_steps) * (bias_step * self.spread)
        bias_L = coder.encoder.bias
        bias_L += raised_L
        if "z" in optimizer.state[bias_L]:
            optimizer.state[bias_L]["z"] += raised_L
