"""A coder at a generic point, a batch, and its gradients, in double precision."""

from __future__ import annotations

import torch

from clearnets.coders.library import new_coder
from clearnets.families import FAMILIES

D, L, K, N = 12, 40, 4, 50


def make(family: str, seed: int = 0):
    """A coder in double precision at a generic point, and a batch."""
    generator = torch.Generator().manual_seed(seed)
    coder = new_coder(
        "layers.0.mlp", **FAMILIES[family].coder_kind, d_in=D, num_latents=L, k=K, seed=0
    ).double()
    with torch.no_grad():
        for parameter in coder.parameters():
            parameter += 0.3 * torch.randn(parameter.shape, generator=generator).double()
    x_ND = torch.randn(N, D, generator=generator, dtype=torch.float64)
    y_ND = torch.randn(N, D, generator=generator, dtype=torch.float64) + x_ND.roll(1, dims=1)
    return coder, x_ND, x_ND if family == "sae" else y_ND


def gradients(coder) -> dict[str, torch.Tensor]:
    found = {name: p.grad.clone() for name, p in coder.named_parameters()}
    coder.zero_grad()
    return found
