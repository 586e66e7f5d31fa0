"""Compute the training loss of a coder (SAE or transcoder).

sparsify's loss is fvu on a batch: the residual's sum of squares over the target's about its batch
mean. Its gradient touches k rows of encoder and decoder per token; sparsify adds them up by way of
an (N * k, D) tensor and also moves latents that were selected with value zero. Here the sparse
model's own kernels do it: the same gradient but for those zeros, which get none, in less time.

Multi-TopK adds to the loss an eighth of the fvu of a wider reconstruction, by the 4 k largest
latents. sparsify (1.3.3) takes those from pre-activations that its backward pass ignores, so that
the encoder learns nothing from them, and leaves out the skip connection. Here both take part.

Shapes: N tokens, D width of the feedforward's input and output, k active latents per token.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from torch import Tensor

from clearnets.models import sparse_ops

if TYPE_CHECKING:
    from sparsify import SparseCoder


MULTI_TOPK = 4
"""How many times k latents make the wider reconstruction of Multi-TopK, as in sparsify."""
MULTI_TOPK_WEIGHT = 1 / 8
"""Weight of its fvu, as in sparsify."""


class Output(NamedTuple):
    """A coder's reconstruction, and how it came about."""

    output_ND: Tensor
    acts_Nk: Tensor
    """Activations ≥ 0; a zero is not active."""
    indices_Nk: Tensor


class Loss(NamedTuple):
    """What a step descends on, and what is reported of it."""

    value: Tensor
    residual: Tensor
    """The residual's sum of squares."""
    acts_Nk: Tensor
    indices_Nk: Tensor


def reconstruct(coder: SparseCoder, x_ND: Tensor) -> Output:
    """Return what the coder makes of a batch, skip connection included; differentiable.

    Equals the `sae_out` of sparsify's forward.
    """
    acts_Nk, indices_Nk = _encode(coder, x_ND, coder.cfg.k)
    return Output(_decode(coder, x_ND, acts_Nk, indices_Nk), acts_Nk, indices_Nk)


def reconstruct_twice(coder: SparseCoder, x_ND: Tensor) -> tuple[Output, Tensor]:
    """Return what `reconstruct` gives, and the reconstruction (N, D) by 4 k latents."""
    k = min(MULTI_TOPK * coder.cfg.k, coder.num_latents)
    # The k largest are among the 4 k largest: the dense product is made once.
    wide = _encode(coder, x_ND, k)
    acts_Nk, places_Nk = wide[0].topk(coder.cfg.k, dim=-1, sorted=False)
    indices_Nk = wide[1].gather(1, places_Nk)
    made = Output(_decode(coder, x_ND, acts_Nk, indices_Nk), acts_Nk, indices_Nk)
    return made, _decode(coder, x_ND, *wide)


def variation(target_ND: Tensor) -> Tensor:
    """Return the target's sum of squares about its batch mean; fvu is relative to it."""
    return (target_ND - target_ND.mean(0)).pow(2).sum()


def loss(coder: SparseCoder, x_ND: Tensor, target_ND: Tensor, total: Tensor) -> Loss:
    """Return the training loss: fvu, with Multi-TopK's share where the coder's `cfg` asks for it.

    Args:
        coder: reads `x_ND`.
        x_ND: a batch, or a piece of it: the losses of its pieces add up to that of the batch.
        target_ND: what to reconstruct.
        total: the `variation` of the whole batch.
    """
    if coder.cfg.multi_topk:
        made, wide_ND = reconstruct_twice(coder, x_ND)
        extra = MULTI_TOPK_WEIGHT * (target_ND - wide_ND).pow(2).sum() / total
    else:
        made, extra = reconstruct(coder, x_ND), None
    residual = (target_ND - made.output_ND).pow(2).sum()
    value = residual / total if extra is None else residual / total + extra
    return Loss(value, residual, made.acts_Nk, made.indices_Nk)


def _encode(coder: SparseCoder, x_ND: Tensor, k: int) -> tuple[Tensor, Tensor]:
    # An SAE encodes x - b_dec, a transcoder x.
    read_ND = x_ND if coder.cfg.transcode else x_ND - coder.b_dec
    return sparse_ops.encode(
        read_ND, coder.encoder.weight, coder.encoder.bias, k=k, selection="topk"
    )


def _decode(coder: SparseCoder, x_ND: Tensor, acts_NK: Tensor, indices_NK: Tensor) -> Tensor:
    assert coder.W_dec is not None
    output_ND = sparse_ops.decode(acts_NK, indices_NK, coder.W_dec) + coder.b_dec
    return output_ND if coder.W_skip is None else output_ND + x_ND @ coder.W_skip.mT
