"""The products of `sparse_ops` by sparsify's Triton kernels, for CUDA.

sparsify's own wrappers sort the codes by latent with atomics, so that its gradients are summed in
another order on every run; they also compile a kernel for every number of tokens, and ask for a
number of latents that 8 divides. Here the kernels themselves are launched: on codes that a stable
sort has put in order, one latent to a program, for any number of tokens. The same inputs give the
same bits.

Sums are in float32. Shapes as in `sparse_ops`: N tokens, D model width, L latents, K active latents
per token, Z = N * K stored codes.
"""

from __future__ import annotations

import contextlib
import io
from functools import cache
from typing import Any

import torch
from torch import Tensor

DTYPES = (torch.float32, torch.bfloat16, torch.float16)
"""What the kernels compute with; double precision takes torch's way."""


@cache
def _kernels() -> Any:
    """Return sparsify's kernels, or None where triton is not installed.

    sparsify prints at import which decoder it takes.
    """
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            from sparsify import xformers
    except ImportError:
        return None
    return xformers


def usable(*tensors: Tensor) -> bool:
    """Return whether the kernels can compute with these tensors: type, GPU, triton.

    Only where and how numbers are stored decides, never a parameter.
    """
    fit = all(tensor.is_cuda and tensor.dtype in DTYPES for tensor in tensors)
    return fit and _kernels() is not None


def bag(acts_NK: Tensor, indices_NK: Tensor, W_LD: Tensor) -> Tensor:
    """Return S @ W, of shape (N, D), in the precision of W."""
    out_ND = W_LD.new_empty(len(indices_NK), W_LD.shape[1])
    if len(out_ND):
        with _on(W_LD):
            _kernels().embedding_bag_k[(len(out_ND),)](
                out_ND,
                indices_NK.contiguous(),
                W_LD.contiguous(),
                acts_NK.contiguous(),
                dim=W_LD.shape[1],
                dim_padded=_padded(W_LD.shape[1]),
                bag_size=indices_NK.shape[1],
                num_warps=1,
                num_stages=1,
            )
    return out_ND


def bag_gradients(
    acts_NK: Tensor, order_Z: Tensor, offsets: Tensor, W_LD: Tensor, x_ND: Tensor
) -> tuple[Tensor, Tensor]:
    """Return Sᵀ @ x, (L, D), and x · W of each stored code, (N, K), in one pass.

    With x the gradient of `bag` these are its gradients by W and by the activations.

    Args:
        acts_NK: the values of S.
        order_Z: places of the codes in the flat S, sorted by latent.
        offsets: where in `order_Z` each latent begins, and its end, (L + 1).
        W_LD: the rows of the latents.
        x_ND: a row per token.
    """
    num_latents, width = W_LD.shape
    products_LD, dots_NK = W_LD.new_empty(W_LD.shape), acts_NK.new_empty(acts_NK.shape)
    # The busiest latents first, so that none is left for the end.
    busiest_L = offsets.diff().argsort(descending=True, stable=True)
    with _on(W_LD):
        _kernels().aggregate_gradient_for_embedding_k[(num_latents,)](
            weight_grad_ptr=products_LD,
            per_sample_weights_grad_ptr=dots_NK,
            emb_argsorted_ptr=busiest_L,
            weight_ptr=W_LD.contiguous(),
            emb_begin_pos_ptr=offsets,
            reverse_mapping_ptr=order_Z,
            per_sample_weights_ptr=acts_NK.contiguous(),
            gradient_ptr=x_ND.contiguous(),
            dim=width,
            dim_padded=_padded(width),
            bag_size=acts_NK.shape[1],
            B=0,  # Unused, and a constant: each value would be compiled for.
            K=num_latents,
            BLOCK_SIZE=1,
            num_warps=1,
        )
    return products_LD, dots_NK


def _padded(width: int) -> int:
    """Return the next power of two: kernels work on blocks of that size."""
    return 1 << (width - 1).bit_length()


def _on(tensor: Tensor) -> Any:
    """Make the tensor's device the current one, on which Triton launches kernels."""
    return torch.cuda.device(tensor.device) if tensor.is_cuda else contextlib.nullcontext()
