"""Compute the training loss of a coder (SAE or transcoder), and its gradient.

sparsify's loss is fvu on a batch: the residual's sum of squares over the target's about its batch
mean. Its gradient touches k rows of encoder and decoder per token; sparsify adds them up by way of
an (N * k, D) tensor and also moves latents that were selected with value zero. Here the sparse
model's own kernels do it, without autograd: the same gradient but for those zeros, which get none,
in less time. JumpReLU's and Matryoshka's losses take autograd.

Multi-TopK adds to the loss an eighth of the fvu of a wider reconstruction, by the 4 k largest
latents. sparsify (1.3.3) takes those from pre-activations that its backward pass ignores, so that
the encoder learns nothing from them, and leaves out the skip connection. Here both take part.

Shapes: N tokens, D width of the feedforward's input and output, L latents, k active ones per token.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from clearnets.coders import selection
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


def forward(coder: SparseCoder, x_ND: Tensor) -> Output:
    """Return what a trained coder makes of a batch, skip connection included; for autograd, too.

    Equals the `sae_out` of sparsify's forward for the selections that it knows.
    """
    codes = selection.choose_trained(coder, _read(coder, x_ND))
    return Output(decode(coder, x_ND, *codes), *codes)


def encode(coder: SparseCoder, x_ND: Tensor) -> tuple[Tensor, Tensor]:
    """Return values ≥ 0 and indices (N, K) of the latents that are chosen in training.

    Autograd goes through it and `decode`, for every selection.
    """
    return selection.choose(coder, _read(coder, x_ND))


def decode(coder: SparseCoder, x_ND: Tensor, acts_NK: Tensor, indices_NK: Tensor) -> Tensor:
    """Return the output for some latents, skip connection of `x_ND` included, likewise."""
    assert coder.W_dec is not None
    output_ND = sparse_ops.decode(acts_NK, indices_NK, coder.W_dec) + coder.b_dec
    return output_ND if coder.W_skip is None else output_ND + x_ND @ coder.W_skip.mT


reconstruct = torch.no_grad()(forward)
"""`forward` without autograd."""


def variation(target_ND: Tensor) -> Tensor:
    """Return the target's sum of squares about its batch mean; fvu is relative to it."""
    return (target_ND - target_ND.mean(0)).pow(2).sum()


@torch.no_grad()
def add_gradient(
    coder: SparseCoder,
    x_ND: Tensor,
    target_ND: Tensor,
    total: Tensor,
    *,
    share: float = 1.0,
    part: float = 1.0,
) -> Loss:
    """Add the gradient of the training loss to the `grad` of the coder's parameters.

    The loss is fvu, with Multi-TopK's part where the coder's `cfg` asks for it, and what JumpReLU
    and Matryoshka add (see `selection`), which Multi-TopK does not change.

    Args:
        coder: reads `x_ND`.
        x_ND: a batch, or a piece of it: the losses of its pieces add up to that of the batch.
        target_ND: what to reconstruct.
        total: the `variation` of the whole batch.
        share: factor of the gradient, not of the loss that is returned.
        part: share of the batch's tokens that are in this piece.
    """
    if coder.cfg.activation in (selection.JUMP, "matryoshka"):
        return _add_by_autograd(coder, x_ND, target_ND, total, share, part)
    read_ND, k = _read(coder, x_ND), coder.cfg.k
    wide = None
    if coder.cfg.multi_topk:
        weight_LD, bias_L = coder.encoder.weight, coder.encoder.bias
        most = min(MULTI_TOPK * k, coder.num_latents)
        wide = sparse_ops.encode(read_ND, weight_LD, bias_L, k=most, selection="topk")
    if wide and coder.cfg.activation == "topk":
        # The k largest are among the 4 k largest: the dense product is made once.
        acts_Nk, places_Nk = wide[0].topk(k, dim=-1, sorted=False)
        codes = acts_Nk, wide[1].gather(1, places_Nk)
    else:
        codes = selection.choose(coder, read_ND)
    residual = _descend(coder, x_ND, read_ND, codes, target_ND, share / total)
    value = residual / total
    if wide:
        scale = share * MULTI_TOPK_WEIGHT / total
        wider = _descend(coder, x_ND, read_ND, wide, target_ND, scale)
        value = value + MULTI_TOPK_WEIGHT * wider / total
    return Loss(value, residual, *codes)


@torch.enable_grad()
def _add_by_autograd(
    coder: SparseCoder, x_ND: Tensor, target_ND: Tensor, total: Tensor, share: float, part: float
) -> Loss:
    """Do the same for the selections whose loss is more than fvu."""
    extra: Tensor | float = 0.0
    if coder.cfg.activation == selection.JUMP:
        acts_NK, l0, indices_NK = selection.jump(coder, _read(coder, x_ND))
        extra = part * selection.sparsity_loss(l0, coder.cfg.k)
    else:
        acts_NK, indices_NK = encode(coder, x_ND)
    sizes = selection.prefixes(coder)
    residuals = [
        (decode(coder, x_ND, acts_NK * (indices_NK < size), indices_NK) - target_ND).pow(2).sum()
        for size in sizes
    ]
    value = torch.stack(residuals).mean() / total + extra
    (share * value).backward()
    return Loss(value.detach(), residuals[-1].detach(), acts_NK.detach(), indices_NK)


def _descend(
    coder: SparseCoder,
    x_ND: Tensor,
    read_ND: Tensor,
    codes: tuple[Tensor, Tensor],
    target_ND: Tensor,
    scale: Tensor,
) -> Tensor:
    """Add the gradient of `scale` times the residual's sum of squares; return that sum."""
    W_dec_LD, W_enc_LD, (acts_NK, indices_NK) = coder.W_dec, coder.encoder.weight, codes
    assert W_dec_LD is not None
    error_ND = decode(coder, x_ND, *codes) - target_ND
    grad_ND = error_ND * (2 * scale)
    by_latent = sparse_ops.ByLatent(indices_NK, coder.num_latents)
    grad_W_dec_LD, grad_acts_NK = by_latent.products(acts_NK, grad_ND, W_dec_LD)
    if grad_acts_NK is None:
        grad_acts_NK = sparse_ops.row_products(grad_ND, W_dec_LD, indices_NK)
    grad_acts_NK = grad_acts_NK * (acts_NK > 0)
    grad_b_dec_D = grad_ND.sum(0)
    if not coder.cfg.transcode:
        grad_b_dec_D -= sparse_ops.bag(grad_acts_NK, indices_NK, W_enc_LD).sum(0)
    _add(W_dec_LD, grad_W_dec_LD)
    _add(W_enc_LD, by_latent.products(grad_acts_NK, read_ND, W_enc_LD)[0])
    _add(coder.encoder.bias, by_latent.sums(grad_acts_NK))
    _add(coder.b_dec, grad_b_dec_D)
    if coder.W_skip is not None:
        _add(coder.W_skip, (grad_ND.mT @ x_ND).to(grad_ND.dtype))
    return error_ND.pow(2).sum()


def _add(parameter: Tensor, gradient: Tensor) -> None:
    if not parameter.requires_grad:  # Frozen.
        return
    parameter.grad = gradient if parameter.grad is None else parameter.grad.add_(gradient)


def _read(coder: SparseCoder, x_ND: Tensor) -> Tensor:
    """Return what the encoder reads: an SAE x - b_dec, a transcoder x."""
    return x_ND if coder.cfg.transcode else x_ND - coder.b_dec
