"""Revive silent latents in training: their encoder bias rises step by step.

A latent that is never chosen gets no gradient. A rising bias has it chosen sooner or later, then
the loss takes over; dead latents become few, at no cost in time. After training nothing of it is
left but the bias.

Shapes: N tokens, L latents, K chosen ones per token.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass
class Silence:
    """For how long the latents of an encoder have been silent."""

    steps_L: Tensor
    """Steps since each latent was last active, int64; -1 where it was in the present one."""

    @classmethod
    def of(cls, bias_L: Tensor) -> Silence:
        """Begin with the latents of an encoder, none of them silent."""
        return cls(torch.zeros(len(bias_L), dtype=torch.int64, device=bias_L.device))

    def hear(self, active_NK: Tensor, indices_NK: Tensor) -> None:
        """Take which of the chosen latents are active."""
        self.steps_L[indices_NK[active_NK]] = -1

    @torch.no_grad()
    def end_step(
        self, bias_L: Tensor, optimizer: Any, *, bias_step: float | Tensor, silent_steps: int
    ) -> None:
        """Add `bias_step` to the biases of latents that have been silent for `silent_steps`.

        Schedule-free optimizers keep a second copy, from which the average is derived: it moves
        alike.
        """
        self.steps_L += 1
        raised_L = (self.steps_L >= silent_steps) * bias_step
        bias_L += raised_L
        if "z" in optimizer.state[bias_L]:
            optimizer.state[bias_L]["z"] += raised_L
