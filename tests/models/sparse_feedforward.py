"""A sparse feedforward of the kernels, and random weights for it.

Shapes: N tokens, D width, L latents, K active per token.
"""

import torch

from clearnets.models import sparse_ops

SELECTIONS = ("groupmax", "topk")


def weights(num_tokens, width, num_latents, seed, dtype=torch.float64):
    """x_ND, W_enc_LD, b_enc_L, W_dec_LD, all with gradients."""
    generator = torch.Generator().manual_seed(seed)
    shapes = ((num_tokens, width), (num_latents, width), (num_latents,), (num_latents, width))
    draws = (torch.randn(shape, generator=generator, dtype=dtype) for shape in shapes)
    return tuple(draw.requires_grad_() for draw in draws)


def sparse(x_ND, W_enc_LD, b_enc_L, W_dec_LD, *, k, selection):
    acts_NK, indices_NK = sparse_ops.encode(x_ND, W_enc_LD, b_enc_L, k=k, selection=selection)
    return sparse_ops.decode(acts_NK, indices_NK, W_dec_LD)
