"""Sparse feedforward kernels: a dense encoder, k latents per token, a sparse decoder.

Shapes: N tokens, D model width, L latents, K active latents per token (k), G = L / K latents per
group, Z = N * K stored codes.

The codes of N tokens are a sparse matrix S_NL with K entries per row, kept as `acts_NK` and
`indices_NK`. Both passes only need S @ W (a weighted embedding bag over the rows of W) and
Sᵀ @ x (the same bag over the rows of x, after the codes are sorted by latent). So no gradient is
ever as large as (N * K, D) or (N, L), each bag is summed in a fixed order, and the same inputs
give the same bits on every run.

On CUDA sparsify's Triton kernels do it where triton is there (see `triton_ops`), elsewhere torch's
embedding bags. The device alone decides; the results agree up to rounding. On a CPU numpy finds the
maxima of groups and sorts the codes, several times faster than torch and with the same answer.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import FunctionCtx, once_differentiable

from clearnets.models import triton_ops
from clearnets.models.top_k import top_k

Selection = Literal["groupmax", "topk", "batchtopk", "threshold"]

# Pre-activations that exist at one time: the encoder goes over the tokens in pieces of this many
# numbers, but not of so few tokens that reading the weights dominates. On a CPU a piece should stay
# in the cache; on a GPU it only has to fit.
_CPU_PIECE = 2**18
_GPU_PIECE = 2**28
_PIECE_TOKENS = 256


def encode(
    x_ND: Tensor,
    W_enc_LD: Tensor,
    b_enc_L: Tensor,
    *,
    k: int,
    selection: Selection,
    threshold_L: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Return the k latents of each token: `relu(x @ W_encᵀ + b_enc)`, then GroupMax or top-k.

    Or of a token as many as are among the N * k largest of all tokens (`batchtopk`), or above the
    threshold of each latent, which is at least 0 and gets no gradient (`threshold`). Then K is the
    largest number of any token; those with fewer are padded with value 0.

    GroupMax splits the latents into k groups of neighbours and takes the maximum of each; on a
    tie the latent with the lowest index wins on a CPU. A latent that is selected with the value 0
    is not active: it gets no gradient, as under any ReLU.

    Returns:
        `acts_NK` ≥ 0, and `indices_NK` (int64). Under GroupMax column j belongs to group j; under
        top-k the order of the columns carries no meaning.
    """
    return _Encode.apply(x_ND, W_enc_LD, b_enc_L, k, selection, threshold_L)  # pyright: ignore


def decode(acts_NK: Tensor, indices_NK: Tensor, W_dec_LD: Tensor) -> Tensor:
    """Return `S @ W_dec` for codes S given as values and indices, in the precision of W_dec."""
    return _Decode.apply(acts_NK, indices_NK, W_dec_LD)  # pyright: ignore


def _select(pre_NL: Tensor, k: int, selection: Selection) -> tuple[Tensor, Tensor]:
    num_latents = pre_NL.shape[1]
    # ReLU comes behind the selection: it changes no maximum above zero and saves a pass over L.
    if selection == "groupmax":
        group = num_latents // k
        acts_NK, within_NK = _maxima(pre_NL.unflatten(1, (k, group)))
        first_K = torch.arange(0, num_latents, group, device=pre_NL.device)
        return acts_NK.relu_(), within_NK.add_(first_K)
    acts_NK, indices_NK = top_k(pre_NL, k)
    return acts_NK.relu_(), indices_NK


def _maxima(pre_NKG: Tensor) -> tuple[Tensor, Tensor]:
    """Return the largest values of the last dimension and where they first occur."""
    if pre_NKG.device.type != "cpu" or pre_NKG.dtype == torch.bfloat16:
        return pre_NKG.max(dim=-1)
    within_NK = torch.from_numpy(np.argmax(pre_NKG.detach().numpy(), axis=-1))
    return pre_NKG.gather(-1, within_NK.unsqueeze(-1)).squeeze(-1), within_NK


