"""Choose the active latents of a coder: top-k, GroupMax, BatchTopK, JumpReLU or Matryoshka.

A coder's `cfg.activation` names its selection; sparsify itself knows the first two.

- BatchTopK (Bussmann et al. 2024) trains with the N * k largest activations of a batch. A moving
  average of the smallest of them is its threshold afterwards, so that l0 is k on average.
- JumpReLU (Rajamanoharan et al. 2024) learns a threshold per latent, by straight-through gradients
  with a rectangular kernel. The loss holds l0 at k by (l0 / k - 1)², as in SAEBench. The kernel's
  width is a share of the threshold, whose logarithm is what is learned, so that nothing depends on
  the scale of activations.
- Matryoshka (Bussmann et al. 2025) chooses as BatchTopK; the loss is the mean of the fvus of
  reconstructions by the first 1/16, 1/8, 1/4, 1/2 of the latents and by all.

Shapes: N tokens, D width of what the encoder reads, L latents, K chosen ones of a token.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import Parameter
from torch.nn import functional as F

from clearnets.models import sparse_ops

if TYPE_CHECKING:
    from sparsify import SparseCoder

BATCH = ("batchtopk", "matryoshka")
"""Selections by a batch in training and by one threshold afterwards."""
JUMP = "jumprelu"
PREFIXES = (16, 8, 4, 2, 1)
"""Parts of Matryoshka's dictionary that reconstruct by themselves: its first 1/16, ... and all."""
_DECAY = 0.95
"""Of the moving average of a batch's threshold, per batch."""
_WIDTH = 0.5
"""Of JumpReLU's kernel, as a share of the threshold."""
_SPARSITY = 1.0
"""Weight of JumpReLU's (l0 / k - 1)² beside fvu."""


def threshold(coder: SparseCoder) -> Tensor | None:
    """Return what an activation has to exceed after training, one for all or (L,), if anything."""
    if hasattr(coder, "log_threshold"):
        return coder.log_threshold.detach().exp()  # pyright: ignore
    return getattr(coder, "threshold", None)


@torch.no_grad()
def start(coder: SparseCoder, read_ND: Tensor) -> None:
    """Give a new coder the threshold that k latents per token of its first batch exceed."""
    if coder.cfg.activation not in (*BATCH, JUMP):
        return
    acts_NK, _ = _encode(coder, read_ND, "batchtopk")
    least = acts_NK[acts_NK > 0].min()
    if coder.cfg.activation == JUMP:
        coder.log_threshold.fill_(least.log())  # pyright: ignore
    else:
        coder.threshold.copy_(least)  # pyright: ignore


def add_thresholds(coder: SparseCoder) -> None:
    """Add what the selection learns besides weights."""
    if coder.cfg.activation == JUMP:
        coder.log_threshold = Parameter(torch.zeros_like(coder.encoder.bias))
    elif coder.cfg.activation in BATCH:
        coder.register_buffer("threshold", torch.zeros((), device=coder.device))


@torch.no_grad()
def track(coder: SparseCoder, acts_NK: Tensor) -> None:
    """Move the average threshold by what a batch chose in training."""
    if coder.cfg.activation in BATCH and (acts_NK > 0).any():
        least = acts_NK[acts_NK > 0].min().to(coder.threshold)  # pyright: ignore
        coder.threshold.lerp_(least, 1 - _DECAY)  # pyright: ignore


def choose(coder: SparseCoder, read_ND: Tensor) -> tuple[Tensor, Tensor]:
    """Return values and indices (N, K) as in training; autograd goes through the values."""
    if coder.cfg.activation == JUMP:
        acts_NK, _, indices_NK = jump(coder, read_ND)
        return acts_NK, indices_NK
    selection = coder.cfg.activation
    return _encode(coder, read_ND, "batchtopk" if selection in BATCH else selection)


def choose_trained(coder: SparseCoder, read_ND: Tensor) -> tuple[Tensor, Tensor]:
    """Return values and indices (N, K) as after training, when no token depends on others."""
    least = threshold(coder)
    if least is None:
        return choose(coder, read_ND)
    return _encode(coder, read_ND, "threshold", least)


def jump(coder: SparseCoder, read_ND: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return JumpReLU's values, l0, and indices (N, K); latents near the threshold are among them.

    Gradients of l0 reach the thresholds alone.
    """
    log_threshold_L = coder.log_threshold
    near_L = log_threshold_L.detach().exp() * (1 - _WIDTH / 2)  # pyright: ignore
    pre_NK, indices_NK = _encode(coder, read_ND, "threshold", near_L)
    log_threshold_NK = F.embedding(indices_NK, log_threshold_L[:, None]).squeeze(-1)  # pyright: ignore
    acts_NK, on_NK = _Jump.apply(pre_NK, log_threshold_NK)  # pyright: ignore
    return acts_NK, on_NK.sum() / len(on_NK), indices_NK


def sparsity_loss(l0: Tensor, k: int) -> Tensor:
    """Return JumpReLU's penalty."""
    return _SPARSITY * (l0 / k - 1).pow(2)


def prefixes(coder: SparseCoder) -> list[int]:
    """Return the sizes of the nested dictionaries, the whole one last."""
    parts = PREFIXES if coder.cfg.activation == "matryoshka" else (1,)
    return sorted({max(1, coder.num_latents // part) for part in parts})


def _encode(
    coder: SparseCoder, read_ND: Tensor, selection: Any, threshold_L: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    return sparse_ops.encode(
        read_ND,
        coder.encoder.weight,
        coder.encoder.bias,
        k=coder.cfg.k,
        selection=selection,
        threshold_L=threshold_L,
    )


class _Jump(torch.autograd.Function):
    """Values above their threshold, and whether they are; with the kernel's gradients."""

    @staticmethod
    def forward(ctx: Any, pre_NK: Tensor, log_threshold_NK: Tensor) -> tuple[Tensor, Tensor]:
        threshold_NK = log_threshold_NK.exp()
        on_NK = pre_NK > threshold_NK
        ctx.save_for_backward(pre_NK, threshold_NK, on_NK)
        return pre_NK * on_NK, on_NK.to(pre_NK.dtype)

    @staticmethod
    def backward(ctx: Any, grad_acts_NK: Tensor, grad_on_NK: Tensor):  # pyright: ignore
        pre_NK, threshold_NK, on_NK = ctx.saved_tensors
        inside_NK = (pre_NK - threshold_NK).abs() < _WIDTH / 2 * threshold_NK
        # The derivative by the logarithm is the threshold times that by the threshold.
        grad_NK = -(threshold_NK * grad_acts_NK + grad_on_NK) * inside_NK / _WIDTH
        return grad_acts_NK * on_NK, grad_NK
