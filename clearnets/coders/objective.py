"""The training objective of a coder.

sparsify's loss is fvu on a batch: the residual's sum of squares over the target's about its batch
mean. Its gradient touches k rows of encoder and decoder per token; sparsify adds them up by way of
an (N * k, D) tensor and also moves latents that were selected with value zero. Here the sparse
model's own kernels do it: the same gradient but for those zeros, which get none, in less time.

Shapes: N tokens, D width of the feedforward's input and output, k active latents per token.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from torch import Tensor

from clearnets.models import sparse_ops

if TYPE_CHECKING:
    from sparsify import SparseCoder


class Output(NamedTuple):
    """A coder's reconstruction, and how it came about."""

    output_ND: Tensor
    acts_Nk: Tensor
    """Activations ≥ 0; a zero is not active."""
    indices_Nk: Tensor


def reconstruct(coder: SparseCoder, x_ND: Tensor) -> Output:
    """What the coder makes of a batch, skip connection included; differentiable.

    Equals the `sae_out` of sparsify's forward.
    """
    assert coder.W_dec is not None
    # An SAE encodes x - b_dec, a transcoder x.
    read_ND = x_ND if coder.cfg.transcode else x_ND - coder.b_dec
    acts_Nk, indices_Nk = sparse_ops.encode(
        read_ND, coder.encoder.weight, coder.encoder.bias, k=coder.cfg.k, selection="topk"
    )
    output_ND = sparse_ops.decode(acts_Nk, indices_Nk, coder.W_dec) + coder.b_dec
    if coder.W_skip is not None:
        output_ND = output_ND + x_ND @ coder.W_skip.mT
    return Output(output_ND, acts_Nk, indices_Nk)


def squares(output_ND: Tensor, target_ND: Tensor) -> tuple[Tensor, Tensor]:
    """Sums of squares of the residual and of the target about its batch mean; fvu is their
    quotient."""
    residual = (target_ND - output_ND).pow(2).sum()
    total = (target_ND - target_ND.mean(0)).pow(2).sum()
    return residual, total