def _select_any(
    pre_NL: Tensor, k: int, selection: Selection, threshold_L: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Choose different numbers of latents for each token."""
    if selection == "batchtopk":
        return _above(pre_NL, _next_largest(pre_NL, k * len(pre_NL)))
    assert threshold_L is not None
    return _above(pre_NL, threshold_L)


def _next_largest(pre_NL: Tensor, count: int) -> Tensor:
    """Return the number below the `count` largest ones of a matrix, 0 if it is negative."""
    if count >= pre_NL.numel():
        return pre_NL.new_zeros(())
    if pre_NL.device.type != "cpu":
        return pre_NL.flatten().topk(count + 1, sorted=False).values.min().relu()
    values = pre_NL.detach().numpy().ravel()
    # A sample tells what is surely smaller: what is left is far faster to search.
    sample = values[:: max(1, len(values) // 2**13)]
    likely = min(len(sample), 2 * count * len(sample) // len(values) + 16)
    left = values[values >= np.partition(sample, -likely)[-likely]]
    left = left if len(left) > count else values
    return torch.tensor(np.partition(left, -count - 1)[-count - 1]).relu()


def _above(pre_NL: Tensor, least: Tensor) -> tuple[Tensor, Tensor]:
    """Return the numbers above `least`, in rows of equal length that are padded with zeros."""
    on_NL = pre_NL > least
    counts_N = on_NL.sum(1)
    longest = max(1, int(counts_N.max())) if len(pre_NL) else 1
    if pre_NL.device.type != "cpu":
        return torch.where(on_NL, pre_NL, 0).topk(longest, sorted=False)
    pre, counts = pre_NL.detach().numpy(), counts_N.numpy()
    found = np.flatnonzero(on_NL.numpy())
    rows = np.repeat(np.arange(len(pre)), counts)
    columns = np.arange(len(found)) - np.repeat(counts.cumsum() - counts, counts)
    acts_NK = np.zeros((len(pre), longest), pre.dtype)
    acts_NK[rows, columns] = pre.ravel()[found]
    # Padded with a latent that is not active, unless all are: then nothing is.
    indices_NK = np.repeat(pre.argmin(1)[:, None], longest, axis=1)
    indices_NK[rows, columns] = found - rows * pre.shape[1]
    return torch.from_numpy(acts_NK), torch.from_numpy(indices_NK)


def bag(acts_NK: Tensor, indices_NK: Tensor, W_LD: Tensor) -> Tensor:
    """Return S @ W."""
    W_LD, acts_NK = W_LD.detach(), acts_NK.to(W_LD.dtype)
    if triton_ops.usable(acts_NK, W_LD):
        return triton_ops.bag(acts_NK, indices_NK, W_LD)
    return F.embedding_bag(indices_NK, W_LD, per_sample_weights=acts_NK, mode="sum")


class ByLatent:
    """The codes sorted by latent: S transposed."""

    def __init__(self, indices_NK: Tensor, num_latents: int) -> None:
        if indices_NK.device.type == "cpu" and num_latents <= 2**16:
            # numpy sorts numbers of 16 bits by radix, ten times as fast.
            latents_Z = indices_NK.reshape(-1).numpy().astype(np.uint16)
            self.order_Z = torch.from_numpy(latents_Z.argsort(kind="stable"))
            counts = np.bincount(latents_Z, minlength=num_latents)
            self.offsets = torch.from_numpy(np.concatenate([[0], counts.cumsum()]))
        else:
            sorted_Z, self.order_Z = indices_NK.reshape(-1).sort(stable=True)
            latents = torch.arange(num_latents + 1, device=indices_NK.device)
            self.offsets = torch.searchsorted(sorted_Z, latents)
        self.rows_Z = self.order_Z.div(indices_NK.shape[1], rounding_mode="floor")

    def products(self, acts_NK: Tensor, x_ND: Tensor, W_LD: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return Sᵀ @ x, (L, D), and x · W of each code, (N, K), if the kernel computes both."""
        acts_NK = acts_NK.to(x_ND.dtype)
        if triton_ops.usable(acts_NK, x_ND, W_LD):
            return triton_ops.bag_gradients(acts_NK, self.order_Z, self.offsets, W_LD, x_ND)
        product_LD = F.embedding_bag(
            self.rows_Z,
            x_ND.detach().contiguous(),
            self.offsets,
            per_sample_weights=acts_NK.reshape(-1)[self.order_Z],
            mode="sum",
            include_last_offset=True,
        )
        return product_LD, None

    def sums(self, acts_NK: Tensor) -> Tensor:
        """Return Sᵀ @ 1, of shape (L,)."""
        return F.embedding_bag(
            self.order_Z,
            acts_NK.reshape(-1, 1),
            self.offsets,
            mode="sum",
            include_last_offset=True,
        ).squeeze(1)


class _Encode(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: FunctionCtx,
        x_ND: Tensor,
        W_LD: Tensor,
        b_L: Tensor,
        k: int,
        selection: Selection,
        threshold_L: Tensor | None,
    ) -> tuple[Tensor, Tensor]:
        piece = _CPU_PIECE if x_ND.device.type == "cpu" else _GPU_PIECE
        pieces = x_ND.split(max(_PIECE_TOKENS, piece // W_LD.shape[0]))
        if selection in ("batchtopk", "threshold"):
            pre_NL = F.linear(x_ND, W_LD, b_L)
            pre_NL = pre_NL.float() if pre_NL.dtype == torch.bfloat16 else pre_NL
            acts_NK, indices_NK = _select_any(pre_NL, k, selection, threshold_L)
        else:
            parts = [_select(F.linear(x, W_LD, b_L), k, selection) for x in pieces]
            acts, indices = zip(*parts, strict=True)
            acts_NK = torch.cat(acts) if len(parts) > 1 else acts[0]
            indices_NK = torch.cat(indices) if len(parts) > 1 else indices[0]
        ctx.save_for_backward(x_ND, W_LD, acts_NK, indices_NK)
        ctx.mark_non_differentiable(indices_NK)
        return acts_NK, indices_NK

    @staticmethod
    @once_differentiable
    def backward(ctx, grad_acts_NK: Tensor, _grad_indices: Tensor | None):  # pyright: ignore
        x_ND, W_LD, acts_NK, indices_NK = ctx.saved_tensors
        needs_x, needs_W, needs_b, *_ = ctx.needs_input_grad
        grad_NK = (grad_acts_NK * (acts_NK > 0)).to(W_LD.dtype)
        grad_x = grad_W = grad_b = None
        if needs_x:
            grad_x = bag(grad_NK, indices_NK, W_LD).to(x_ND.dtype)
        if needs_W or needs_b:
            by_latent = ByLatent(indices_NK, W_LD.shape[0])
            x_ND = x_ND.detach().to(W_LD.dtype)
            grad_W = by_latent.products(grad_NK, x_ND, W_LD)[0] if needs_W else None
            grad_b = by_latent.sums(grad_NK) if needs_b else None
        return grad_x, grad_W, grad_b, None, None, None


class _Decode(torch.autograd.Function):
    @staticmethod
    def forward(ctx: FunctionCtx, acts_NK: Tensor, indices_NK: Tensor, W_LD: Tensor) -> Tensor:
        ctx.save_for_backward(acts_NK, indices_NK, W_LD)
        return bag(acts_NK, indices_NK, W_LD)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad_ND: Tensor):  # pyright: ignore
        acts_NK, indices_NK, W_LD = ctx.saved_tensors
        grad_ND = grad_ND.to(W_LD.dtype)
        grad_acts = grad_W = None
        if ctx.needs_input_grad[2]:
            by_latent = ByLatent(indices_NK, W_LD.shape[0])
            grad_W, grad_acts = by_latent.products(acts_NK, grad_ND, W_LD)
        if grad_acts is None and ctx.needs_input_grad[0]:
            grad_acts = row_products(grad_ND, W_LD, indices_NK)
        if not ctx.needs_input_grad[0]:
            return None, None, grad_W
        assert grad_acts is not None
        return grad_acts.to(acts_NK.dtype), None, grad_W


def row_products(grad_ND: Tensor, W_LD: Tensor, indices_NK: Tensor) -> Tensor:
    """Return for each token the dot products of its gradient with the rows of its K latents."""
    k, width = indices_NK.shape[1], W_LD.shape[1]
    piece = _CPU_PIECE // 4 if W_LD.device.type == "cpu" else _GPU_PIECE
    pieces = zip(
        *(part.split(max(1, piece // (k * width))) for part in (grad_ND, indices_NK)), strict=True
    )
    found = [(F.embedding(places, W_LD) * grad[:, None]).sum(-1) for grad, places in pieces]
    return torch.cat(found) if len(found) > 1 else found[0]
